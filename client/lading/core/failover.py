"""When a stream may leave its host: limits from each host's own pace, and a budget that all streams share.

A limit that is the same for all hosts turns overload into a storm: streams move because everything is slow, and moving
makes it slower. So the limit follows the host, doubles with each move of a stream, and on average a stream may move
once. Pure: the caller tells what it saw; `now` is its clock in seconds.
"""

from typing import Final

import msgspec

from lading.core.pace import Pace
from lading_protocol.ids import Address, Digest
from lading_protocol.messages import ChatRequest, Request, request_hash

MAX_HOSTS = 20_000
MAX_DEADLY = 4096
# A prompt of so many bytes may take twice as long to its first token as a short one.
PROMPT_WEIGHT = 8192
# Words of a host whose engine broke under the job, not under something else.
CRASHES = frozenset({"engine_crashed", "engine_died", "resource_exhausted"})


class Limits(msgspec.Struct, frozen=True):
    """Seconds a host may be silent before the first token and between tokens, and hosts tried for one job.

    `first` and `between` hold for a host that is not known, and are the most that any gets; one that is known gets
    `factor` times its own slowest wait in a hundred, at least `least_first` and `least`. A stream that would move and
    may not is held `held` seconds at most, one whose host is gone `broken`. A preempted job waits `parked` for a slot.
    """

    first: float = 30.0
    between: float = 8.0
    attempts: int = 8
    factor: float = 8.0
    least_first: float = 1.0
    least: float = 0.1
    held: float = 5.0
    broken: float = 1.0
    parked: float = 300.0


class Budget:
    """`share` of a move for each stream that begins; up to `most` are saved. Who moves regardless leaves a debt."""

    __slots__ = ("_most", "_share", "level")

    def __init__(self, share: float = 1.0, start: float = 32.0, most: float = 128.0) -> None:
        self._share = share
        self._most = most
        self.level = min(start, most)

    def begin(self) -> None:
        self.level = min(self._most, self.level + self._share)

    def take(self) -> bool:
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def force(self) -> None:
        self.level = max(-self._most, self.level - 1)


class _Host:
    __slots__ = ("first", "gaps")

    def __init__(self) -> None:
        self.first = Pace()
        self.gaps = Pace()


class Failover:
    """What one dispatcher knows about moving. `moves` counts streams that left a host after it had begun to work."""

    ENOUGH: Final = 24

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.budget = Budget()
        self.hedges = Budget(share=0.1, start=4.0, most=16.0)
        self.quarantine = Quarantine()
        self.streams = 0
        self.moves = 0
        self._hosts: dict[Address, _Host] = {}

    def begin(self) -> None:
        """A stream begins."""
        self.streams += 1
        self.budget.begin()
        self.hedges.begin()

    def gaps(self, host: Address) -> Pace:
        """Where the waits between this host's tokens are noted."""
        return self._host(host).gaps

    def note_first(self, host: Address, seconds: float, weight: float) -> None:
        """The first token came `seconds` after the request, which weighed `weight` (weight_of)."""
        self._host(host).first.note(seconds / weight)

    def first_limit(self, host: Address, weight: float, moved: int) -> float:
        """How long to wait for the first token of a stream that has moved `moved` times."""
        limits, pace = self.limits, self._host(host).first
        if pace.total < self.ENOUGH:
            return limits.first
        own = max(limits.least_first, limits.factor * pace.quantile(0.99)) * weight
        return min(limits.first, own * 2.0**moved)

    def gap_limit(self, host: Address, moved: int) -> float:
        limits, pace = self.limits, self._host(host).gaps
        if pace.total < self.ENOUGH:
            return limits.between
        return min(limits.between, max(limits.least, limits.factor * pace.quantile(0.99)) * 2.0**moved)

    def hedge_after(self, host: Address, weight: float) -> float | None:
        """When the first token is so late that a second host may be asked; None while little is known of this one."""
        pace = self._host(host).first
        return pace.quantile(0.95) * weight if pace.total >= self.ENOUGH else None

    def may_move(self) -> bool:
        """One more move, if the streams' common budget has it."""
        return self.budget.take()

    def _host(self, host: Address) -> _Host:
        found = self._hosts.get(host)
        if found is None:
            while len(self._hosts) >= MAX_HOSTS:
                del self._hosts[next(iter(self._hosts))]
            found = self._hosts[host] = _Host()
        return found


class _Deaths(msgspec.Struct):
    """`at` is the output index at which each host died; `crashed` those whose engine broke by its own word."""

    at: dict[Address, int] = {}
    crashed: set[Address] = set()
    until: float = 0.0
    since: float = 0.0


class Quarantine:
    """Requests under which hosts die. Two hosts, and no third one is given it for `seconds`.

    That an engine broke is the host's own word. A link that broke proves nothing alone, for links do; but a second host
    that is lost at the very same token has shown that it is the request. What is older than `memory` is forgotten.
    """

    def __init__(self, seconds: float = 300.0, memory: float = 120.0) -> None:
        self._seconds = seconds
        self._memory = memory
        self._deaths: dict[Digest, _Deaths] = {}

    def __len__(self) -> int:
        return len(self._deaths)

    def died(self, key: Digest, host: Address, index: int, code: str, now: float) -> None:
        """A host that had accepted the request is gone, with `index` output tokens there in all."""
        found = self._deaths.get(key)
        if found is None or (now - found.since > self._memory and now >= found.until):
            while len(self._deaths) >= MAX_DEADLY:
                del self._deaths[next(iter(self._deaths))]
            found = self._deaths[key] = _Deaths({}, set(), 0.0, now)
        stuck = any(other != host and index == at for other, at in found.at.items())
        found.at[host] = index
        if code in CRASHES:
            found.crashed.add(host)
        if stuck or len(found.crashed) > 1:
            found.until = now + self._seconds

    def barred(self, key: Digest, now: float) -> float:
        """For how many seconds the request is still kept from all hosts."""
        found = self._deaths.get(key)
        return max(0.0, found.until - now) if found is not None else 0.0


def deadly_key(request: Request) -> Digest:
    """The same for requests that differ in their seed only: what kills does so under any."""
    if isinstance(request, ChatRequest):
        request = msgspec.structs.replace(request, sampler=msgspec.structs.replace(request.sampler, seed=bytes(32)))
    return request_hash(request)


def weight_of(prompt_bytes: int) -> float:
    """How much longer than a short one a prompt may take to its first token."""
    return 1.0 + prompt_bytes / PROMPT_WEIGHT
