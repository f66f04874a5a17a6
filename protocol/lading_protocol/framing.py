"""Frames on a stream: a 4-byte big-endian length, then that many bytes. No meaning, no IO."""

from lading_protocol.errors import BadMessage
from lading_protocol.messages import MAX_FRAME


def frame(payload: bytes) -> bytes:
    if len(payload) > MAX_FRAME:
        raise BadMessage(f"A frame of {len(payload)} bytes is over the limit of {MAX_FRAME}.")
    return len(payload).to_bytes(4, "big") + payload


class Frames:
    """Cuts a byte stream into frames: feed what arrives, get the complete payloads back."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadMessage as soon as a length over the limit is seen; the stream is then of no further use."""
        buffer = self._buffer
        buffer += data
        payloads = []
        at = 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if size > MAX_FRAME:
                raise BadMessage(f"A frame of {size} bytes is over the limit of {MAX_FRAME}.")
            if len(buffer) - at - 4 < size:
                break
            payloads.append(bytes(buffer[at + 4 : at + 4 + size]))
            at += 4 + size
        del buffer[:at]
        return payloads

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame; not 0 at the end of a stream means that it was cut."""
        return len(self._buffer)
