"""What this index has, as it is told to others: stocks by agent and region, and single offers for who asks.

Only what hosts report here themselves is passed on: what was quoted to us is its own coordinator's to tell. The work
for a bucket is bounded, however many offers it holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from lading.core.fleet import Fleet
from lading.core.index import Bucket, Entry, Order, Stall, fits
from lading.core.matching import GRADES, IDLE, TRUST, Aim
from lading.core.near import Band, Chance, draw
from lading_protocol.ids import AgentId
from lading_protocol.summaries import Stock

# Offers looked at to count free slots, and to find a price that holds.
COUNTED: Final = 256
LOOKED: Final = 64
MOST_KINDS: Final = 4
# Prices that differ by so many per cent are the same for who is far away: a quote says what is asked now.
CLOSE: Final = 5

# How many offers of a bucket were quoted to us, by agent and region.
Strange = Mapping[tuple[AgentId, str], int]


def stocks(agent: AgentId, stall: Stall, strange: Strange, now: float) -> Iterator[Stock]:
    for bucket in stall.buckets.values():
        hosts = sum(len(orders[0]) for orders in bucket.all.grades) - strange.get((agent, bucket.region), 0)
        found = _stock(agent, bucket, hosts, now) if hosts > 0 else None
        if found is not None:
            yield found


def _stock(agent: AgentId, bucket: Bucket, hosts: int, now: float) -> Stock | None:
    for grade in GRADES:
        orders = bucket.all.grades[grade]
        seen = [entry for _, _, entry in islice(orders[1], COUNTED) if tells(entry, grade, now)]
        if not seen:
            continue
        free = sum(max(0, entry.host.room) for entry in seen) if grade in IDLE else 0
        firsts = [first for order in orders if (first := _first(order, grade, now)) is not None]
        corners = dict.fromkeys((str(entry.inp), str(entry.out)) for entry in firsts)
        kinds = sorted(bucket.sizes, key=lambda kind: (-bucket.sizes[kind], kind))[:MOST_KINDS]
        context = max(entry.known.detail.context for entry in seen)
        return Stock(agent, bucket.region, hosts, free, context, tuple(corners), tuple(kinds))
    return None


def _first(order: Order, grade: int, now: float) -> Entry | None:
    return next((entry for _, _, entry in islice(order, LOOKED) if tells(entry, grade, now)), None)


def tells(entry: Entry, grade: int, now: float) -> bool:
    """Whether the host reports here itself, and stands as it is filed."""
    host = entry.host
    return not host.quoted and host.grade == grade and host.until >= now and entry.until > now


def quotable(fleet: Fleet, agent: AgentId, aim: Aim, most: int, now: float, rng: Chance) -> list[Entry]:
    """Offers for who asks from elsewhere: of near-ties some by lot, so that not all who ask run to the same host; and
    where these are too few, the cheapest of the rest."""
    found = fleet.best(agent, aim, now)
    if found is None:
        return []
    plan, grade, best = found
    drawn = [entry for entry, _, _ in draw(Band(plan, grade, aim, best.score, now), 2 * most, rng)]
    chosen = dict.fromkeys(entry for entry in drawn if tells(entry, grade, now))
    for worse in GRADES[GRADES.index(grade) :]:
        if len(chosen) >= most:
            break
        rest = {
            entry: (aim.prompt * entry.inp + aim.output * entry.out) * (TRUST + entry.host.failures) * far
            for orders, far in plan[worse]
            for order in orders
            for _, _, entry in islice(order, LOOKED + most)
            if entry not in chosen and tells(entry, worse, now) and fits(entry, aim)
        }
        chosen |= dict.fromkeys(sorted(rest, key=lambda entry: (rest[entry], entry.tie)))
    return list(chosen)[:most]


def differs(said: Sequence[Stock], now: Sequence[Stock]) -> bool:
    """Whether others should hear it anew: other stocks, a price that moved by more than CLOSE, a doubled number."""
    if len(said) != len(now):
        return True
    return any(_differ(one, other) for one, other in zip(said, now, strict=True))


def _differ(one: Stock, other: Stock) -> bool:
    if (one.agent, one.region, one.context) != (other.agent, other.region, other.context):
        return True
    if set(one.kinds) != set(other.kinds) or len(one.corners) != len(other.corners):
        return True
    prices = zip(chain.from_iterable(one.corners), chain.from_iterable(other.corners), strict=True)
    return (
        _doubled(one.hosts, other.hosts)
        or _doubled(one.free, other.free)
        or any(abs(int(a) - int(b)) * 100 > CLOSE * int(a) for a, b in prices)
    )


def _doubled(one: int, other: int) -> bool:
    return max(one, other) >= 2 * min(one, other) and one != other
