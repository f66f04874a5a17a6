"""Among offers that cost about the same: the one that should answer first, for its price.

The first token comes after the queue, the part of the prompt that the host has not read before, and the way there. All
compete by that time, so the host that knows a prompt is left as soon as its queue costs more than it saves; and a host
that asks more must be sooner by twice as much, so whoever asks less is never asked less.
"""

from bisect import bisect_right
from itertools import accumulate, islice
from typing import Final, Protocol

import msgspec

from lading.core.index import Entry, Order, Plan, fits, mix
from lading.core.matching import BAND, FAR, TRUST, YIELDING, Aim
from lading_protocol.ids import Address
from lading_protocol.offers import KnownOffer

# How many are compared while reports are fresh, and when they are old: then many would run to the same host at once
# (M. Mitzenmacher, How useful is old information?, 2000).
FRESH_CHOICES: Final = 8
STALE_CHOICES: Final = 2
FRESH_SECONDS: Final = 1.0
# Drawn for each that is wanted: some that are drawn turn out to cost more, or to be gone.
DRAWS: Final = 3
# What is expected of a host that we know nothing of: seconds for a token of the prompt, for a job, and for the way.
PACE: Final = 0.0004
SERVICE: Final = 4.0
WAY: Final[tuple[float, ...]] = (0.02, 0.05, 0.16)
BYTES_A_TOKEN: Final = 4
LEARN: Final = 0.2


class Chance(Protocol):
    """random.Random, as far as it is needed."""

    def random(self) -> float: ...


class Pick(msgspec.Struct, frozen=True):
    """Who gets a job. The first token is expected in `seconds`, of which `tokens` of the prompt are left to read."""

    offer: KnownOffer
    seconds: float
    tokens: float


class Scored(msgspec.Struct, frozen=True):
    """An entry, its score, and how many steps away it is."""

    entry: Entry
    score: int
    steps: int


class Band(msgspec.Struct, frozen=True):
    """All entries of a grade whose score is at most `limit`."""

    plan: Plan
    grade: int
    aim: Aim
    limit: int
    now: float

    def take(self, entry: Entry, far: int) -> int | None:
        """The score of an entry that belongs, or None."""
        host = entry.host
        score = (self.aim.prompt * entry.inp + self.aim.output * entry.out) * (TRUST + host.failures) * far
        if score > self.limit or host.grade != self.grade or host.until < self.now or entry.until <= self.now:
            return None
        return score if fits(entry, self.aim) else None


def band_of(plan: Plan, grade: int, aim: Aim, best: int, now: float) -> Band:
    return Band(plan, grade, aim, best * BAND // 10, now)


def draw(band: Band, count: int, rng: Chance) -> list[Scored]:
    """Up to `count` of a band, each as likely as the other; all of them where there are no more."""
    parts, mixed = [], mix(band.aim)
    for orders, far in band.plan[band.grade]:
        if orders[0].runs and (part := _part(band, orders, far, mixed)) is not None:
            parts.append(part)
    ends = list(accumulate(size for _, size, _ in parts))
    total = ends[-1] if ends else 0
    if total <= count * DRAWS:
        return _shuffled([one for part in parts for one in _all(band, part)], count, rng)
    found: list[Scored] = []
    seen: set[int] = set()
    for _ in range(count * DRAWS):
        place = int(rng.random() * total)
        if place in seen:
            continue
        seen.add(place)
        at = bisect_right(ends, place)
        order, size, far = parts[at]
        entry = order.at(place - ends[at] + size)
        score = band.take(entry, far)
        if score is not None:
            found.append(Scored(entry, score, FAR.index(far)))
            if len(found) == count:
                break
    return found


def _part(
    band: Band, orders: tuple[Order, Order, Order], far: int, mixed: tuple[int, int, int, int, int]
) -> tuple[Order, int, int] | None:
    """The order in which the band's entries of this bucket stand closest together, and how many they are at most."""
    one, other, a, b, unit = mixed
    first, second = orders[one], orders[other]
    raw = band.limit * unit // (far * TRUST)
    lowest, lowest2 = first.runs[0][0][0], second.runs[0][0][0]
    if a * lowest + b * lowest2 > raw:
        return None
    # A key is at most what the limit leaves when the other key is at its lowest.
    size = first.count_to((raw - b * lowest2) // a) if a else len(first)
    size2 = second.count_to((raw - a * lowest) // b) if b else len(second)
    return (first, size, far) if size <= size2 else (second, size2, far)


def _shuffled(found: list[Scored], count: int, rng: Chance) -> list[Scored]:
    for at in range(min(count, len(found) - 1)):
        other = at + int(rng.random() * (len(found) - at))
        found[at], found[other] = found[other], found[at]
    return found[:count]


def _all(band: Band, part: tuple[Order, int, int]) -> list[Scored]:
    order, size, far = part
    steps, aim = FAR.index(far), band.aim
    limit = band.limit // far
    found = []
    for _, _, entry in islice(order, size):
        # Most of them cost too much after all: that is seen without a call.
        score = (aim.prompt * entry.inp + aim.output * entry.out) * TRUST
        if score <= limit and (taken := band.take(entry, far)) is not None:
            found.append(Scored(entry, taken, steps))
    return found


def choose(found: list[Scored], aim: Aim, read: dict[Address, int], now: float) -> tuple[Scored, float]:
    """The one with the least time to the first token times the square of its price, and that time in seconds. `read`
    gives bytes of the prompt by host.

    Those that have read nothing, beyond the first two, only count while reports are fresh.
    """
    beats = [one.entry.host.beat_at for one in found]
    ages = [now - beat for beat in beats if beat is not None]
    if not ages or sum(ages) > FRESH_SECONDS * len(ages):
        strangers = [one for one in found if one.entry.host.address not in read]
        found = strangers[:STALE_CHOICES] + [one for one in found if one.entry.host.address in read]
    least = max(1, min(one.score for one in found))
    waits = [wait(one, aim, read.get(one.entry.host.address, 0)) for one in found]
    worth = [seconds * (one.score / least) ** 2 for one, seconds in zip(found, waits, strict=True)]
    # Of equals the one that was drawn first, that is by lot.
    at = min(range(len(found)), key=worth.__getitem__)
    return found[at], waits[at]


def wait(one: Scored, aim: Aim, read: int) -> float:
    """Seconds to the first token: queue, what is left to read, and the way. A busy host reads more slowly."""
    host = one.entry.host
    slots = one.entry.known.offer.slots
    room = host.room
    waits = room <= 0 and host.grade != YIELDING
    queue = (host.waiting + 1 - room) * (host.service or SERVICE) / slots if waits else 0.0
    busy = min(1.0, max(0, slots - room) / slots)
    tokens = max(0, aim.size - read) / BYTES_A_TOKEN
    return queue + tokens * (host.pace or PACE) * (1 + busy) + (host.base or WAY[one.steps])


def learn(known: float, seen: float) -> float:
    return known + LEARN * (seen - known) if known else seen
