"""Who may come in, whom we may call, and who is left alone for what it did: all limits of one transport, as values.

Counts callers by place before they have proved anything, and peers by identity afterwards. Opens and closes nothing:
it says what is to be closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from lading_net.core.crowds import Crowd
from lading_net.core.places import Place
from lading_net.core.quotas import Quotas, Rate
from lading_net.core.scores import Scores
from lading_protocol.ids import Address

REFUSALS = {
    "machine": "calls from machines that call too often",
    "area": "calls from areas that call too often",
    "handshakes": "callers who took their time while others waited",
    "links": "links that nobody used when others came",
    "streams": "streams of peers that open too many",
    "pings": "pings of peers that ask too often",
    "unread": "streams whose data piled up unread",
    "unsent": "streams whose peer took nothing",
}
"""What limits keep out, by the kind that `refused` counts it as."""

C = TypeVar("C")
L = TypeVar("L")


class Limits(msgspec.Struct, frozen=True):
    """Defaults let a hundred hosts behind one address in at once, and keep a flood from there below a core's tenth."""

    handshakes: int = 256  # under way at once, of those who call
    links: int = 4096
    links_of_peer: int = 4  # of one identity: old ones that are running dry, and the one in use
    calls_of_machine: Rate = Rate(burst=512, second=32, debt=256)
    calls_of_area: Rate = Rate(burst=2048, second=128, debt=1024)
    call_failed: float = 4.0  # what a handshake that came to nothing costs its machine, in calls
    call_failed_area: float = 8.0  # and its area: it takes several machines there to close it to the others
    barred_costs: float = 256.0  # calls of its machine, for one whose conduct on a link bars it: names are free
    dials: Rate = Rate(burst=512, second=64)  # of ours, to anywhere
    dials_of_machine: Rate = Rate(burst=64, second=8)
    violation: float = 50.0  # points for breaking the protocol on a link
    excess: float = 1.0  # and for a stream too many
    barred: float = 90.0  # points from which a peer is left alone
    half_life: float = 600.0  # seconds


class Guard(Generic[C, L]):
    """For callers of type C who become links of type L. `refused` counts, by reason, whom it kept out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.refused = Counter(dict.fromkeys(REFUSALS, 0))
        self._callers: Crowd[C] = Crowd(limits.handshakes)
        self._links: Crowd[L] = Crowd(limits.links)
        self._machines: Quotas[bytes] = Quotas(limits.calls_of_machine)
        self._areas: Quotas[bytes] = Quotas(limits.calls_of_area)
        self._dials: Quotas[bytes] = Quotas(limits.dials, 1)
        self._dialled: Quotas[bytes] = Quotas(limits.dials_of_machine)
        self._scores: Scores[Address] = Scores(limits.barred, limits.half_life)

    # -- before a caller has proved anything

    def hears(self, where: Place, now: float) -> bool:
        """Whether anybody there may call now; asked before anything is made for the one who does."""
        if self._areas.wait(where.area, now) > 0:  # asked first: a flood from there makes no machine known
            self.refused["area"] += 1
            return False
        if not self._machines.take(where.machine, now):
            self.refused["machine"] += 1
            return False
        return self._areas.take(where.area, now)

    def calls(self, caller: C, where: Place) -> list[C]:
        """Whose connection is to be closed for one that was heard, or itself."""
        leaving = self._callers.enter(caller, where)
        self.refused["handshakes"] += len(leaving)
        return leaving

    def called(self, caller: C) -> None:
        """Its handshake is over, whatever came of it."""
        self._callers.leave(caller)

    def failed(self, where: Place, now: float) -> None:
        """Someone there spoke nonsense, or nothing."""
        self._machines.charge(where.machine, now, self.limits.call_failed)
        self._areas.charge(where.area, now, self.limits.call_failed_area)

    # -- once it has

    def joins(self, link: L, where: Place, idle: Callable[[L], bool]) -> list[L]:
        """Which links are to be closed for a new one, or itself: only `idle` ones give way."""
        leaving = self._links.enter(link, where, idle)
        self.refused["links"] += len(leaving)
        return leaving

    def parts(self, link: L) -> None:
        self._links.leave(link)

    def blame(self, peer: Address, points: float, now: float, machine: bytes | None = None) -> None:
        """For what it did on one link. Its machine, which others may share, pays with calls and is never barred."""
        self._scores.blame(peer, points, now)
        if machine is not None:
            self._machines.charge(machine, now, min(points / self.limits.barred, 1) * self.limits.barred_costs)

    def barred_for(self, peer: Address, now: float) -> float:
        """Seconds for which this peer is left alone; 0: it is not."""
        return self._scores.barred_for(peer, now)

    # -- our own calls

    def dial_wait(self, where: Place, now: float) -> float:
        """Seconds until we may call there: takes the turn when it is 0."""
        wait = max(self._dials.wait(b"", now), self._dialled.wait(where.machine, now))
        if wait <= 0:
            self._dials.take(b"", now)
            self._dialled.take(where.machine, now)
        return wait
