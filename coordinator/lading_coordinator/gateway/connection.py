"""One HTTP/1.1 connection: parsing within limits, one request at a time, and knowing at once when the client is gone.

It calls an application for each request; when the connection is lost it cancels the call, or says so to the reply. It
knows no route.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import httptools
import msgspec

from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.reply import Reply

log = logging.getLogger(__name__)
QUEUE = 16
BUFFER = 64 * 1024
LINGER_SECONDS = 1.0


class Limits(msgspec.Struct, frozen=True):
    """Bytes and seconds that a client may take. `stall` is how long it may leave a full buffer unread."""

    body: int = 2 << 20
    head: int = 32 << 10
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0


class Request:
    """A complete request. Header names are lower case."""

    __slots__ = ("body", "client", "headers", "keep_alive", "method", "path", "query", "secure", "version")

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.query = b""
        self.version = "1.1"
        self.keep_alive = True
        self.client = ""
        self.secure = False

    def bearer(self) -> str:
        """The token of the Authorization header, or nothing."""
        told = self.headers.get(b"authorization", b"")
        return told[7:].strip().decode("latin-1") if told[:7].lower() == b"bearer " else ""


# It answers at once, or later from callbacks of its own; or it gives what is still to be done, for a task to do.
App = Callable[[Request, Reply], Coroutine[Any, Any, None] | None]

# What a client is about. Plain numbers: to read a member of an Enum costs more than all else in a callback.
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
# A phase that the server has not seen yet: it looks once a second, and most phases are over before that.
UNSEEN: Final = -1.0


class Connection(asyncio.Protocol):
    """`peers` is the server's set of open connections; it adds and removes itself. `full` says that the client is
    slower than its answer."""

    def __init__(self, app: App, limits: Limits, peers: set["Connection"]) -> None:
        self._app = app
        self._limits = limits
        self._most_head = limits.head
        self._most_body = limits.body
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._client = ""
        self._secure = False
        self._waiting: deque[Request] = deque()
        self._reply: Reply | None = None
        self._work: list[tuple[Request, Reply, Coroutine[Any, Any, None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._starting = False
        self._refusal: ApiError | None = None
        self._room: asyncio.Event | None = None
        self._paused_at = 0.0
        self._reading = True
        self._phase = IDLE
        self._since = UNSEEN
        self._url = b""
        self._target = b""
        self._path = ""
        self._query = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._head_bytes = 0
        self._head_size = 0
        self.full = False
        self.closing = False

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods but do not derive from its classes.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=BUFFER)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # a unix socket has no such option
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        self.closing = True
        self._transport = None
        self._parser = None  # it holds this connection
        self._waiting.clear()
        self.resume_writing()
        reply, self._reply = self._reply, None
        if self._task is not None:
            self._task.cancel()
            self._task = self._idle = None  # it holds this connection
        for _, _, work in self._work:
            work.close()
        self._work.clear()
        if reply is not None and reply.gone is not None:
            reply.gone()
        self._tell_ended()

    def eof_received(self) -> bool:
        """A client that will send no more is taken for gone: waiting to see whether it still reads would let the host
        work on for nobody."""
        return False

    def pause_writing(self) -> None:
        self._paused_at = self._loop.time()
        self._room = asyncio.Event()
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._room is not None:
            self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.closing = True  # the request is answered as it stands; what follows would be another protocol
        except httptools.HttpParserError as error:
            self._refuse(ApiError(400, "malformed_http", f"This is not HTTP/1.1: {error}."))
        if self._phase == HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._most_head + BUFFER:
                self._refuse_head()
        self._settle_refusal()

    # From the parser

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._headers = {}
        self._head_bytes = self._head_size = 0
        self._turn(HEAD)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        name = name.lower()
        if name in self._headers and name in (b"content-length", b"host", b"authorization"):
            self._refuse(ApiError(400, "malformed_http", f"The header {name.decode('latin-1')} stands twice."))
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._turn(BODY)
        length = self._headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._most_body:
            self._refuse(too_large(self._most_body))
        elif self._reply is None and self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._refusal is not None:
            return
        if len(self._body) + len(body) > self._most_body:
            self._refuse(too_large(self._most_body))
        elif self._body:
            if type(self._body) is bytes:
                self._body = bytearray(self._body)
            self._body += body
        else:
            self._body = body  # most come in one piece

    def on_message_complete(self) -> None:
        if self._refusal is not None or self.closing:
            return
        if self._url != self._target:  # most clients ask for the same again and again
            try:
                self._path, self._query = _split(self._url)
            except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
                self._refuse(ApiError(400, "malformed_http", "The request's address does not read."))
                return
            self._target = self._url
        parser = self._parser
        body, self._body = self._body, b""  # an idle connection holds none
        method = parser.get_method().decode("ascii")
        request = Request(method, self._path, self._headers, bytes(body))
        request.query = self._query
        request.version = parser.get_http_version()
        upgrades = (b"upgrade" in self._headers or method == "CONNECT") and parser.should_upgrade()
        request.keep_alive = parser.should_keep_alive() and not upgrades
        request.client = self._client
        request.secure = self._secure
        self._turn(IDLE)
        if self._reply is None and not self._waiting:
            self._answer(request)
        else:
            self._waiting.append(request)
            self._go_on()

    # For the reply

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; nothing happens when it is gone."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits while the client's buffer is full."""
        if self._room is not None:
            await self._room.wait()

    def answered(self, reply: Reply) -> None:
        """The whole of it is written."""
        if reply is not self._reply:
            return
        self._reply = None
        self._since = UNSEEN
        self._tell_ended()
        if self._transport is None:
            return
        if self._refusal is not None:
            self._say_refusal()
        elif not reply.keep_alive or self.closing:
            self.closing = True
            self._transport.close()
        elif self._waiting:
            self._go_on()

    # For the server

    def late(self, now: float) -> bool:
        """Whether the client has used up its time, which runs from when the server first sees what it is about."""
        limits = self._limits
        if self.full and now - self._paused_at > limits.stall_seconds:
            return True
        if self._reply is not None:
            return False
        if self._since == UNSEEN:
            self._since = now
        patience = (limits.idle_seconds, limits.head_seconds, limits.body_seconds)
        return now - self._since > patience[self._phase]

    def expire(self) -> None:
        """Closes a late connection: with an answer where the client still waits for one."""
        if self._phase != IDLE and not self.full and self._reply is None:
            self._refuse(ApiError(408, "request_timeout", "The request did not arrive in time.", hint="Send it again."))
            self._say_refusal()
        else:
            self.abort()

    def stop(self) -> asyncio.Future[None] | None:
        """No further request on this connection; returns what is done when the running answer is, if there is one."""
        self.closing = True
        if self._reply is None:
            if self._transport is not None:
                self._transport.close()
            return None
        if self._ended is None:
            self._ended = self._loop.create_future()
        return self._ended

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Inside

    def _turn(self, phase: int) -> None:
        self._phase = phase
        self._since = UNSEEN

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._most_head:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._refuse(ApiError(431, "headers_too_large", f"The headers are over {self._most_head} bytes."))

    def _refuse(self, error: ApiError) -> None:
        if self._refusal is None:
            self._refusal = error
            self._body = b""

    def _settle_refusal(self) -> None:
        if self._refusal is not None and self._reply is None:
            self._say_refusal()

    def _say_refusal(self) -> None:
        """Answers, then reads on for a moment without looking: closing at once would take the answer from a client
        that still sends."""
        assert self._refusal is not None
        if self._transport is None or self._transport.is_closing():
            return
        self.closing = True
        Reply(self, version="1.1", keep_alive=False).refuse(self._refusal)
        if self._transport.can_write_eof():  # TLS has no half of a connection to close
            self._transport.write_eof()
        self._loop.call_later(LINGER_SECONDS, self.abort)

    def _tell_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _go_on(self) -> None:
        """Answers what waits, one after another; holds a client back that sends many requests ahead of the answers."""
        if self._starting:  # further down, where the one before was answered at once
            return
        self._starting = True
        while self._waiting and self._reply is None and not self.closing:
            self._answer(self._waiting.popleft())
        self._starting = False
        crowded = len(self._waiting) >= QUEUE
        if crowded == self._reading and self._transport is not None:
            (self._transport.pause_reading if crowded else self._transport.resume_reading)()
            self._reading = not crowded

    def _answer(self, request: Request) -> None:
        stays = request.keep_alive and not self.closing
        reply = self._reply = Reply(self, request.version, keep_alive=stays, head=request.method == "HEAD")
        try:
            work = self._app(request, reply)
        except Exception as error:
            _failed(request, reply, error)
            return
        if work is None:
            return
        self._work.append((request, reply, work))
        if self._task is None:
            self._task = self._loop.create_task(self._serve())
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _serve(self) -> None:
        """Does what answers are still to be made of, one after another: a task for each costs more than its reading."""
        try:
            while True:
                while self._work:
                    request, reply, work = self._work.pop(0)
                    try:
                        await work
                        if not reply.finished:
                            raise RuntimeError("no answer")
                    except Exception as error:
                        _failed(request, reply, error)
                    del request, reply, work  # an idle connection holds none
                self._idle = self._loop.create_future()
                await self._idle
        finally:
            self.abort()  # who cancels it beside us leaves nobody to answer


def _failed(request: Request, reply: Reply, error: Exception) -> None:
    if isinstance(error, ApiError):
        reply.refuse(error)
        return
    log.error("The request %s %s failed", request.method, request.path, exc_info=error)
    reply.refuse(ApiError(500, "internal_error", "The coordinator failed.", hint="Its log says why; try again."))


def _split(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target. Raises HttpParserInvalidURLError, UnicodeDecodeError."""
    if url.startswith(b"/") and url.replace(b"/", b"").replace(b"_", b"").isalnum():  # as in all calls of the API
        return url.decode("ascii"), b""
    parsed: Any = httptools.parse_url(url)  # its types do not say that a part may be None
    return (parsed.path or b"/").decode("ascii"), parsed.query or b""


def too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"The body is over the limit of {limit} bytes.", hint="Send less text.")
