"""How many offers are kept of hosts that nobody vouches for, so that free names take no place from those with a stake.

Pure: the caller keeps the offers themselves, and says from time to time how many are left.
"""

from collections.abc import Callable

from lading_protocol.ids import Address

COUNTED_AT_ONCE = 1024


class Places:
    """`most` in all, of them `of_strangers` for hosts without a stake."""

    def __init__(self, most: int, of_strangers: int) -> None:
        self._most = most
        self._of_strangers = of_strangers
        self._taken: dict[Address, tuple[int, bool]] = {}
        self._strange = 0
        self._uncounted: list[Address] = []
        self.total = 0

    def free(self, *, stranger: bool) -> bool:
        return self.total < self._most and not (stranger and self._strange >= self._of_strangers)

    def take(self, host: Address, count: int, *, stranger: bool) -> None:
        """So many offers of this host are kept now."""
        before, was_strange = self._taken.pop(host, (0, False))
        self.total += count - before
        self._strange += count * stranger - before * was_strange
        if count:
            self._taken[host] = count, stranger

    def recount(self, left: Callable[[Address], int], is_stranger: Callable[[Address], bool]) -> None:
        """A part of all hosts at a time: what expired is free again, and who has a stake by now is no stranger."""
        if not self._uncounted:
            self._uncounted = list(self._taken)
        some = self._uncounted[-COUNTED_AT_ONCE:]
        del self._uncounted[-COUNTED_AT_ONCE:]
        for host in some:
            if host in self._taken:
                self.take(host, left(host), stranger=is_stranger(host))
