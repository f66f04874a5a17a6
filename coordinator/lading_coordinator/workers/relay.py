"""Carries a whole request to another process of this coordinator, and its answer back as it comes.

It speaks HTTP/1.1 over a unix socket, and knows no route. A client that goes away closes the connection, which cancels
the request there too.
"""

import asyncio

import httptools

from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.reply import Reply, lines

CHUNK = 64 * 1024
# How long a process that was just started again is waited for.
PATIENCE = 5.0
RETRY_SECONDS = 0.05
CLIENT = b"x-lading-client"
_OWN = frozenset({b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"expect", CLIENT})


async def relay(path: str, request: Request, reply: Reply) -> None:
    """Raises ApiError when the other process is gone."""
    reader, writer = await _connect(path)
    try:
        writer.write(_encode(request))
        answer = _Answer(reply)
        while not answer.done:
            data = await reader.read(CHUNK)
            if not data:
                raise _lost()
            answer.feed(data)
            await reply.drain()
    except OSError as error:
        raise _lost() from error
    finally:
        writer.transport.abort()


def from_relay(request: Request) -> None:
    """Puts back who the client is; only for requests that came over our own unix socket."""
    request.client = request.headers.pop(CLIENT, b"").decode("latin-1")


async def _connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except OSError as error:
            if loop.time() >= end:
                raise ApiError(
                    503,
                    "restarting",
                    "A part of the coordinator is being started again.",
                    hint="Try again after 1 s.",
                    retry_after=1,
                ) from error
        await asyncio.sleep(RETRY_SECONDS)


def _encode(request: Request) -> bytes:
    target = request.path.encode() + (b"?" + request.query if request.query else b"")
    lines = [request.method.encode() + b" " + target + b" HTTP/1.1", CLIENT + b": " + request.client.encode("latin-1")]
    lines += [name + b": " + value for name, value in request.headers.items() if name not in _OWN]
    lines.append(b"content-length: %d" % len(request.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


def _lost() -> ApiError:
    return ApiError(
        502,
        "process_lost",
        "The process that served this request ended.",
        hint="Ask again; only the delivered tokens were charged.",
    )


class _Answer:
    """Reads an answer and writes it to a reply."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._kind = b"application/json"
        self._whole: bytearray | None = None
        self.done = False

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise _lost() from error

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._kind = value
        elif name == b"content-length":
            self._whole = bytearray()
        elif name not in _OWN:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._whole is None:
            self._reply.start(self._parser.get_status_code(), self._kind, lines(self._headers))

    def on_body(self, body: bytes) -> None:
        if self._whole is None:
            self._reply.add(body)
        else:
            self._whole += body

    def on_message_complete(self) -> None:
        self.done = True
        if self._whole is None:
            self._reply.end()
        else:
            self._reply.send(self._parser.get_status_code(), bytes(self._whole), self._kind, lines(self._headers))
