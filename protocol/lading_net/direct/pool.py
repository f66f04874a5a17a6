"""What all links of one transport share: memory for bytes that arrived or wait to leave, room for streams, a buffer.

Decides which link must give way when something is used up. Knows nothing else of links.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Protocol

from lading_net.core.quotas import Quotas, Rate

_AT_ONCE = 8  # seconds' worth
_BUFFER = 256 * 1024
_LARGE_BLOCK = 8 * 1024 * 1024


def openings_at(second: float) -> Rate:
    """So many streams a second from one machine, and the same share of them at once as by default."""
    return Rate(_AT_ONCE * second, second)


OPENINGS = openings_at(1024)


@cache
def _keep_freed_memory() -> None:
    """glibc returns memory to the system whenever 128 KiB are free at the end of its heap, and then each message of
    64 KiB pays page faults to get it back. Freeing one large block raises that mark: see mallopt(3). Once, for the next
    would come from the heap and stay there."""
    bytearray(_LARGE_BLOCK)


class Holder(Protocol):
    """A link, as the pool sees it."""

    @property
    def unread(self) -> int: ...

    @property
    def queued(self) -> int: ...

    def shed(self) -> None:
        """Lets go of the stream whose reader is furthest behind; `unread` and the pool's sum shrink."""
        ...

    def shed_queued(self) -> None:
        """Lets go of the stream with the most to send; `queued` and the pool's sum shrink."""
        ...


class Pool:
    """`unread` bytes have arrived on all links together, `queued` wait to leave; beyond what is allowed, the fullest
    link loses a stream. `streams` are those that peers have opened, at `openings` from one machine; `refused`
    counts, by reason, what was not admitted or lost."""

    __slots__ = (
        "_most_streams",
        "_openings",
        "buffer",
        "links",
        "most",
        "most_queued",
        "queued",
        "refused",
        "streams",
        "unread",
    )

    def __init__(
        self,
        most: int,
        most_queued: int = 1 << 62,
        most_streams: int = 1 << 30,
        openings: Rate = OPENINGS,
        refused: Counter[str] | None = None,
    ) -> None:
        self.refused = Counter[str]() if refused is None else refused
        self._openings: Quotas[bytes] = Quotas(openings)
        self.most, self.most_queued, self._most_streams = most, most_queued, most_streams
        self.unread = self.queued = self.streams = 0
        self.links: set[Holder] = set()
        self.buffer = memoryview(bytearray(_BUFFER))
        _keep_freed_memory()

    def relieve(self) -> None:
        while self.unread > self.most:
            self.refused["unread"] += 1
            max(self.links, key=lambda link: link.unread).shed()
        while self.queued > self.most_queued:
            self.refused["unsent"] += 1
            max(self.links, key=lambda link: link.queued).shed_queued()

    def admits(self, streams: int, most: int, machine: bytes, now: float) -> bool:
        """Whether a link with so many streams may have another: at most as many as are left free for all others, and
        not faster than any one machine may open them, whatever names it goes by."""
        if streams < min(most, self._most_streams - self.streams) and self._openings.take(machine, now):
            return True
        self.refused["streams"] += 1
        return False
