"""The desk's links, lent to the workers: a worker opens a stream to a host as if the link were its own.

There is one link between two peers, so one process has it; it moves the bytes of lent streams and understands none.
What hosts report of themselves, and other coordinators of theirs, is told to every worker.
"""

import asyncio
import contextlib
import logging
from collections import deque

import msgspec

from lading_coordinator.workers.wire import (
    CHUNK,
    GOOD,
    Asked,
    Call,
    Lend,
    Listen,
    News,
    Told,
    asked,
    packed,
    read_frame,
)
from lading_net.errors import NetError
from lading_net.ports import Stream, StreamHandler, Transport
from lading_protocol.framing import Frames
from lading_protocol.ids import Address
from lading_protocol.messages import Hello, ToIndex

log = logging.getLogger(__name__)
# A worker that is so far behind with reading heartbeats is cut off, and begins anew.
MOST_UNREAD = 4 << 20
# The latest summaries are told to a worker that begins late.
MOST_NEWS = 64
_to_index = msgspec.msgpack.Decoder(ToIndex)


class Harbour:
    """Serves workers at the unix socket `path`."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path
        self._server: asyncio.Server | None = None
        self._hellos: dict[Address, bytes] = {}
        self._listeners: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._news: deque[News] = deque(maxlen=MOST_NEWS)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    # Heartbeats

    def shared(self, handler: StreamHandler) -> StreamHandler:
        """The handler of heartbeats, with the workers listening in."""

        async def serve(stream: Stream) -> None:
            try:
                await handler(_Overheard(stream, self))
            finally:
                if self._hellos.pop(stream.peer, None) is not None:
                    self._tell(Told(stream.peer, b""))

        return serve

    def heard(self, host: Address, message: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # the handler answers for what does not read
            if isinstance(_to_index.decode(message), Hello):
                self._hellos[host] = message
            if host in self._hellos:
                self._tell(Told(host, message))

    def news(self, summary: bytes) -> None:
        """What another coordinator said that was new."""
        self._news.append(News(summary))
        self._tell(self._news[-1])

    def _tell(self, told: Told | News) -> None:
        data = packed(told)
        for writer in list(self._listeners):
            if writer.transport.get_write_buffer_size() > MOST_UNREAD:
                writer.transport.abort()
            else:
                writer.write(data)

    # Workers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            ask: Asked = asked.decode(await read_frame(reader))
            match ask:
                case Listen():
                    await self._listener(reader, writer)
                case Lend():
                    await self._lend(ask, reader, writer)
                case Call():
                    await self._call(ask, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the worker is gone
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _listener(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for host, hello in self._hellos.items():
            writer.write(packed(Told(host, hello)))
        for news in self._news:
            writer.write(packed(news))
        self._listeners.add(writer)
        try:
            await reader.read(1)  # it says nothing more
        finally:
            self._listeners.discard(writer)

    async def _lend(self, ask: Lend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await self._opened(ask)
        except NetError as error:
            await _refuse(error, reader, writer)
            return
        writer.write(GOOD)
        out = asyncio.ensure_future(_outwards(reader, stream))
        try:
            await _inwards(stream, writer)
            await out
        except (NetError, OSError):
            stream.reset()
        finally:
            if not out.done():
                out.cancel()
                stream.reset()

    async def _call(self, ask: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A link to a peer that has none to us; then it is lent as the others are."""
        try:
            await self._transport.dial(ask.endpoint, ask.peer)
        except NetError as error:
            await _refuse(error, reader, writer)
            return
        writer.write(GOOD)
        await writer.drain()
        await reader.read(1)

    async def _opened(self, ask: Lend) -> Stream:
        for link in self._transport.links():
            if link.peer == ask.peer and not link.closed.is_set():
                return await link.open(ask.protocol)
        raise NetError("the host has no link to this coordinator any more")


async def _refuse(error: NetError, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(error.message.encode()[:500])
    writer.write_eof()
    await writer.drain()
    await reader.read(1)


async def _outwards(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK):
        stream.write(data)
        await stream.drain()
    await stream.close()


async def _inwards(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read():
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class _Overheard:
    """A heartbeat's stream whose reader is not alone."""

    def __init__(self, stream: Stream, harbour: Harbour) -> None:
        self._stream = stream
        self._harbour = harbour
        self._frames = Frames()
        self.peer = stream.peer
        self.protocol = stream.protocol
        self.watch = stream.watch
        self.write = stream.write
        self.drain = stream.drain
        self.close = stream.close
        self.reset = stream.reset

    async def read(self) -> bytes:
        return self._noted(await self._stream.read())

    def poll(self) -> bytes | None:
        data = self._stream.poll()
        return data if data is None else self._noted(data)

    def _noted(self, data: bytes) -> bytes:
        for message in self._frames.feed(data):
            self._harbour.heard(self.peer, message)
        return data
