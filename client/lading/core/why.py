"""Why a host gets work, or does not: enough is kept of past choices that a host which asks is told, and no more.

A choice looks at a few offers, and the others must cost nothing. So a sample of choices is kept for each agent, one for
each slice of time with the number that it stands for, and a host's offer is held against them when it asks.
"""

from collections import deque
from itertools import islice
from typing import Final

import msgspec

from lading.core.index import HostState
from lading.core.matching import BAND, FAR, OUT, TRUST, YIELDING, Aim, distance, score, unfit_for
from lading.core.near import Chance
from lading_protocol.ids import Address
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price

WINDOW: Final = 600.0
SLICES: Final = 120

# A reason's code, and from when to when.
Spell = tuple[str, float, float]


class Choice(msgspec.Struct, frozen=True):
    """One request and who got it. `score` is the best one, `seconds` what the chosen host was expected to take."""

    at: float
    aim: Aim
    host: Address | None
    price: Price | None
    score: int
    seconds: float


# An offer that was chosen, the best score there was, and in how many seconds its host was expected to answer.
Found = tuple[KnownOffer, int, float]


def made(at: float, aim: Aim, found: Found | None) -> Choice:
    if found is None:
        return Choice(at, aim, None, None, 0, 0.0)
    offer, score, seconds = found
    return Choice(at, aim, offer.host, offer.price, score, seconds)


class Slice:
    """The choices of a stretch of time: how many, who got them, and one of them by lot."""

    __slots__ = ("count", "number", "one", "won")

    def __init__(self, number: int, one: Choice) -> None:
        self.number = number
        self.count = 0
        self.one = one
        self.won: dict[Address, int] = {}


class Reason(msgspec.Struct):
    """How often, and the last time in words."""

    code: str
    count: int
    words: str
    at: float


class Losses(msgspec.Struct, frozen=True):
    """`jobs` requests for an agent since `since`; `won` of them went to the host, `reasons` say why the others did not.

    Counts of reasons are estimates where choices were many. `price` is what the last one that went elsewhere paid.
    """

    jobs: int
    won: int
    since: float
    reasons: tuple[Reason, ...]
    price: Price | None


class Choices:
    """Those of one agent."""

    def __init__(self) -> None:
        self._slices: deque[Slice] = deque(maxlen=SLICES)

    def add(self, at: float, aim: Aim, found: Found | None, rng: Chance) -> None:
        """A choice: who was `found` got the job, or nobody."""
        number = int(at * (SLICES / WINDOW))
        last = self._slices[-1] if self._slices else None
        if last is None or last.number != number:
            last = Slice(number, made(at, aim, found))
            self._slices.append(last)
        elif rng.random() * (last.count + 1) < 1:
            last.one = made(at, aim, found)
        last.count += 1
        if found is not None:
            host = found[0].host
            last.won[host] = last.won.get(host, 0) + 1

    @property
    def latest(self) -> tuple[Choice, int] | None:
        """One of the last choices, and how many there are in a slice of time."""
        if not self._slices:
            return None
        return self._slices[-1].one, max(one.count for one in islice(reversed(self._slices), 2))

    def losses(self, host: HostState, offers: list[KnownOffer], now: float) -> Losses:
        """What an agent's choices of the last WINDOW seconds were to this host."""
        spells = [*host.spells, *lasting(host, now)]
        seen = [one for one in self._slices if one.one.at > now - WINDOW]
        jobs, won = sum(one.count for one in seen), sum(one.won.get(host.address, 0) for one in seen)
        reasons: dict[str, Reason] = {}
        price = None
        for one in seen:
            lost = one.count - one.won.get(host.address, 0)
            if not lost:
                continue
            if one.one.host not in (None, host.address):
                price = one.one.price
            code, words = explain(one.one, host, offers, spells)
            held = reasons.setdefault(code, Reason(code, 0, words, 0.0))
            held.count, held.words, held.at = held.count + lost, words, one.one.at
        since = seen[0].one.at if seen else now
        order = sorted(reasons.values(), key=lambda reason: (-reason.count, reason.code))
        return Losses(jobs, won, since, tuple(order), price)


