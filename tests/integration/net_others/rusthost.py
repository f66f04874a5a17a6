"""rust-libp2p on loopback or on a machine of the lab, and what our end needs to get along with the program around it.

That program, lattica, hangs up on whoever does not say its own words in identify, names Kademlia's protocol by them,
and tries its bitswap without a pause until somebody listens. Its service calls are bincode on streams of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from integration.net_others.rustpeer import MARK
from lading_net.core.kademlia import KAD
from lading_net.direct import DirectStream, DirectTransport
from lading_net.direct.manners import IDENTIFY, introduction
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Link, Stream
from lading_net.protobuf import encode_field, encode_number
from lading_protocol.keys import PrivateKey

CALLS = "/rpc/req-resp/1.0.0"
TOPIC = "p2p-circuit-broadcast"
_BITSWAP = "/ipfs/bitswap/1.2.0"
_METHOD = "Echo.say"


class RustHost:
    """`log` is what it logged so far."""

    def __init__(self, running: asyncio.subprocess.Process, endpoint: str, peer_id: PeerId) -> None:
        self.endpoint, self.peer_id = endpoint, peer_id
        self.log: list[str] = []
        self._running = running
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._reading = [loop.create_task(each) for each in (self._read_answers(), self._read_log())]

    async def tell(self, *order: Any) -> Any:
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        async with asyncio.timeout(25):
            told = await self._answers.get()
        assert "error" not in told, told["error"]
        return told["result"]

    async def ended(self) -> None:
        await self._running.wait()
        await asyncio.gather(*self._reading)

    async def _read_answers(self) -> None:
        assert self._running.stderr is not None
        while line := await self._running.stderr.readline():
            if line.startswith(MARK.encode()):
                self._answers.put_nowait(json.loads(line[len(MARK) :]))

    async def _read_log(self) -> None:
        assert self._running.stdout is not None
        while line := await self._running.stdout.readline():
            self.log.append(line.decode())


@contextlib.asynccontextmanager
async def rust_host(
    module: Path, key: PrivateKey, *before: str, at: str = "127.0.0.1", **config: Any
) -> AsyncIterator[RustHost]:
    """Until the block ends. `before` is what its command begins with."""
    with contextlib.closing(socket.socket()) as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        (Path(folder) / "p2p.key").write_bytes(b"\x08\x02\x12\x20" + key.secret)
        plain = {"with_mdns": False, "with_upnp": False, "idle_timeout": 60, "protocol": KAD, "key_path": folder}
        places = {"storage_path": f"{folder}/blocks", "dht_db_path": f"{folder}/records"}
        there = [f"/ip4/{at}/tcp/{port}"]
        given = {**plain, **places, "listen_addrs": there, "external_addrs": there, **config}
        command = [*before, sys.executable, str(Path(__file__).with_name("rustpeer.py")), str(module)]
        pipe, log = asyncio.subprocess.PIPE, {"RUST_LOG": "lattica=debug,libp2p_dcutr=debug", "NO_COLOR": "1"}
        env = {**os.environ, **log}
        running = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        peer_id = PeerId.from_public_key(key.public_key)
        host = RustHost(running, str(Endpoint("ip4", at, port, peer_id)), peer_id)
        try:
            assert running.stdin is not None
            running.stdin.write(json.dumps(given).encode() + b"\n")
            assert await host.answer() == str(peer_id)
            yield host
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await host.ended()


def befriend(transport: DirectTransport, *protocols: str, at: str = "") -> None:
    """Has our end say and serve what lattica wants. `at` is where we say that we listen."""

    async def introduce(stream: Stream) -> None:
        assert isinstance(stream, DirectStream)
        served, places = [*transport._handlers, *protocols], [Endpoint.parse(at)] if at else []
        told = introduction(transport.peer_id, places, served, stream.seen_at, "lading")
        body = told.replace(encode_field(5, b"lading/1"), encode_field(5, KAD.encode()))[len(told) - _size(told) :]
        stream.write(encode_number(len(body)) + body)

    transport.handle(IDENTIFY, introduce)
    transport.handle(_BITSWAP, _hear)
    transport.handle(CALLS, _echo)


def _size(message: bytes) -> int:
    """Of a message without its length, which is less than 16 KiB."""
    return len(message) - (1 if message[0] < 0x80 else 2)


async def _hear(stream: Stream) -> None:
    while await stream.read():
        pass


async def say(link: Link, data: bytes) -> bytes:
    """What its service answers."""
    stream = await link.open(CALLS)
    request = b"\0" + packed(b"1") + packed(_METHOD.encode()) + packed(data) + b"\0"
    for at in range(0, len(request), 60_000):
        stream.write(request[at : at + 60_000])
        await stream.drain()
    await stream.close()
    answer = await _all(stream)
    assert answer[0] == 1
    return _unpacked(answer, _unpacked(answer, 1)[1])[0]


async def _echo(stream: Stream) -> None:
    """The same service at our end."""
    asked = await _all(stream)
    name, at = _unpacked(asked, 1)
    method, at = _unpacked(asked, at)
    assert method == _METHOD.encode()
    stream.write(b"\1" + packed(name) + packed(_unpacked(asked, at)[0]) + b"\0")
    await stream.drain()


async def _all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


def packed(data: bytes) -> bytes:
    """As bincode does: numbers below 251 take a byte, others follow a byte that says how long they are."""
    size = len(data)
    if size < 251:
        return bytes([size]) + data
    return (b"\xfb" + size.to_bytes(2, "little") if size < 1 << 16 else b"\xfc" + size.to_bytes(4, "little")) + data


def _unpacked(data: bytes, at: int) -> tuple[bytes, int]:
    """What begins there, and where it ends."""
    size, at = data[at], at + 1
    if size > 250:
        width = {251: 2, 252: 4}[size]
        size, at = int.from_bytes(data[at : at + width], "little"), at + width
    return data[at : at + size], at + size
