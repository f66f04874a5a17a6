"""Gives a client's connection to the worker that owns its key: the descriptor itself, with what was read of it.

From then on nobody stands between the client and its worker, and the process that accepted it may die. Where the owner
cannot take it (it is being started again), the connection stays here and its requests are relayed.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable
from typing import cast

from lading_coordinator.gateway.connection import App, Limits
from lading_coordinator.gateway.server import HttpServer

log = logging.getLogger(__name__)
CHUNK = 64 * 1024
_KEY = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+([^\r\n]*)\r\n", re.IGNORECASE)
# From the path and the API key of a connection's first request to the socket where the key's owner takes it, or "".
Owner = Callable[[str, str], str]


class SortingServer(HttpServer):
    """Looks at the first request of a connection before it is anybody's. `owner` says whose it is."""

    def __init__(self, app: App, limits: Limits, owner: Owner) -> None:
        super().__init__(app, limits)
        self._owner = owner
        self._moving: set[asyncio.Task[None]] = set()

    def protocol(self) -> asyncio.Protocol:
        return _First(self)

    def decide(self, first: "_First") -> None:
        """The head of the first request is there."""
        line, _, _ = first.read.partition(b"\r\n")
        words = line.split(b" ")
        key = _KEY.search(first.read)
        path = words[1].partition(b"?")[0].decode("latin-1") if len(words) > 1 else ""
        to = self._owner(path, key.group(1).strip().decode("latin-1")) if key else ""
        if not to:
            self.keep(first)
            return
        assert first.transport is not None
        first.transport.pause_reading()
        task = asyncio.ensure_future(self._move(first, to))
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)

    def keep(self, first: "_First") -> None:
        """It is served here."""
        transport = first.leave()
        if transport is not None:
            self.begin(transport, bytes(first.read))

    def begin(self, transport: asyncio.Transport, data: bytes) -> None:
        connection = self.connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if data:
            connection.data_received(data)

    async def adopt(self, client: socket.socket, data: bytes) -> None:
        """Serves a connection that another worker accepted, and has read `data` of."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: _Adopted(self, data), client)

    async def _move(self, first: "_First", to: str) -> None:
        if first.transport is None:
            return
        client = first.transport.get_extra_info("socket")
        try:
            copy = os.dup(client.fileno())
        except OSError:
            return  # the client is gone
        try:
            await _send(to, copy, bytes(first.read))
        except OSError as error:
            log.warning("A connection stays with the worker that accepted it: %s", error)
            if first.transport is not None:
                first.transport.resume_reading()
            self.keep(first)
        else:
            transport = first.leave()
            if transport is not None:
                transport.abort()  # this end only: the owner has the other
        finally:
            os.close(copy)


class _First(asyncio.Protocol):
    """A connection of which too little is known."""

    def __init__(self, server: SortingServer) -> None:
        self._server = server
        self._limits = server.limits
        self._timer: asyncio.TimerHandle | None = None
        self._decided = False
        self.transport: asyncio.Transport | None = None
        self.read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # A client that says nothing has as long as one between two requests.
        self._timer = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._late)

    def data_received(self, data: bytes) -> None:
        if not self.read and self._timer is not None:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._limits.head_seconds, self._late)
        self.read += data
        if not self._decided and (b"\r\n\r\n" in self.read or len(self.read) > self._limits.head):
            self._decided = True
            self._server.decide(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()

    def leave(self) -> asyncio.Transport | None:
        """The transport, which is no longer ours; None when the client is gone."""
        if self._timer is not None:
            self._timer.cancel()
        transport, self.transport = self.transport, None
        return transport

    def _late(self) -> None:
        """The connection's own rules say what a late client hears."""
        self._decided = True
        if self.read:
            self._server.keep(self)
        elif self.transport is not None:
            self.transport.abort()


class _Adopted(asyncio.Protocol):
    """Sees to it that what was read comes before what is still to be read."""

    def __init__(self, server: SortingServer, data: bytes) -> None:
        self._server = server
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.begin(cast(asyncio.Transport, transport), self._data)


async def _send(to: str, client: int, data: bytes) -> None:
    """Raises OSError when the owner does not take it."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as way:
        way.setblocking(False)
        await loop.sock_connect(way, to)
        socket.send_fds(way, [len(data).to_bytes(4, "big")], [client])
        if data:
            await loop.sock_sendall(way, data)
        if await loop.sock_recv(way, 1) != b"\x01":
            raise ConnectionError("its owner did not take it")


class Quay:
    """Where a worker takes connections over, at the unix socket `path`."""

    def __init__(self, server: SortingServer, path: str) -> None:
        self._server = server
        self._path = path
        self._task: asyncio.Task[None] | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # of one that was killed
        listener.bind(self._path)
        listener.listen(1024)
        listener.setblocking(False)
        self._task = asyncio.ensure_future(self._accept(listener))

    async def close(self) -> None:
        tasks = [*self._arriving, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                way, _ = await loop.sock_accept(listener)
                task = asyncio.ensure_future(self._taken(way))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
        finally:
            listener.close()

    async def _taken(self, way: socket.socket) -> None:
        try:
            await self._take(way)
        except OSError as error:  # the client, or the worker that it came from, is gone
            log.info("A connection was not taken over: %s", error)

    async def _take(self, way: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with way:
            await _readable(way)
            head, clients, _, _ = socket.recv_fds(way, 4, 1)
            if not clients:
                return
            client = socket.socket(fileno=clients[0])
            try:
                client.setblocking(False)
                size, data = int.from_bytes(head, "big"), bytearray()
                while len(data) < size and (more := await loop.sock_recv(way, min(CHUNK, size - len(data)))):
                    data += more
                if len(data) < size:
                    raise ConnectionError("the worker that accepted it is gone")
                await loop.sock_sendall(way, b"\x01")
            except BaseException:
                client.close()
                raise
        await self._server.adopt(client, bytes(data))


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock.fileno(), arrived)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())
