"""py-libp2p's TCP inside a private network. The library's own protector is not used: it speaks Salsa20 with a nonce of
8 bytes, which the other implementations do not, and answers callers who lack the key.
"""

from __future__ import annotations

from typing import cast

from libp2p.abc import IRawConnection
from libp2p.custom_types import THandler
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.tcp.tcp import TCP, TCPListener
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from lading_net.errors import NetError
from lading_net.private import NetworkKey, Protector

_AT_ONCE = 64 * 1024


class ProtectedStream(ReadWriteCloser):
    def __init__(self, inner: ReadWriteCloser, protector: Protector) -> None:
        self._inner, self._protector = inner, protector
        self._said = b""

    async def read(self, n: int | None = None) -> bytes:
        """The library reads byte by byte at first; the protector must see at once what came at once, or it would take a
        caller's first 24 bytes for one who waits for our nonce."""
        while not self._said:
            data = await self._inner.read(_AT_ONCE)
            if not data:
                return data
            try:
                self._said, answer = self._protector.receive(data)
            except NetError as error:
                raise IOException(error.message) from None
            if answer:
                await self._inner.write(answer)
        size = len(self._said) if n is None else n
        data, self._said = self._said[:size], self._said[size:]
        return data

    async def write(self, data: bytes) -> None:
        if sent := self._protector.send(data):
            await self._inner.write(sent)

    async def close(self) -> None:
        await self._inner.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._inner.get_remote_address()


class PrivateTCP(TCP):
    def __init__(self, key: NetworkKey) -> None:
        super().__init__()
        self._key = key

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        return self._dialled(await super().dial(maddr))

    async def dial_with_source(self, maddr: Multiaddr, source: tuple[str, int]) -> IRawConnection:
        return self._dialled(await super().dial_with_source(maddr, source))

    def create_listener(self, handler_function: THandler) -> TCPListener:
        async def handle(inner: ReadWriteCloser) -> None:
            await handler_function(ProtectedStream(inner, Protector(self._key, dialled=False)))

        return super().create_listener(handle)

    def _dialled(self, connection: IRawConnection) -> IRawConnection:
        inner = cast(RawConnection, connection).stream
        return RawConnection(ProtectedStream(inner, Protector(self._key, dialled=True)), True)
