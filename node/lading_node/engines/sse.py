"""Server-sent events (WHATWG HTML, section 9.2), as far as a stream of JSON needs them. Pure; every size is bounded."""

import re

MAX_EVENT = 256 << 10
_LINE = re.compile(rb"\r\n|\n|\r")


class BadStream(Exception):
    """A server's answer cannot be used; the text is a sentence about it."""


class Events:
    """Bytes in, as they come; the `data` of whole events out."""

    def __init__(self, most: int) -> None:
        """`most` is how many bytes the whole stream may have."""
        self._left = most
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadStream."""
        self._left -= len(data)
        if self._left < 0:
            raise BadStream("It sends far more than it was asked for.")
        # A carriage return at the very end may be half of a line's end.
        data = self._rest + data
        hold = data.endswith(b"\r")
        *lines, self._rest = _LINE.split(data[:-1] if hold else data)
        self._rest += b"\r" if hold else b""
        if len(self._rest) > MAX_EVENT:
            raise BadStream(f"It sends a line of more than {MAX_EVENT} bytes.")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event, self._data, self._size = b"\n".join(self._data), [], 0
            return event or None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._size += len(value)
            if self._size > MAX_EVENT:
                raise BadStream(f"It sends an event of more than {MAX_EVENT} bytes.")
            self._data.append(value.removeprefix(b" "))
        return None
