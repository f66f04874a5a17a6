"""Offers in the order of their price, so that the best one is found without a look at the rest. Exact: as `rank` says.

A stall holds the offers of one agent, in buckets by what is filtered. A bucket keeps three orders, by the price of the
prompt, of the answer, and of both: a request's cost is a sum of two of these with factors that are never negative, so
that where the two orders have come to bounds from below whatever comes later (R. Fagin's threshold algorithm).

An entry may be filed in a better grade than its host has by now: who looks at it finds out, and files it anew. It is
never filed in a worse one; whoever changes a host sees to that.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import chain
from typing import Final

import msgspec

from lading.core.matching import FAR, OUT, TRUST, Aim, Filters, distance, within
from lading_protocol.audit import assurance
from lading_protocol.ids import Address
from lading_protocol.offers import KnownOffer

RUN: Final = 512
# Offers of an agent in more regions than this are filed under none: each region costs every request a look.
MOST_REGIONS: Final = 64
MOST_PLANS: Final = 64
# An entry that is filed nowhere because its own time is over, whatever its host does.
DEAD: Final = OUT + 1
FOREVER: Final = float("inf")


class HostState(msgspec.Struct, eq=False):
    """What is known of a host. Times are the caller's clock, in seconds.

    `drift` counts our jobs that began, less those that ended, since the last report; `slots` are what its offers name.
    `until` is when it counts as silent, `grade` how it stands, `filed` the worst grade that an entry of it is filed in.
    `pace`, `service` and `base` are what we saw: seconds for a token of the prompt, for a job, and before any work.
    `spells` are stretches of time in which it could not be chosen, and why; those that last still are not among them.
    """

    address: Address
    free: int = 1
    waiting: int = 0
    beat_at: float | None = None
    busy: int = 0
    failures: int = 0
    shunned_until: float = 0.0
    barred: str = ""
    doubted: bool = False
    drift: int = 0
    slots: int = 1
    until: float = FOREVER
    grade: int = OUT
    filed: int = 0
    queued: bool = False
    pace: float = 0.0
    service: float = 0.0
    base: float = 0.0
    entries: "list[Entry]" = []
    spells: "list[tuple[str, float, float]]" = []
    full_since: float = 0.0
    left_at: float | None = None

    @property
    def room(self) -> int:
        """Free slots after what we sent since the host said so; without reports, after all our own jobs there."""
        return (self.slots if self.beat_at is None else self.free) - self.drift


class Entry:
    """An offer on file. `until` is when it expires, or when too little is left of its terms."""

    __slots__ = ("filed", "home", "host", "inp", "known", "out", "tie", "until")

    def __init__(self, known: KnownOffer, host: HostState, home: "Bucket", until: float) -> None:
        self.known = known
        self.host = host
        self.home = home
        self.inp = known.offer.price_in
        self.out = known.offer.price_out
        self.tie = known.offer.host + known.offer.terms
        self.until = until
        self.filed = DEAD


Item = tuple[int, bytes, Entry]


class Order:
    """Items in rising order, in runs of a bounded length."""

    __slots__ = ("lasts", "runs", "size")

    def __init__(self) -> None:
        self.runs: list[list[Item]] = []
        self.lasts: list[Item] = []
        self.size = 0

    def add(self, item: Item) -> None:
        self.size += 1
        runs, lasts = self.runs, self.lasts
        if not runs:
            runs.append([item])
            lasts.append(item)
            return
        at = min(bisect_left(lasts, item), len(runs) - 1)
        run = runs[at]
        insort(run, item)
        if len(run) > RUN:
            runs.insert(at + 1, run[RUN // 2 :])
            del run[RUN // 2 :]
            lasts.insert(at, run[-1])
        lasts[at] = run[-1]
        if at + 1 < len(runs):
            lasts[at + 1] = runs[at + 1][-1]

    def remove(self, item: Item) -> None:
        at = bisect_left(self.lasts, item)
        run = self.runs[at]
        del run[bisect_left(run, item)]
        self.size -= 1
        if run:
            self.lasts[at] = run[-1]
        else:
            del self.runs[at], self.lasts[at]

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self.runs)

    def count_to(self, key: int) -> int:
        """How many items have a key up to this one."""
        probe = (key + 1,)
        at = bisect_right(self.lasts, probe)
        before = sum(map(len, self.runs[:at]))
        return before + (bisect_right(self.runs[at], probe) if at < len(self.runs) else 0)

    def at(self, place: int) -> Entry:
        for run in self.runs:
            if place < len(run):
                return run[place][2]
            place -= len(run)
        raise IndexError(place)


class Bucket:
    """The offers of one agent that no filter but the price tells apart: for each grade the three orders."""

    __slots__ = ("assurance", "region", "shelves", "size", "tier")

    def __init__(self, region: str, tier: str, level: str) -> None:
        self.region, self.tier, self.assurance = region, tier, level
        self.shelves = tuple((Order(), Order(), Order()) for _ in range(OUT))
        self.size = 0

    def file(self, entry: Entry, grade: int) -> None:
        """Move an entry to another grade; OUT and DEAD are nowhere."""
        if entry.filed == grade:
            return
        inp, out, tie = entry.inp, entry.out, entry.tie
        if entry.filed < OUT:
            by_in, by_sum, by_out = self.shelves[entry.filed]
            by_in.remove((inp, tie, entry))
            by_sum.remove((inp + out, tie, entry))
            by_out.remove((out, tie, entry))
        if grade < OUT:
            by_in, by_sum, by_out = self.shelves[grade]
            by_in.add((inp, tie, entry))
            by_sum.add((inp + out, tie, entry))
            by_out.add((out, tie, entry))
        entry.filed = grade


Plan = list[tuple[Bucket, int]]


class Stall:
    """The offers of one agent in one network."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, str, str], Bucket] = {}
        self._regions: dict[str, int] = {}
        self._plans: dict[Filters, Plan] = {}

    def bucket(self, known: KnownOffer) -> Bucket:
        """Where this offer belongs; counted, so that `leave` must follow."""
        detail = known.detail
        full = len(self._regions) >= MOST_REGIONS and detail.region not in self._regions
        key = ("" if full else detail.region, detail.tier, assurance(detail.numeric))
        found = self.buckets.get(key)
        if found is None:
            found = self.buckets[key] = Bucket(*key)
            self._plans.clear()
        found.size += 1
        self._regions[key[0]] = self._regions.get(key[0], 0) + 1
        return found

    def leave(self, bucket: Bucket) -> None:
        bucket.size -= 1
        self._regions[bucket.region] -= 1
        if not self._regions[bucket.region]:
            del self._regions[bucket.region]
        if not bucket.size:
            del self.buckets[bucket.region, bucket.tier, bucket.assurance]
            self._plans.clear()

    def plan(self, filters: Filters) -> Plan:
        """The buckets whose offers pass, nearest first, each with its factor of the score."""
        found = self._plans.get(filters)
        if found is None:
            fitting = [
                (bucket, FAR[distance(filters.near, bucket.region)])
                for bucket in self.buckets.values()
                if (not filters.tiers or bucket.tier in filters.tiers)
                and (not filters.region or within(bucket.region, filters.region))
                and (not filters.assurance or bucket.assurance in filters.assurance)
            ]
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            found = self._plans[filters] = sorted(fitting, key=lambda one: one[1])
        return found


