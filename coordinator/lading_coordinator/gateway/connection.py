"""One HTTP/1.1 connection: parsing within limits, one request at a time, and knowing at once when the client is gone.

It calls an application for each request and cancels that call when the connection is lost. It knows no route.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, cast

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


class Request(msgspec.Struct):
    """A complete request. Header names are lower case."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    version: str
    keep_alive: bool
    client: str
    secure: bool = False

    def bearer(self) -> str:
        """The token of the Authorization header, or nothing."""
        kind, _, token = self.headers.get(b"authorization", b"").partition(b" ")
        return token.strip().decode("latin-1") if kind.lower() == b"bearer" else ""


App = Callable[[Request, Reply], Awaitable[None]]


class Phase(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"


class Connection(asyncio.Protocol):
    """`peers` is the server's set of open connections; it adds and removes itself."""

    def __init__(self, app: App, limits: Limits, peers: set["Connection"]) -> None:
        self._app = app
        self._limits = limits
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._client = ""
        self._secure = False
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._refusal: ApiError | None = None
        self._room: asyncio.Event = asyncio.Event()
        self._room.set()
        self._paused_at = 0.0
        self._reading = True
        self.closing = False
        self.phase = Phase.IDLE
        self.since = self._loop.time()
        self._begin()

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
        self._waiting.clear()
        self._room.set()
        if self._task is not None:
            self._task.cancel()

    def eof_received(self) -> bool:
        """A client that will send no more is taken for gone: waiting to see whether it still reads would let the host
        work on for nobody."""
        return False

    def pause_writing(self) -> None:
        self._paused_at = self._loop.time()
        self._room.clear()

    def resume_writing(self) -> None:
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
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head + BUFFER:
                self._refuse_head()
        self._settle_refusal()

    # From the parser

    def on_message_begin(self) -> None:
        self._begin()
        self._turn(Phase.HEAD)

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
        self._turn(Phase.BODY)
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._limits.body:
            self._refuse(too_large(self._limits.body))
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and self._task is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._refusal is not None:
            return
        if len(self._body) + len(body) > self._limits.body:
            self._refuse(too_large(self._limits.body))
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._refusal is not None:
            return
        try:
            path, query = _split(bytes(self._url))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            self._refuse(ApiError(400, "malformed_http", "The request's address does not read."))
            return
        whole = bytes(self._body)
        self._body.clear()  # an idle connection holds none
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=path,
            query=query,
            headers=self._headers,
            body=whole,
            version=self._parser.get_http_version(),
            keep_alive=self._parser.should_keep_alive(),
            client=self._client,
            secure=self._secure,
        )
        self._waiting.append(request)
        self._turn(Phase.IDLE)
        self._next()

    # For the reply

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; nothing happens when it is gone."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def full(self) -> bool:
        return not self._room.is_set()

    async def drain(self) -> None:
        """Waits while the client's buffer is full."""
        if not self._room.is_set():
            await self._room.wait()

    # For the server

    def late(self, now: float) -> bool:
        """Whether the client has used up its time."""
        limits, since = self._limits, now - self.since
        if not self._room.is_set() and now - self._paused_at > limits.stall_seconds:
            return True
        if self._task is not None:
            return False
        match self.phase:
            case Phase.IDLE:
                return since > limits.idle_seconds
            case Phase.HEAD:
                return since > limits.head_seconds
            case Phase.BODY:
                return since > limits.body_seconds

    def expire(self) -> None:
        """Closes a late connection: with an answer where the client still waits for one."""
        if self.phase in (Phase.HEAD, Phase.BODY) and self._room.is_set() and self._task is None:
            self._refuse(ApiError(408, "request_timeout", "The request did not arrive in time.", hint="Send it again."))
            self._say_refusal()
        elif self._transport is not None:
            self._transport.abort()

    def stop(self) -> asyncio.Task[None] | None:
        """No further request on this connection; returns the running answer, if there is one."""
        self.closing = True
        if self._task is None and self._transport is not None:
            self._transport.close()
        return self._task

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Inside

    def _begin(self) -> None:
        self._url = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._head_bytes = 0
        self._head_size = 0

    def _turn(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self._loop.time()

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.head:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._refuse(ApiError(431, "headers_too_large", f"The headers are over {self._limits.head} bytes."))

    def _refuse(self, error: ApiError) -> None:
        if self._refusal is None:
            self._refusal = error
            self._body.clear()

    def _settle_refusal(self) -> None:
        if self._refusal is not None and self._task is None:
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

    def _next(self) -> None:
        """Starts the oldest waiting request; holds a client back that sends many ahead of the answers."""
        if self._transport is None:
            return
        if self._task is None and self._waiting:
            self._task = self._loop.create_task(self._serve(self._waiting.popleft()))
        crowded = len(self._waiting) >= QUEUE
        if crowded == self._reading:
            (self._transport.pause_reading if crowded else self._transport.resume_reading)()
            self._reading = not crowded

    async def _serve(self, request: Request) -> None:
        stays = request.keep_alive and not self.closing
        reply = Reply(self, request.version, keep_alive=stays, head=request.method == "HEAD")
        try:
            await self._app(request, reply)
            if not reply.finished:
                raise RuntimeError(f"no answer to {request.method} {request.path}")
        except ApiError as error:
            reply.refuse(error)
        except Exception:
            log.exception("The request %s %s failed", request.method, request.path)
            reply.refuse(
                ApiError(500, "internal_error", "The coordinator failed.", hint="Its log says why; try again.")
            )
        finally:
            self._task = None
        if self._transport is None:
            return
        if self._refusal is not None:
            self._say_refusal()
        elif not reply.keep_alive or self.closing:
            self._transport.close()
        else:
            self.since = self._loop.time()
            self._next()


def _split(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target. Raises HttpParserInvalidURLError, UnicodeDecodeError."""
    if url.startswith(b"/") and url.replace(b"/", b"").replace(b"_", b"").isalnum():  # as in all calls of the API
        return url.decode("ascii"), b""
    parsed: Any = httptools.parse_url(url)  # its types do not say that a part may be None
    return (parsed.path or b"/").decode("ascii"), parsed.query or b""


def too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"The body is over the limit of {limit} bytes.", hint="Send less text.")
