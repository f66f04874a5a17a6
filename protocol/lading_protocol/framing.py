"""Frames on a stream: a 4-byte big-endian length, then that many bytes. No meaning, no IO."""

from lading_protocol.errors import BadMessage
from lading_protocol.messages import MAX_FRAME


def frame(payload: bytes) -> bytes:
    if len(payload) > MAX_FRAME:
        raise BadMessage(f"A frame of {len(payload)} bytes is over the limit of {MAX_FRAME}.")
    return len(payload).to_bytes(4, "big") + payload


class Frames:
    """Cuts a byte stream into frames: feed what arrives, get the complete payloads back."""

    __slots__ = ("_buffer", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 4  # bytes from which on it is worth looking into the buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadMessage as soon as a length over the limit is seen; the stream is then of no further use."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        payloads: list[bytes] = []
        at, end, self._wanted = 0, len(data), 4
        while at + 4 <= end:
            size = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
            if size > MAX_FRAME:
                raise BadMessage(f"A frame of {size} bytes is over the limit of {MAX_FRAME}.")
            after = at + 4 + size
            if after > end:
                self._wanted = 4 + size
                break
            payloads.append(data[at + 4 : after])
            at = after
        if at < end:
            self._buffer += data[at:]
        return payloads

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame; not 0 at the end of a stream means that it was cut."""
        return len(self._buffer)