class Best(msgspec.Struct):
    """The best entry of a grade with its score, and those found on the way that are no longer of that grade."""

    entry: Entry | None
    score: int
    stale: list[Entry]


def mix(aim: Aim) -> tuple[int, int, int, int]:
    """Two of a bucket's orders and their factors: prompt * in + output * out is the sum of both."""
    if aim.prompt >= aim.output:
        return 0, 1, aim.prompt - aim.output, aim.output
    return 2, 1, aim.output - aim.prompt, aim.prompt


def cheapest(plan: Plan, grade: int, aim: Aim, now: float) -> Best:
    """The entry of this grade that `rank` puts first."""
    one, other, a, b = mix(aim)
    if not a:
        one = other
    elif not b:
        other = one
    prompt, output = aim.prompt, aim.output
    roof = FOREVER if aim.cap is None else prompt * aim.cap.input + output * aim.cap.output
    best: Entry | None = None
    least: float = FOREVER
    tie = b""
    stale: list[Entry] = []
    for bucket, far in plan:
        orders = bucket.shelves[grade]
        firsts, seconds = orders[one].runs, orders[other].runs
        if not firsts:
            continue
        scale = far * TRUST
        bound = a * firsts[0][0][0] + b * seconds[0][0][0]
        if bound * scale > least or bound > roof:
            continue
        for (key, mark, left), (key2, mark2, right) in zip(
            chain.from_iterable(firsts), chain.from_iterable(seconds), strict=True
        ):
            for entry in (left,) if left is right else (left, right):
                host = entry.host
                found = (prompt * entry.inp + output * entry.out) * (TRUST + host.failures) * far
                if found < least or (found == least and entry.tie < tie):
                    if host.grade != grade or host.until < now or entry.until <= now:
                        stale.append(entry)
                    elif fits(entry, aim):
                        best, least, tie = entry, found, entry.tie
            bound = a * key + b * key2
            if bound > roof:
                break
            bound *= scale
            if bound > least or (bound == least and max(mark, mark2) >= tie):
                break
    return Best(best, int(least) if best is not None else 0, stale)


def fits(entry: Entry, aim: Aim) -> bool:
    """What the buckets do not tell apart."""
    detail, cap = entry.known.detail, aim.cap
    return (
        aim.operation in detail.operations
        and (aim.length < detail.context or not aim.length)
        and (cap is None or (entry.inp <= cap.input and entry.out <= cap.output))
        and entry.host.address not in aim.excluded
    )
