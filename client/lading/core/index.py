"""Offers in the order of their price, so that the best one is found without a look at the rest. Exact: as `rank` says.

A stall holds the offers of one agent, a bucket for each region. There are three orders: by the price of the prompt, of
the answer, and of both together. A request's cost is a sum of two of these with factors that are never negative, so
that where the two orders have come to bounds from below whatever comes later (R. Fagin's threshold algorithm). The
closer the third order is to what requests pay, the sooner: once the cheap hosts are taken, what is left lies along a
line, and every offer in the corner below it must be looked at.

An entry may be filed in a better grade than its host has by now: who looks at it finds out, and files it anew. It is
never filed in a worse one; whoever changes a host sees to that.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from lading.core.matching import FAR, OUT, TRUST, Aim, Filters, distance, within
from lading_protocol.audit import assurance
from lading_protocol.ids import Address
from lading_protocol.offers import KnownOffer

RUN: Final = 512
# In the order by both prices, that of the prompt counts so many times: prompts are counted in bytes, answers in tokens.
BOTH: Final = 4
# Offers of an agent in more regions than this are filed under none: each region costs every request a look.
MOST_REGIONS: Final = 64
MOST_PLANS: Final = 64
# An entry that is filed nowhere because its own time is over, whatever its host does.
DEAD: Final = OUT + 1
FOREVER: Final = float("inf")
# More than any score is, as a whole number: scores are exact.
BEYOND: Final = 1 << 256


@dataclass(slots=True, eq=False)
class HostState:
    """What is known of a host. Times are the caller's clock, in seconds. (A msgspec.Struct is slower to change.)

    `drift` counts our jobs that began, less those that ended, since the last report; `slots` are what its offers name.
    `batch` of our running jobs would give way to others, unless it `stays`: it refused to, since it last reported.
    `blind`: the last job went there although it was full by all that we knew. `refusals` are those in a row that its
    reports had not announced, `denied` those since it last reported that it is full; until `full_until` it counts as
    full, whatever it reports. `given_up` are the jobs that it would not have, in a row; `forgiven` counts how often it
    was let in again since it last worked, `lied_until` is when a lie is over. `until` is when it counts as silent,
    `grade` how it stands, `filed` the worst grade of an entry of it. `pace`, `service` and `base` are what we saw:
    seconds for a token of the prompt, for a job, and before any work. `spells` are stretches of time in which it could
    not be chosen, and why; those that last still are not among them. `quoted`: it does not report here, another
    coordinator tells of it.
    """

    address: Address
    free: int = 1
    waiting: int = 0
    beat_at: float | None = None
    busy: int = 0
    failures: int = 0
    given_up: int = 0
    forgiven: int = 0
    lied_until: float = 0.0
    batch: int = 0
    stays: bool = False
    blind: bool = False
    refusals: int = 0
    denied: int = 0
    full_until: float = 0.0
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
    entries: "list[Entry]" = field(default_factory=list)
    spells: "list[tuple[str, float, float]]" = field(default_factory=list)
    full_since: float = 0.0
    left_at: float | None = None
    quoted: bool = False

    @property
    def room(self) -> int:
        """Free slots after what we sent since the host said so; without reports, after all our own jobs there."""
        return (self.slots if self.beat_at is None else self.free) - self.drift

    @property
    def yields(self) -> bool:
        """Whether it would stop a job for us, as far as we know."""
        return self.batch > 0 and not self.stays and self.room + self.batch > 0


class Entry:
    """An offer on file. `until` is when it expires, or when too little is left of its terms."""

    __slots__ = ("filed", "home", "host", "inp", "kind", "known", "out", "tie", "until")

    def __init__(self, known: KnownOffer, host: HostState, home: "tuple[Bucket, Kind]", until: float) -> None:
        self.known = known
        self.host = host
        self.home, self.kind = home
        self.inp = known.offer.price_in
        self.out = known.offer.price_out
        self.tie = known.offer.host + known.offer.terms
        self.until = until
        self.filed = DEAD


Item = tuple[int, bytes, Entry]


class Order:
    """Items in rising order, in runs of a bounded length; `lasts` are the last items of the runs, where there are more
    than one."""

    __slots__ = ("lasts", "runs")

    def __init__(self) -> None:
        self.runs: list[list[Item]] = []
        self.lasts: list[Item] = []

    def add(self, item: Item) -> None:
        runs = self.runs
        if not runs:
            runs.append([item])
            return
        at = min(bisect_left(self.lasts, item), len(runs) - 1) if len(runs) > 1 else 0
        run = runs[at]
        insort(run, item)
        if len(run) > RUN:
            runs[at : at + 1] = [run[: RUN // 2], run[RUN // 2 :]]
            self.lasts = [run[-1] for run in runs]
        elif len(runs) > 1:
            self.lasts[at] = run[-1]

    def remove(self, item: Item) -> None:
        runs = self.runs
        at = bisect_left(self.lasts, item) if len(runs) > 1 else 0
        run = runs[at]
        del run[bisect_left(run, item)]
        if not run:
            del runs[at]
            self.lasts = [run[-1] for run in runs]
        elif len(runs) > 1:
            self.lasts[at] = run[-1]

    def move(self, old: Item, new: Item) -> None:
        runs = self.runs
        if len(runs) == 1:
            run = runs[0]
            del run[bisect_left(run, old)]
            insort(run, new)
        else:
            self.remove(old)
            self.add(new)

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self.runs)

    def count_to(self, key: int) -> int:
        """How many items have a key up to this one."""
        probe, runs = (key + 1,), self.runs
        at = bisect_right(self.lasts, probe) if len(runs) > 1 else 0
        before = sum(map(len, runs[:at])) if at else 0
        return before + (bisect_right(runs[at], probe) if at < len(runs) else 0)

    def head(self, size: int) -> list[Item]:
        """So many of the first items."""
        found: list[Item] = []
        for run in self.runs:
            found += run[: size - len(found)]
            if len(found) >= size:
                break
        return found

    def at(self, place: int) -> Entry:
        for run in self.runs:
            if place < len(run):
                return run[place][2]
            place -= len(run)
        raise IndexError(place)


class View:
    """For each grade the three orders, of all offers of a bucket or of one kind."""

    __slots__ = ("grades",)

    def __init__(self) -> None:
        self.grades = tuple((Order(), Order(), Order()) for _ in range(OUT))

    def add(self, entry: Entry, grade: int) -> None:
        inp, out, tie = entry.inp, entry.out, entry.tie
        by_in, by_both, by_out = self.grades[grade]
        by_in.add((inp, tie, entry))
        by_both.add((BOTH * inp + out, tie, entry))
        by_out.add((out, tie, entry))

    def remove(self, entry: Entry) -> None:
        inp, out, tie = entry.inp, entry.out, entry.tie
        by_in, by_both, by_out = self.grades[entry.filed]
        by_in.remove((inp, tie, entry))
        by_both.remove((BOTH * inp + out, tie, entry))
        by_out.remove((out, tie, entry))

    def move(self, entry: Entry, inp: int, out: int) -> None:
        tie, old_inp, old_out = entry.tie, entry.inp, entry.out
        by_in, by_both, by_out = self.grades[entry.filed]
        by_in.move((old_inp, tie, entry), (inp, tie, entry))
        by_both.move((BOTH * old_inp + old_out, tie, entry), (BOTH * inp + out, tie, entry))
        by_out.move((old_out, tie, entry), (out, tie, entry))


# A tier of isolation and a level of assurance.
Kind = tuple[str, str]


class Bucket:
    """The offers of one agent in one region. Kinds that somebody insisted on have views of their own."""

    __slots__ = ("all", "kinds", "region", "sizes")

    def __init__(self, region: str) -> None:
        self.region = region
        self.all = View()
        self.kinds: dict[Kind, View] = {}
        self.sizes: dict[Kind, int] = {}

    def file(self, entry: Entry, grade: int) -> None:
        """Move an entry to another grade; OUT and DEAD are nowhere."""
        if entry.filed == grade:
            return
        view = self.kinds.get(entry.kind) if self.kinds else None
        if entry.filed < OUT:
            self.all.remove(entry)
            if view is not None:
                view.remove(entry)
        if grade < OUT:
            self.all.add(entry, grade)
            if view is not None:
                view.add(entry, grade)
        entry.filed = grade

    def reprice(self, entry: Entry, inp: int, out: int) -> None:
        if entry.filed < OUT:
            self.all.move(entry, inp, out)
            if self.kinds and (view := self.kinds.get(entry.kind)) is not None:
                view.move(entry, inp, out)
        entry.inp, entry.out = inp, out

    def view(self, kind: Kind) -> View:
        """The offers of one kind; kept from now on."""
        found = self.kinds.get(kind)
        if found is None:
            found = self.kinds[kind] = View()
            for grade, orders in enumerate(self.all.grades):
                for _, _, entry in orders[0]:
                    if entry.kind == kind:
                        found.add(entry, grade)
        return found


# For each grade the views whose offers pass, nearest first, each with its factor of the score.
Plan = tuple[list[tuple[tuple[Order, Order, Order], int]], ...]


class Stall:
    """The offers of one agent."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self._plans: dict[Filters, Plan] = {}

    def enter(self, known: KnownOffer) -> tuple[Bucket, Kind]:
        """Where this offer belongs, until it leaves."""
        region = known.detail.region
        if region not in self.buckets and len(self.buckets) >= MOST_REGIONS:
            region = ""
        bucket = self.buckets.get(region)
        if bucket is None:
            bucket = self.buckets[region] = Bucket(region)
            self._plans.clear()
        kind = kind_of(known)
        if kind not in bucket.sizes:
            bucket.sizes[kind] = 0
            self._plans.clear()
        bucket.sizes[kind] += 1
        return bucket, kind

    def leave(self, entry: Entry) -> None:
        bucket, kind = entry.home, entry.kind
        bucket.sizes[kind] -= 1
        if not bucket.sizes[kind]:
            del bucket.sizes[kind]
            bucket.kinds.pop(kind, None)
            self._plans.clear()
        if not bucket.sizes:
            del self.buckets[bucket.region]

    def plan(self, filters: Filters) -> Plan:
        found = self._plans.get(filters)
        if found is None:
            near = sorted(self.buckets.values(), key=lambda bucket: distance(filters.near, bucket.region))
            views = [
                (view, FAR[distance(filters.near, bucket.region)])
                for bucket in near
                if not filters.region or within(bucket.region, filters.region)
                for view in self._views(bucket, filters)
            ]
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            found = self._plans[filters] = tuple(
                [(view.grades[grade], far) for view, far in views] for grade in range(OUT)
            )
        return found

    def _views(self, bucket: Bucket, filters: Filters) -> list[View]:
        if not filters.tiers and not filters.assurance:
            return [bucket.all]
        return [bucket.view(kind) for kind in bucket.sizes if passes(kind, filters)]


