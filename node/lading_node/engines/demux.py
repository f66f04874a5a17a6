"""Takes apart what a container engine sends on an attached connection: two streams in pieces with 8-byte heads.

Pieces are passed on as they come, so nothing is held back and no length is believed. Pure.
"""

from lading_node.engines.abi import BadFrame

STDOUT = 1
STDERR = 2
_HEAD = 8
# The engine copies through far smaller buffers; a longer piece means that the connection is not what we think.
MOST_PIECE = 1 << 24


class Demux:
    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._stream = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The bytes with the stream that each belongs to. Raises BadFrame; the connection is then of no further use."""
        found = []
        at = 0
        while at < len(data):
            if not self._left:
                need = _HEAD - len(self._head)
                self._head += data[at : at + need]
                at += need
                if len(self._head) == _HEAD:
                    self._begin(self._head)
                    self._head = b""
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            found.append((self._stream, piece))
        return found

    def _begin(self, head: bytes) -> None:
        self._stream, self._left = head[0], int.from_bytes(head[4:], "big")
        if self._stream not in (STDOUT, STDERR) or any(head[1:4]) or self._left > MOST_PIECE:
            raise BadFrame("The container engine sent what is no piece of an output; is a terminal attached?")
