"""Links and streams in memory: two directions that deliver in order, late, or not at all.

Owns what travels between two peers. Who may reach whom, and what breaks, is `network`'s decision; accepting streams is
`transport`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lading_net.arriving import Arriving
from lading_net.errors import (
    BufferFull,
    LinkClosed,
    NetError,
    StreamClosed,
    StreamReset,
    TooManyStreams,
    UnknownProtocol,
)
from lading_net.ports import Address

if TYPE_CHECKING:
    from lading_net.memory.network import Path
    from lading_net.memory.transport import MemoryTransport

WINDOW = 256 * 1024
"""Bytes sent and unread above which drain() waits: one yamux window, as on the direct link."""

BUFFER = 8 * 1024 * 1024
"""Bytes sent and unread above which write() refuses."""

MAX_STREAMS = 4_096


class Wire:
    """One direction of a link: calls made at the other end in order, each after the path's delay."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = path.loop
        self._flying: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._cut = False
        self.held = False

    def send(self, size: int, call: Callable[..., None], *args: Any) -> None:
        if self._cut:
            return
        now = self._loop.time()
        arrival = self._path.arrival(now, self._last, size)
        if arrival <= now and not self._flying and not self.held:
            call(*args)
            return
        self._last = arrival
        self._flying.append((arrival, call, args))
        self._arm()

    def hold(self) -> None:
        """A partition: nothing arrives until release()."""
        self.held = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        self.held = False
        self._arm()

    def cut(self) -> None:
        """Loses all that is under way, and all that is sent later."""
        self._cut = True
        self._flying.clear()
        self.hold()

    def _arm(self) -> None:
        if self._flying and self._timer is None and not self.held:
            self._timer = self._loop.call_at(self._flying[0][0], self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = self._loop.time() + 1e-9
        while self._flying and self._flying[0][0] <= now and not self.held:
            _, call, args = self._flying.popleft()
            call(*args)
        self._arm()


class MemoryStream(Arriving):
    """One end of a stream; `twin` is the other."""

    twin: MemoryStream

    def __init__(self, link: MemoryLink, protocol: str) -> None:
        super().__init__()
        self._link = link
        self._protocol = protocol
        self._arrived: list[bytes] = []
        self._drainer: asyncio.Future[None] | None = None
        self._unread = 0  # bytes we wrote that the twin has not read
        self._ended = False  # the peer closed its write side
        self._closed = False  # we closed ours
        self.error: NetError | None = None

    @property
    def peer(self) -> Address:
        return self._link.peer

    @property
    def protocol(self) -> str:
        return self._protocol

    def poll(self) -> bytes | None:
        if not self._arrived:
            if self._ended and not isinstance(self.error, StreamReset):
                return b""
            self._check()
            return None
        data = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
        self._arrived.clear()
        taken = self._link.path.fragment(len(data))
        if taken < len(data):
            self._arrived.append(data[taken:])
            data = data[:taken]
        self.twin.consumed(len(data))
        return data

    def write(self, data: bytes) -> None:
        self._check()
        if self._closed:
            raise StreamClosed("The stream's write side was closed before.")
        if not data:
            return
        if self._unread > BUFFER:
            raise BufferFull(f"{self._unread} bytes are queued already.")
        self._unread += len(data)
        self._link.send(len(data), self.twin.feed, bytes(data))

    async def drain(self) -> None:
        while self._unread > WINDOW and self.error is None:
            self._drainer = self._drainer or self._link.loop.create_future()
            await asyncio.shield(self._drainer)
        self._check()

    async def close(self) -> None:
        if self._closed or self.error is not None:
            return
        self._closed = True
        self._link.send(0, self.twin.end)
        self._link.forget_if_done(self)

    def reset(self) -> None:
        if self.error is not None or self.done:
            return
        self._link.send(0, self.twin.fail, StreamReset("The peer gave the stream up."))
        self.fail(StreamReset("The stream was reset on this side."))

    def _check(self) -> None:
        if self.error is not None:
            raise type(self.error)(self.error.message)  # a traceback of its own for each who meets it

    @property
    def done(self) -> bool:
        return self._ended and self._closed

    def feed(self, data: bytes) -> None:
        if self.error is None:
            self._arrived.append(data)
            self._wake_reader()

    def end(self) -> None:
        self._ended = True
        self._wake_reader()
        self._link.forget_if_done(self)

    def fail(self, error: NetError) -> None:
        """The stream is over. What arrived before a link broke may still be read; a reset drops it."""
        if self.error is not None:
            return
        self.error = error
        if not isinstance(error, LinkClosed):
            self._arrived.clear()
        self._wake_reader()
        _wake(self._drainer)
        self._link.forget(self)

    def consumed(self, size: int) -> None:
        self._unread -= size
        if self._drainer is not None and self._unread <= WINDOW:
            _wake(self._drainer)
            self._drainer = None


class MemoryLink:
    """One end of a link; `twin` is the other, reached through `wire`."""

    twin: MemoryLink

    def __init__(self, owner: MemoryTransport, peer: Address, path: Path) -> None:
        self._owner = owner
        self._peer = peer
        self.path = path
        self.loop = path.loop
        self.wire = Wire(path)
        self._streams: dict[MemoryStream, None] = {}
        self._closed = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> Address:
        return self._peer

    @property
    def closed(self) -> asyncio.Event:
        return self._closed

    async def open(self, protocol: str) -> MemoryStream:
        if self._closed.is_set():
            raise LinkClosed("The link to the peer is gone.")
        if len(self._streams) >= MAX_STREAMS:
            raise TooManyStreams(f"{MAX_STREAMS} streams are open on this link.")
        here, there = MemoryStream(self, protocol), MemoryStream(self.twin, protocol)
        here.twin, there.twin = there, here
        self._streams[here] = None
        self.send(0, self.twin.accept, there)
        return here

    async def close(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        if not self._closed.is_set():
            self.wire.send(0, self.twin.drop, "The peer closed the link.")
            self.drop("The link was closed on this side.")

    def send(self, size: int, call: Callable[..., None], *args: Any) -> None:
        if self.path.lost():
            self.sever("The connection broke.")
        else:
            self.wire.send(size, call, *args)

    def accept(self, stream: MemoryStream) -> None:
        """The peer opened a stream here."""
        self._streams[stream] = None
        if not self._owner.serve(stream):
            error = UnknownProtocol(f"The peer does not serve {stream.protocol}.")
            self.send(0, stream.twin.fail, error)
            stream.fail(error)

    def forget(self, stream: MemoryStream) -> None:
        self._streams.pop(stream, None)

    def forget_if_done(self, stream: MemoryStream) -> None:
        if stream.done:
            self.forget(stream)

    def hold(self, silence: float) -> None:
        """A partition came between: traffic waits, and after `silence` seconds the link breaks."""
        self.wire.hold()
        self.twin.wire.hold()
        if self._expiry is None:
            self._expiry = self.loop.call_later(silence, self.sever, "The peer fell silent.")

    def release(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.wire.release()
        self.twin.wire.release()

    def sever(self, sentence: str) -> None:
        """Breaks both ends at once and loses what is under way."""
        self.twin.drop(sentence)
        self.drop(sentence)

    def drop(self, sentence: str) -> None:
        """The link is gone, as seen from this end: nothing arrives here any more."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._expiry is not None:
            self._expiry.cancel()
        self.twin.wire.cut()
        for stream in list(self._streams):
            stream.fail(LinkClosed(sentence))
        self._owner.gone(self)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
