"""A stream of a worker: one unix connection to the desk, which carries the bytes on to the host and back."""

import asyncio
import contextlib
from collections import deque
from typing import cast

from lading_coordinator.workers.wire import GOOD
from lading_net.arriving import Arriving
from lading_net.errors import LinkClosed, NetError, StreamReset
from lading_protocol.ids import Address

# What may lie here unread before the desk is no longer read.
MOST_UNREAD = 256 * 1024


class BorrowedStream(Arriving, asyncio.Protocol):
    """The first byte says whether the desk could open it; else the rest says why not."""

    def __init__(self, peer: Address, protocol: str) -> None:
        super().__init__()
        self.peer = peer
        self.protocol = protocol
        self._transport: asyncio.Transport
        self._arrived: deque[bytes] = deque()
        self._unread = 0
        self._good = False
        self._why = b""
        self._ended = False
        self._closed = False
        self._error: NetError | None = None
        self._room = asyncio.Event()
        self._room.set()

    # As lading_net.ports.Stream

    def poll(self) -> bytes | None:
        if self._arrived:
            data = self._arrived.popleft()
            if self._unread > MOST_UNREAD >= self._unread - len(data):
                self._transport.resume_reading()
            self._unread -= len(data)
            return data
        if self._error is not None:
            raise type(self._error)(self._error.message)
        if self._ended and self._closed:
            self._transport.close()
        return b"" if self._ended else None

    def write(self, data: bytes) -> None:
        if self._error is not None or self._transport.is_closing():
            raise StreamReset("the stream broke off")
        self._transport.write(data)

    async def drain(self) -> None:
        await self._room.wait()
        if self._error is not None:
            raise type(self._error)(self._error.message)

    async def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError, RuntimeError):
            if self._ended:
                self._transport.close()
            elif not self._transport.is_closing():
                self._transport.write_eof()

    def reset(self) -> None:
        self._transport.abort()

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._good:
            if self._why or not data.startswith(GOOD):
                self._why += data
                return
            self._good = True
            data = data[len(GOOD) :]
        if data:
            self._arrived.append(data)
            self._unread += len(data)
            if self._unread - len(data) <= MOST_UNREAD < self._unread:
                self._transport.pause_reading()
            self._wake_reader()

    def eof_received(self) -> bool:
        if self._good:
            self._ended = True
        else:
            self._error = LinkClosed(self._why.decode(errors="replace") or "the link to the host is gone")
            self._transport.abort()
        self._wake_reader()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._error is None and not self._ended:
            self._error = StreamReset("the stream broke off")
        self._room.set()
        self._wake_reader()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()
