"""Among offers that cost about the same: the one that should answer first, for its price.

The first token comes after the queue, the part of the prompt that the host has not read before, and the way there. All
compete by that time, so the host that knows a prompt is left as soon as its queue costs more than it saves; and a host
that asks more must be sooner by twice as much, so whoever asks less is never asked less.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Final, Protocol

from lading.core.index import FOREVER, Entry, Order, Plan, fits, mix
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


class Pick:
    """Who gets a job. The first token is expected in `seconds`, of which `tokens` of the prompt are left to read."""

    __slots__ = ("offer", "seconds", "tokens")

    def __init__(self, offer: KnownOffer, seconds: float, tokens: float) -> None:
        self.offer: Final = offer
        self.seconds: Final = seconds
        self.tokens: Final = tokens


# An entry, its score, and how many steps away it is.
Scored = tuple[Entry, int, int]


class Band:
    """All entries of a grade whose score is at most `limit`."""

    __slots__ = ("aim", "grade", "limit", "now", "plan")

    def __init__(self, plan: Plan, grade: int, aim: Aim, best: int, now: float) -> None:
        self.plan: Final = plan
        self.grade: Final = grade
        self.aim: Final = aim
        self.limit: Final = best * BAND // 10
        self.now: Final = now

    def take(self, entry: Entry, far: int) -> int | None:
        """The score of an entry that belongs, or None."""
        host = entry.host
        score = (self.aim.prompt * entry.inp + self.aim.output * entry.out) * (TRUST + host.failures) * far
        if score > self.limit or host.grade != self.grade or host.until < self.now or entry.until <= self.now:
            return None
        return score if fits(entry, self.aim) else None


def draw(band: Band, count: int, rng: Chance) -> list[Scored]:
    """Up to `count` of a band, each as likely as the other; all of them where there are no more."""
    parts = _parts(band, count)
    total = sum([size for _, size, _ in parts])
    if total <= count * DRAWS:
        found: list[Scored] = []
        for part in parts:
            _take_all(band, part, found)
        return _shuffled(found, count, rng)
    ends = list(accumulate(size for _, size, _ in parts))
    found = []
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
            found.append((entry, score, FAR.index(far)))
            if len(found) == count:
                break
    return found


# An order of entries of one factor of the score, of which so many may belong.
Part = tuple[Order, int, int]


def _parts(band: Band, few: int) -> list[Part]:
    """Of each bucket the order in which the band's entries stand closest together, or one where they are `few`."""
    one, other, a, b, unit = mix(band.aim)
    found: list[Part] = []
    for orders, far in band.plan[band.grade]:
        first, second = orders[one], orders[other]
        if not first.runs:
            continue
        raw = band.limit * unit // (far * TRUST)
        # A key is at most what the limit leaves when the other key is at its lowest.
        left = raw - b * second.runs[0][0][0]
        left2 = raw - a * first.runs[0][0][0]
        if left + left2 < raw:
            continue
        size = first.count_to(left // a) if a else len(first)
        size2 = size if size <= few else second.count_to(left2 // b) if b else len(second)
        found.append((first, size, far) if size <= size2 else (second, size2, far))
    return found


def _shuffled(found: list[Scored], count: int, rng: Chance) -> list[Scored]:
    for at in range(min(count, len(found) - 1)):
        other = at + int(rng.random() * (len(found) - at))
        found[at], found[other] = found[other], found[at]
    return found if len(found) <= count else found[:count]


def _take_all(band: Band, part: Part, found: list[Scored]) -> None:
    order, size, far = part
    prompt, output = band.aim.prompt, band.aim.output
    limit = band.limit // far
    for _, _, entry in order.head(size):
        # Most of them cost too much after all: that is seen without a call.
        if (prompt * entry.inp + output * entry.out) * TRUST <= limit:
            taken = band.take(entry, far)
            if taken is not None:
                found.append((entry, taken, FAR.index(far)))


def choose(found: list[Scored], aim: Aim, read: dict[Address, int], now: float) -> tuple[Entry, float]:
    """The one with the least time to the first token times the square of its price, and that time in seconds. `read`
    gives bytes of the prompt by host.

    Those that have read nothing, beyond the first two, only count while reports are fresh.
    """
    if len(found) > STALE_CHOICES and not _fresh(found, now):
        strangers = [one for one in found if one[0].host.address not in read]
        found = strangers[:STALE_CHOICES] + [one for one in found if one[0].host.address in read]
    best = found[0][0]
    soonest, least_worth = 0.0, FOREVER
    least = max(1, min([score for _, score, _ in found]))
    for entry, score, steps in found:
        seconds = wait(entry, steps, aim, read.get(entry.host.address, 0) if read else 0)
        worth = seconds * (score / least) ** 2
        # Of equals the one that was drawn first, that is by lot.
        if worth < least_worth:
            best, soonest, least_worth = entry, seconds, worth
    return best, soonest


def _fresh(found: list[Scored], now: float) -> bool:
    """Whether the reports of those that report are, on average."""
    age, count = 0.0, 0
    for entry, _, _ in found:
        beat_at = entry.host.beat_at
        if beat_at is not None:
            age += now - beat_at
            count += 1
    return count > 0 and age <= FRESH_SECONDS * count


def wait(entry: Entry, steps: int, aim: Aim, read: int) -> float:
    """Seconds to the first token: queue, what is left to read, and the way. A busy host reads more slowly."""
    host, slots = entry.host, entry.known.offer.slots
    room = host.room
    waits = room <= 0 and host.grade != YIELDING
    queue = (host.waiting + 1 - room) * (host.service or SERVICE) / slots if waits else 0.0
    busy = min(1.0, max(0, slots - room) / slots)
    tokens = max(0, aim.size - read) / BYTES_A_TOKEN
    return queue + tokens * (host.pace or PACE) * (1 + busy) + (host.base or WAY[steps])


def learn(known: float, seen: float) -> float:
    return known + LEARN * (seen - known) if known else seen
