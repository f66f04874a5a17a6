"""A worker's transport: the desk's links, over a unix socket. It does not listen, and the desk dials for it; links that
hosts made come and go with their heartbeats.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from lading_coordinator.workers.borrowed_stream import BorrowedStream
from lading_coordinator.workers.wire import GOOD, Call, Lend, Listen, News, packed, read_frame, told
from lading_net.errors import DialFailed, LinkClosed, ListenFailed, NetError
from lading_net.ports import Link, LinkCallback, StreamHandler
from lading_protocol.framing import frame
from lading_protocol.ids import Address, short
from lading_protocol.messages import HEARTBEAT

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.1


class BorrowedTransport:
    """`path` is the unix socket of the desk's harbour. `run` follows the heartbeats for ever; `heard` is told what
    other coordinators say."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._links: dict[Address, BorrowedLink] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._callbacks: list[LinkCallback] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.heard: Callable[[bytes], object] = lambda summary: None

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._follow()
            for host in list(self._links):
                self._gone(host)
            await asyncio.sleep(RETRY_SECONDS)

    async def listen(self, endpoint: str) -> str:
        raise ListenFailed("A worker has no door of its own; the desk listens.")

    async def dial(self, endpoint: str, expect: Address | None) -> Link:
        if expect is None:
            raise DialFailed("A worker reaches only peers whose name it knows.")
        if expect not in self._links:
            await self._call(Call(expect, endpoint))
            return BorrowedLink(expect, self._path)
        return self._links[expect]

    async def _call(self, call: Call) -> None:
        """Raises DialFailed."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                writer.write(packed(call))
                answer = await reader.read(1)
                if answer != GOOD:
                    raise DialFailed((answer + await reader.read()).decode(errors="replace") or "The desk is gone.")
            finally:
                writer.transport.abort()
        except OSError as error:
            raise DialFailed("The process that has the links is gone.") from error

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler
        if protocol == HEARTBEAT:  # hosts that were there before us may have been told of by now
            for link in self._links.values():
                self._serve(link)

    def on_link(self, callback: LinkCallback) -> None:
        self._callbacks.append(callback)

    def links(self, peer: Address | None = None) -> list[Link]:
        if peer is None:
            return list(self._links.values())
        return [self._links[peer]] if peer in self._links else []

    async def close(self) -> None:
        for host in list(self._links):
            self._gone(host)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(packed(Listen()))
            while True:
                said = told.decode(await read_frame(reader))
                if isinstance(said, News):
                    self.heard(said.data)
                    continue
                if not said.message:
                    self._gone(Address(said.host))
                    continue
                link = self._links.get(Address(said.host)) or self._came(Address(said.host))
                link.beats.feed(frame(said.message))
        finally:
            writer.transport.abort()

    def _came(self, host: Address) -> "BorrowedLink":
        link = self._links[host] = BorrowedLink(host, self._path)
        for callback in self._callbacks:
            callback(link)
        self._serve(link)
        return link

    def _serve(self, link: "BorrowedLink") -> None:
        handler = self._handlers.get(HEARTBEAT)
        if handler is not None:
            task = asyncio.ensure_future(self._served(handler, link.beats))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _served(self, handler: StreamHandler, beats: "Beats") -> None:
        try:
            await handler(beats)
        except Exception:
            log.exception("The heartbeat of host %s is not understood", short(beats.peer))

    def _gone(self, host: Address) -> None:
        link = self._links.pop(host, None)
        if link is not None:
            link.beats.feed(b"")
            link.closed.set()


class BorrowedLink:
    def __init__(self, peer: Address, path: str) -> None:
        self.peer = peer
        self.closed = asyncio.Event()
        self.beats = Beats(peer)
        self._path = path

    async def open(self, protocol: str) -> BorrowedStream:
        if self.closed.is_set():
            raise LinkClosed("The link to the host is gone.")
        try:
            _, stream = await asyncio.get_running_loop().create_unix_connection(
                lambda: BorrowedStream(self.peer, protocol), self._path
            )
        except OSError as error:
            raise LinkClosed("The process that has the link to the host is gone.") from error
        stream.write(packed(Lend(self.peer, protocol)))
        return stream

    async def close(self) -> None:
        """The desk's link stays: it is not ours."""


class Beats:
    """The heartbeat of one host, as it is told by the desk."""

    def __init__(self, peer: Address) -> None:
        self.peer = peer
        self.protocol = HEARTBEAT
        self._arrived: deque[bytes] = deque()
        self._wake = asyncio.Event()

    def feed(self, data: bytes) -> None:
        self._arrived.append(data)
        self._wake.set()

    async def read(self) -> bytes:
        while not self._arrived:
            self._wake.clear()
            await self._wake.wait()
        return self._arrived.popleft()

    def poll(self) -> bytes | None:
        return self._arrived.popleft() if self._arrived else None

    def watch(self, callback: Callable[[], None] | None) -> None:
        raise NetError("A heartbeat is read, not watched.")

    def write(self, data: bytes) -> None:
        raise NetError("Nothing is said to a host in its heartbeat.")

    async def drain(self) -> None: ...

    async def close(self) -> None: ...

    def reset(self) -> None: ...
