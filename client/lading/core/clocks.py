"""Whether this machine's clock is off, by what others say over authenticated links.

Whoever is off by more than job.CLOCK_SKEW takes honest work for misdated. What others say is a reason to look, never to
believe: nothing that is signed, paid or refused follows it. Pure: the caller gives both of its clocks.
"""

from collections.abc import Callable
from typing import NamedTuple

from lading_protocol.ids import Address
from lading_protocol.job import CLOCK_SKEW

# Told from half of what makes papers misdated on; a word older than this is forgotten.
TELL = CLOCK_SKEW / 2
MEMORY = 1800.0
# Those who agree are within so many seconds of the middle, and two of three.
NEAR = 30.0
MOST = 4096


class Off(NamedTuple):
    """By the clocks of `agree` of `asked` peers it is `ahead` seconds later than by ours (less than 0: earlier)."""

    ahead: int
    agree: int
    asked: int

    def words(self, peers: str) -> str:
        """`peers` are who said so, such as "linked hosts"."""
        way = "later" if self.ahead > 0 else "earlier"
        return (
            f"By the clocks of {self.agree} of {self.asked} {peers} it is {abs(self.ahead)} s {way} than by this "
            f"machine's. From {CLOCK_SKEW:.0f} s on each takes the other's papers for misdated, and honest work is "
            f"refused. Set this clock (NTP), if it is this one that is wrong."
        )


class Clocks:
    """`counts` says whose word counts, and `least` how many such must have said something."""

    def __init__(self, counts: Callable[[Address], bool], least: int) -> None:
        self._counts = counts
        self._least = least
        # Kept against a clock that nobody sets, so that ours may be set meanwhile.
        self._said: dict[Address, tuple[float, float]] = {}

    def note(self, peer: Address, at: float, steady: float) -> None:
        """The peer says that it is `at` (Unix seconds) when our clock that nobody sets shows `steady`."""
        self._said.pop(peer, None)
        if len(self._said) >= MOST:
            self._said = {one: said for one, said in self._said.items() if self._counts(one)}
        if len(self._said) >= MOST:
            del self._said[next(iter(self._said))]
        self._said[peer] = at - steady, steady

    def off(self, now: float, steady: float) -> Off | None:
        """What most others' clocks agree on, where it is not what ours shows: `now`."""
        heard = [
            ahead + steady - now
            for peer, (ahead, at) in self._said.items()
            if steady - at <= MEMORY and self._counts(peer)
        ]
        if len(heard) < max(1, self._least):
            return None
        middle = sorted(heard)[len(heard) // 2]
        agree = sum(abs(one - middle) <= NEAR for one in heard)
        if abs(middle) < TELL or 3 * agree < 2 * len(heard):
            return None
        return Off(round(middle), agree, len(heard))
