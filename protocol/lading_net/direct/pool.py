"""What all links of one transport share: the memory for bytes that arrived, and the buffer that sockets read into.

Decides which link must give way when the memory is used up. Knows nothing else of links.
"""

from __future__ import annotations

from typing import Protocol

_BUFFER = 256 * 1024
_LARGE_BLOCK = 8 * 1024 * 1024


class Holder(Protocol):
    """A link, as the pool sees it."""

    @property
    def unread(self) -> int: ...

    def shed(self) -> None:
        """Lets go of the stream whose reader is furthest behind; `unread` and the pool's sum shrink."""
        ...


class Pool:
    """`unread` bytes have arrived on all links together; beyond `most`, the fullest link loses a stream."""

    __slots__ = ("buffer", "links", "most", "unread")

    def __init__(self, most: int) -> None:
        self.most, self.unread = most, 0
        self.links: set[Holder] = set()
        self.buffer = memoryview(bytearray(_BUFFER))
        # glibc returns memory to the system whenever 128 KiB are free at the end of its heap, and then each message of
        # 64 KiB pays page faults to get it back. Freeing one large block once raises that mark: see mallopt(3).
        bytearray(_LARGE_BLOCK)

    def relieve(self) -> None:
        while self.unread > self.most:
            max(self.links, key=lambda link: link.unread).shed()
