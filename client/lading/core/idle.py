"""Hosts that would not have jobs, or gave them up, several times in a row: until when they come last. Pure.

Once that happens. One job that is too much for its hosts must put none of them out of reach, so only from the
`MOST_GIVEN_UP`th time on is a host left alone.
"""

from heapq import heappop, heappush

from lading_protocol.ids import Address

FIRST_SECONDS = 10.0
MOST_GIVEN_UP = 4


class Idle:
    """`now` is in seconds. A host that works is forgotten."""

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}
        self._ends: list[tuple[float, Address]] = []

    def __contains__(self, host: Address) -> bool:
        return host in self._until

    def note(self, host: Address, times: int, now: float) -> bool:
        """It did so `times` in a row; whether it comes last now."""
        if times > 1:
            self._until[host] = until = now + FIRST_SECONDS * 2 ** (min(times, MOST_GIVEN_UP) - 2)
            heappush(self._ends, (until, host))
        return host in self._until

    def forget(self, host: Address) -> bool:
        """Whether it was known."""
        return self._until.pop(host, None) is not None

    def over(self, now: float) -> list[Address]:
        """Those whose time has come; they are forgotten."""
        found = []
        while self._ends and self._ends[0][0] <= now:
            until, host = heappop(self._ends)
            if self._until.get(host) == until:
                del self._until[host]
                found.append(host)
        return found
