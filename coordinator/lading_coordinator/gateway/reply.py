"""One HTTP answer: a whole body at once, or a stream of chunks. Bytes only; what they say is the caller's business.

What is added waits for what follows, so that it leaves in one system call, and as one chunk; who adds says when nothing
follows for now.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from lading_coordinator.core.answer import error_body
from lading_coordinator.errors import ApiError

if TYPE_CHECKING:
    from lading_coordinator.gateway.connection import Connection

JSON = b"application/json"
MOST_WAITING = 32 * 1024
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: ".encode() for status in HTTPStatus}


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they stand in an answer: a line each."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


class Reply:
    """Begun with `send` or `start`, once; `more` are further header lines (`lines`). `keep_alive` says whether the
    connection lives on. `gone` is called when the client goes before the answer is whole, where no task answers it."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_opening",
        "_pieces",
        "_size",
        "begun",
        "finished",
        "gone",
        "keep_alive",
    )

    def __init__(self, connection: "Connection", version: str, *, keep_alive: bool, head: bool = False) -> None:
        self._connection = connection
        self._chunked = version != "1.0"
        self._head = head
        self._opening = b""
        self._pieces: list[bytes] = []
        self._size = 0
        self.keep_alive = keep_alive
        self.begun = False
        self.finished = False
        self.gone: Callable[[], None] | None = None

    def send(self, status: int, body: bytes, kind: bytes = JSON, more: bytes = b"") -> None:
        """The whole answer."""
        self.begun = self.finished = True
        length, shown = len(body), b"" if self._head else body
        bye = b"" if self.keep_alive else b"connection: close\r\n"
        told = b"%b%b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (_STATUS[status], kind, more, bye, length, shown)
        self._connection.write(told)
        self._connection.answered(self)

    def start(self, status: int, kind: bytes, more: bytes = b"") -> None:
        """The head of a stream. It leaves with what follows it. HTTP/1.0 streams end with the connection."""
        self.begun = True
        if not self._chunked:
            self.keep_alive = False
        bye = b"" if self.keep_alive else b"connection: close\r\n"
        framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._opening = b"%b%b\r\n%b%b%b" % (_STATUS[status], kind, more, bye, framing)

    def add(self, data: bytes) -> None:
        """One piece of a stream. It leaves with the next `write`, `flush` or `end`, or when much waits."""
        self._keep(data)
        if self._size > MOST_WAITING:
            self.flush()

    def write(self, data: bytes) -> None:
        """One piece of a stream, with what waits."""
        self._keep(data)
        self.flush()

    def flush(self) -> bool:
        """What waits leaves now. Whether the client keeps up with the answer."""
        told = self._waiting()
        if told:
            self._connection.write(b"".join(told))
        return not self._connection.full

    def end(self, data: bytes = b"") -> None:
        """With the last piece."""
        self._keep(data)
        self.finished = True
        told = self._waiting()
        if self._chunked and not self._head:
            told.append(b"0\r\n\r\n")
        self._connection.write(b"".join(told))
        self._connection.answered(self)

    async def drain(self) -> None:
        """Waits while the client is slower than the answer; what was added leaves first."""
        self.flush()
        await self._connection.drain()

    def refuse(self, error: ApiError) -> None:
        """An error in OpenAI's shape; an answer that has begun already is cut off instead."""
        if self.finished:
            return
        if self.begun:
            self.flush()
            self._connection.abort()
            return
        retry = b"" if error.retry_after is None else b"retry-after: %d\r\n" % error.retry_after
        if error.status in (400, 408, 413, 431) and error.code in ("malformed_http", "request_timeout"):
            self.keep_alive = False
        self.send(error.status, error_body(error), more=retry + lines(error.headers))

    def _keep(self, data: bytes) -> None:
        if data and not self._head:
            self._pieces.append(data)
            self._size += len(data)

    def _waiting(self) -> list[bytes]:
        """What was added and has not left."""
        told = [self._opening] if self._opening else []
        if self._pieces:
            if self._chunked:
                told.append(b"%x\r\n" % self._size)
            told += self._pieces
            if self._chunked:
                told.append(b"\r\n")
            self._pieces = []
        self._opening, self._size = b"", 0
        return told
