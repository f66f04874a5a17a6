"""Hostile peers: whatever bytes at our door from any loopback address, or any yamux frames behind a true handshake."""

from __future__ import annotations

import asyncio
import os
from struct import pack

from lading_net.direct.multistream import proposal
from lading_net.direct.noise import Credentials
from lading_net.direct.upgrade import Upgrade
from lading_protocol.keys import PrivateKey

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, number: int, length: int, body: bytes = b"") -> bytes:
    return pack(">BBHII", 0, kind, flags, number, length) + body


def opening(number: int, protocol: str = "/echo/1", data: bytes = b"") -> bytes:
    body = proposal(protocol) + data
    return frame(DATA, SYN, number, len(body), body)


async def connect(where: str, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(where.split("/")[4]), local_addr=(source, 0))


async def call_in_vain(where: str, times: int, source: str) -> None:
    """Speaks another language at the door; one after the other, so that a refusal is told from what came before it."""
    for _ in range(times):
        try:
            reader, writer = await connect(where, source)
        except OSError:
            continue  # it was reset before we knew that it was there
        writer.write(b"GET / HTTP/1.1\r\n" + os.urandom(20_000))
        assert await gone(reader)
        writer.close()


async def gone(reader: asyncio.StreamReader, seconds: float = 5) -> bool:
    """Whether we are hung up on in time."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


class RawPeer:
    """Proves an identity like an honest peer and then says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upgrade: Upgrade) -> None:
        self.reader, self.writer, self._upgrade = reader, writer, upgrade

    @classmethod
    async def join(cls, where: str, key: PrivateKey | None = None, source: str = "127.0.0.1") -> RawPeer:
        """Raises ConnectionError where it is turned away."""
        reader, writer = await connect(where, source)
        upgrade = Upgrade(Credentials(key or PrivateKey(os.urandom(32))), True)
        writer.write(upgrade.start())
        while upgrade.remote is None:
            data = await reader.read(1 << 16)
            if not data:
                writer.close()
                raise ConnectionError("turned away")
            if answer := upgrade.receive(data):
                writer.write(answer)
        return cls(reader, writer, upgrade)

    def say(self, frames: bytes) -> None:
        for at in range(0, len(frames), 65_000):
            self.writer.writelines(self._upgrade.sealer.seal(frames[at : at + 65_000]))

    async def hear(self, until: bytes, seconds: float = 5) -> bytes:
        got = b""
        async with asyncio.timeout(seconds):
            while until not in got:
                data = await self.reader.read(1 << 16)
                if not data:
                    break
                got += b"".join(self._upgrade.opener.receive(data))
        return got

    async def gone(self, seconds: float = 5) -> bool:
        return await gone(self.reader, seconds)

    def close(self) -> None:
        self.writer.close()