def explain(choice: Choice, host: HostState, offers: list[KnownOffer], spells: list[Spell]) -> tuple[str, str]:
    """Why this choice did not fall on the best of a host's offers: a code, and a sentence to the host."""
    if choice.host == host.address:
        return "shared", "others got jobs of the same moment too"
    if not offers:
        return "absent", "the agent was offered here only later"
    if host.address in choice.aim.excluded:
        return "tried", "this host had dropped the job before"
    for code, since, until in reversed(spells):
        if since <= choice.at < until:
            return code, spell_words(code, since, until)
    if host.barred:
        return "barred", f"this host {host.barred}"
    found = [unfit_for(known, known.detail.region, choice.aim) for known in offers]
    fitting = [known for known, unfit in zip(offers, found, strict=True) if unfit is None]
    if not fitting:
        code, words = next(unfit for unfit in found if unfit is not None)
        return code, f"your offer {words}"
    if choice.host is None:
        return "nobody", "no host was chosen, for reasons of the consumer's"
    return _outbid(choice, host, min(fitting, key=lambda known: _score(known, choice.aim, host)))


def _score(known: KnownOffer, aim: Aim, host: HostState) -> int:
    return score(known.price, aim, host.failures, distance(aim.filters.near, known.detail.region))


def _outbid(choice: Choice, host: HostState, known: KnownOffer) -> tuple[str, str]:
    """It could have served: what it cost, against what the best cost."""
    aim = choice.aim
    bare = score(known.price, aim, 0, 0)
    paid = score(choice.price, aim, 0, 0) if choice.price is not None else 0
    above = 100 * (bare - paid) / paid if paid else 100.0
    if _score(known, aim, host) * 10 <= choice.score * BAND:
        if host.doubted:
            return "doubted", "spot checks cast suspicion on this host, so that others with room come first"
        if bare > paid:
            return "price", f"your price was {above:.0f} % above that of the host that got the job"
        return "speed", f"your price was fine; another host was expected to answer first, in {choice.seconds:.2f} s"
    if bare * 10 > choice.score * BAND:
        return "price", f"your price was {above:.0f} % above that of the host that got the job"
    if score(known.price, aim, host.failures, 0) * 10 > choice.score * BAND:
        return "failures", f"{host.failures} failures in a row count as {100 * host.failures // TRUST} % on your price"
    steps = distance(aim.filters.near, known.detail.region)
    where = known.detail.region or "no known region"
    return "far", f"your offer is in {where}, which counts as {(FAR[steps] - FAR[0]) // 10} % on its price"


def lasting(host: HostState, now: float) -> list[Spell]:
    """The spells that have not ended."""
    found = []
    if YIELDING <= host.grade < OUT:
        found.append(("full", host.full_since, now))
    if host.beat_at is not None and host.until < now:
        found.append(("unquoted" if host.quoted else "silent", host.until, now))
    if host.beat_at is None and host.left_at is not None:
        found.append(("unlinked", host.left_at, now))
    return found


def spell_words(code: str, since: float, until: float) -> str:
    seconds = until - since
    match code:
        case "full":
            return f"all your slots were taken, for {seconds:.0f} s"
        case "silent":
            return f"your heartbeat was overdue for {seconds:.0f} s"
        case "unquoted":
            return f"you have no link to this coordinator, and nobody told it how you are for {seconds:.0f} s"
        case "unlinked":
            return f"your link was down for {seconds:.0f} s"
        case "refused":
            return f"this host refused a job though it reported room, and was passed over for {seconds:.1f} s"
        case _:
            return f"a job had failed here, and this host was left alone for {seconds:.0f} s"
