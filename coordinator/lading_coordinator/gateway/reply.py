"""One HTTP answer: a whole body at once, or a stream of chunks. Bytes only; what they say is the caller's business.

Pieces written in the same turn of the event loop leave in one system call.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from lading_coordinator.core.answer import error_body
from lading_coordinator.errors import ApiError

JSON = b"application/json"
MOST_WAITING = 32 * 1024
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
Headers = Iterable[tuple[bytes, bytes]]


class Pipe(Protocol):
    """The connection under a reply."""

    @property
    def full(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def abort(self) -> None: ...


class Reply:
    """Begun with `send` or `start`, once. `keep_alive` says whether the connection lives on."""

    __slots__ = ("_chunked", "_flushing", "_head", "_pieces", "_pipe", "_size", "begun", "finished", "keep_alive")

    def __init__(self, pipe: Pipe, version: str, *, keep_alive: bool, head: bool = False) -> None:
        self._pipe = pipe
        self._chunked = version != "1.0"
        self._head = head
        self._pieces: list[bytes] = []
        self._size = 0
        self._flushing = False
        self.keep_alive = keep_alive
        self.begun = False
        self.finished = False

    def send(self, status: int, body: bytes, kind: bytes = JSON, headers: Headers = ()) -> None:
        """The whole answer."""
        self.begun = self.finished = True
        parts = [self._start_line(status, kind, headers), b"content-length: %d\r\n\r\n" % len(body)]
        if not self._head:
            parts.append(body)
        self._pipe.write(b"".join(parts))

    def start(self, status: int, kind: bytes, headers: Headers = ()) -> None:
        """The head of a stream; `write` and `end` follow. HTTP/1.0 streams end with the connection."""
        self.begun = True
        if not self._chunked:
            self.keep_alive = False
        framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._pieces.append(self._start_line(status, kind, headers) + framing)
        self._later()

    def write(self, data: bytes) -> None:
        """One piece of a stream."""
        if data and not self._head:
            self._pieces.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            self._size += len(data)
            if self._size > MOST_WAITING:
                self.flush()
            else:
                self._later()

    def end(self) -> None:
        self.finished = True
        if self._chunked and not self._head:
            self._pieces.append(b"0\r\n\r\n")
        self.flush()

    @property
    def full(self) -> bool:
        """Whether the client is slower than the answer."""
        return self._pipe.full

    async def drain(self) -> None:
        """Waits while the client is slower than the answer."""
        await self._pipe.drain()

    def refuse(self, error: ApiError) -> None:
        """An error in OpenAI's shape; an answer that has begun already is cut off instead."""
        if self.finished:
            return
        if self.begun:
            self._pipe.abort()
            return
        retry = () if error.retry_after is None else ((b"retry-after", b"%d" % error.retry_after),)
        if error.status in (400, 408, 413, 431) and error.code in ("malformed_http", "request_timeout"):
            self.keep_alive = False
        self.send(error.status, error_body(error), headers=(*retry, *error.headers))

    def _start_line(self, status: int, kind: bytes, headers: Headers) -> bytes:
        lines = [_STATUS[status], b"content-type: ", kind, b"\r\n"]
        for name, value in headers:
            lines += [name, b": ", value, b"\r\n"]
        if not self.keep_alive or (self.begun and not self.finished and not self._chunked):
            lines.append(b"connection: close\r\n")
        return b"".join(lines)

    def _later(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """What was written leaves now; without it, at the end of this turn of the event loop."""
        self._flushing = False
        self._size = 0
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._pipe.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