def kind_of(known: KnownOffer) -> Kind:
    return known.detail.tier, assurance(known.detail.numeric)


def passes(kind: Kind, filters: Filters) -> bool:
    tier, level = kind
    return (not filters.tiers or tier in filters.tiers) and (not filters.assurance or level in filters.assurance)


class Best:
    """The best entry of a grade with its score, and those found on the way that are no longer of that grade."""

    __slots__ = ("entry", "score", "stale")

    def __init__(self, entry: Entry | None, score: int, stale: list[Entry]) -> None:
        self.entry: Final = entry
        self.score: Final = score
        self.stale: Final = stale


def mix(aim: Aim) -> tuple[int, int, int, int, int]:
    """Two of a bucket's orders, a factor for each, and a unit: prompt * in + output * out is the sum of both over the
    unit."""
    if aim.prompt >= BOTH * aim.output:
        return 0, 1, aim.prompt - BOTH * aim.output, aim.output, 1
    return 2, 1, BOTH * aim.output - aim.prompt, aim.prompt, BOTH


def cheapest(plan: Plan, grade: int, aim: Aim, now: float) -> Best:
    """The entry of this grade that `rank` puts first."""
    one, other, a, b, unit = mix(aim)
    if not a:
        one = other
    elif not b:
        other = one
    prompt, output = aim.prompt, aim.output
    roof = BEYOND if aim.cap is None else (prompt * aim.cap.input + output * aim.cap.output) * unit
    best: Entry | None = None
    least = floor = BEYOND  # `floor` is the same in the unit of bounds
    tie = b""
    stale: list[Entry] = []
    for orders, far in plan[grade]:
        firsts, seconds = orders[one].runs, orders[other].runs
        if not firsts:
            continue
        scale = far * TRUST
        bound = a * firsts[0][0][0] + b * seconds[0][0][0]
        if bound * scale > floor or bound > roof:
            continue
        lefts: Iterable[Item] = firsts[0] if len(firsts) == 1 else chain.from_iterable(firsts)
        rights: Iterable[Item] = seconds[0] if len(seconds) == 1 else chain.from_iterable(seconds)
        for (key, mark, left), (key2, mark2, right) in zip(lefts, rights):  # noqa: B905, as strict ones are slow compiled
            for entry in (left,) if left is right else (left, right):
                host = entry.host
                found = (prompt * entry.inp + output * entry.out) * (TRUST + host.failures) * far
                if found < least or (found == least and entry.tie < tie):
                    if host.grade != grade or host.until < now or entry.until <= now:
                        stale.append(entry)
                    elif fits(entry, aim):
                        best, least, tie = entry, found, entry.tie
                        floor = found * unit
            bound = a * key + b * key2
            if bound > roof:
                break
            bound *= scale
            if bound > floor or (bound == floor and max(mark, mark2) >= tie):
                break
    return Best(best, least if best is not None else 0, stale)


def fits(entry: Entry, aim: Aim) -> bool:
    """What the buckets do not tell apart."""
    detail, cap = entry.known.detail, aim.cap
    return (
        aim.operation in detail.operations
        and (aim.length < detail.context or not aim.length)
        and (cap is None or (entry.inp <= cap.input and entry.out <= cap.output))
        and entry.host.address not in aim.excluded
    )
