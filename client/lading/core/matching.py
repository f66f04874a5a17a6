"""What makes one offer better than another, and in words why an offer cannot serve a request.

`rank` is the definition: it looks at every candidate. lading.core.index finds the same first one without doing so.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from lading_protocol.audit import assurance
from lading_protocol.ids import Address, short
from lading_protocol.messages import EmbedRequest, Request, operation_of
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, prompt_bound

BEAT_LIMIT: Final = 5.0
# A lock must land before its terms sunset; this many seconds are kept for that.
LANDING_SECONDS: Final = 20
# What a score is multiplied by, per thousand: in the same region, on the same continent, farther away or unknown.
FAR: Final = (1000, 1020, 1050)
# A host's score is (this + its failures in a row) / this of its price.
TRUST: Final = 4
# How well a host stands: in a better grade it is chosen before all of a worse one, whatever they cost.
# YIELDING are full hosts that would stop a batch job of ours for an interactive one.
READY, DOUBTED, YIELDING, FULL, FULL_DOUBTED, OUT = range(6)
GRADES: Final = (READY, DOUBTED, YIELDING, FULL, FULL_DOUBTED)
RUSHED: Final = (YIELDING, READY, DOUBTED, FULL, FULL_DOUBTED)
IDLE: Final = (READY, DOUBTED)
# So many hosts that a job tried in vain make it rushed.
RUSH: Final = 2
# Offers whose score is within this many tenths of the best one are near-ties: time decides among them, and price.
BAND: Final = 13


class Filters(msgspec.Struct, frozen=True):
    """What a consumer insists on. Empty: no matter.

    `near` is where it is, so that near hosts come first; `region` admits only hosts in there ("eu" holds "eu-de").
    `assurance` are the levels of lading_protocol.audit that will do.
    """

    tiers: frozenset[str] = frozenset()
    region: str = ""
    near: str = ""
    assurance: frozenset[str] = frozenset()


ANYWHERE: Final = Filters()
NOBODY: Final[frozenset[Address]] = frozenset()


class Candidate(msgspec.Struct, frozen=True):
    """An offer and what is known of its host. `beat_at` is None where nobody reports load (peer to peer).

    `free` slots are left after the jobs that we sent since the last report. `busy` counts this side's own running jobs.
    `sunset_at` is the second from which nothing is locked under the offer's terms; 0: none is announced. `doubted`:
    spot checks cast suspicion on the host, so that it comes after all others that are free. `region` is where the
    index files the offer, None: where the offer says. `yields`: it has batch jobs of ours that may give way.
    """

    offer: KnownOffer
    free: int = 1
    waiting: int = 0
    beat_at: float | None = None
    busy: int = 0
    failures: int = 0
    shunned_until: float = 0.0
    barred: str = ""
    sunset_at: int = 0
    doubted: bool = False
    region: str | None = None
    yields: bool = False


class Want:
    """What is asked of a host. `emitted` output tokens are there already: they, and the prompt, are not paid for again.
    `idle`: no host will do that reported no free slot. `rush`: free slots were gone before it came, so that it rather
    clears one.

    Each choice makes one, and an Aim of it: what is no Struct is read at once where it is compiled.
    """

    __slots__ = ("emitted", "excluded", "filters", "idle", "max_price", "request", "rush")

    def __init__(
        self,
        request: Request,
        max_price: Price | None = None,
        excluded: frozenset[Address] = NOBODY,
        filters: Filters = ANYWHERE,
        emitted: int = 0,
        idle: bool = False,
        rush: bool = False,
    ) -> None:
        self.request: Final = request
        self.max_price: Final = max_price
        self.excluded: Final = excluded
        self.filters: Final = filters
        self.emitted: Final = emitted
        self.idle: Final = idle
        self.rush: Final = rush


class Aim:
    """What of a Want decides: the most tokens that will be paid for, and what must hold. `length` is the whole answer.

    `size` is the prompt's in bytes, paid for or not: the host reads it in any case.
    """

    __slots__ = ("cap", "excluded", "filters", "length", "operation", "output", "prompt", "size")

    def __init__(
        self,
        prompt: int,
        output: int,
        length: int,
        size: int,
        operation: str,
        cap: Price | None,
        excluded: frozenset[Address],
        filters: Filters,
    ) -> None:
        self.prompt: Final = prompt
        self.output: Final = output
        self.length: Final = length
        self.size: Final = size
        self.operation: Final = operation
        self.cap: Final = cap
        self.excluded: Final = excluded
        self.filters: Final = filters


class Lost(msgspec.Struct, frozen=True):
    host: Address
    code: str
    reason: str

    def __str__(self) -> str:
        return f"host {short(self.host)} {self.reason}"


def output_bound(request: Request) -> int:
    return 0 if type(request) is EmbedRequest else request.max_tokens


def aim_of(want: Want) -> Aim:
    request, emitted = want.request, want.emitted
    size, length = prompt_bound(request), output_bound(request)
    prompt, output = (0, max(length - emitted, 1)) if emitted else (size, length)
    return Aim(prompt, output, length, size, operation_of(request), want.max_price, want.excluded, want.filters)


def distance(one: str, other: str) -> int:
    """0 in the same region, 1 on the same continent, 2 farther away or unknown: a step of FAR.

    A region's name goes from the large to the small, joined by "-": "eu", "eu-de", "us-east-1".
    """
    if one == other or not one or not other:
        return 0 if one == other or not one else 2
    return 1 if one.partition("-")[0] == other.partition("-")[0] else 2


def within(region: str, wanted: str) -> bool:
    return region == wanted or region.startswith(wanted + "-")


def score(price: Price, aim: Aim, failures: int, steps: int) -> int:
    """What an offer costs, weighed by failures and distance; exact, in units that only compare."""
    return (price.input * aim.prompt + price.output * aim.output) * (TRUST + failures) * FAR[steps]


def grade(candidate: Candidate) -> int:
    return grade_of(candidate.free, doubted=candidate.doubted, yields=candidate.yields)


def grades_of(want: Want) -> tuple[int, ...]:
    """Which grades will do, in which order."""
    return IDLE if want.idle else RUSHED if want.rush else GRADES


def grade_of(room: int, *, doubted: bool, yields: bool) -> int:
    if room > 0:
        return DOUBTED if doubted else READY
    if doubted:
        return FULL_DOUBTED
    return YIELDING if yields else FULL


def rank(candidates: Iterable[Candidate], want: Want, now: float) -> tuple[list[Candidate], list[Lost]]:
    """Those who can serve, best first, and why the others cannot. Equal inputs give equal orders."""
    able, lost = [], []
    aim, grades = aim_of(want), grades_of(want)
    for candidate in candidates:
        if refusal := refusal_of(candidate, aim, now):
            lost.append(Lost(candidate.offer.host, *refusal))
        elif grade(candidate) in grades:
            able.append(candidate)

    def order(candidate: Candidate) -> tuple[int, int, bytes, bytes]:
        steps = distance(aim.filters.near, region_of(candidate))
        cost = score(candidate.offer.price, aim, candidate.failures, steps)
        return grades.index(grade(candidate)), cost, candidate.offer.host, candidate.offer.terms

    return sorted(able, key=order), lost


def region_of(candidate: Candidate) -> str:
    return candidate.offer.detail.region if candidate.region is None else candidate.region


def refusal_of(candidate: Candidate, aim: Aim, now: float) -> tuple[str, str] | None:
    """A code and a sentence's end, or None for one that can serve."""
    offer = candidate.offer.offer
    if candidate.offer.host in aim.excluded:
        return "tried", "was tried already"
    if candidate.barred:
        return "barred", candidate.barred
    if unfit := unfit_for(candidate.offer, region_of(candidate), aim):
        return unfit
    if offer.expires <= now:
        return "expired", "has only an expired offer"
    if candidate.sunset_at and candidate.sunset_at - LANDING_SECONDS <= now:
        return "terms", "offers it under terms that have sunset, so no payment to it could be locked any more"
    if candidate.beat_at is not None and now > candidate.beat_at + BEAT_LIMIT:
        return "silent", f"was last heard of {now - candidate.beat_at:.0f} s ago"
    if candidate.shunned_until > now:
        return "shunned", f"failed lately and is left alone for {candidate.shunned_until - now:.0f} s"
    return None


def unfit_for(known: KnownOffer, region: str, aim: Aim) -> tuple[str, str] | None:
    """Why an offer, whatever its host does at the moment, is none for this request."""
    detail, filters, cap = known.detail, aim.filters, aim.cap
    if filters.tiers and detail.tier not in filters.tiers:
        return (
            "tier",
            f"isolates agents by tier {detail.tier or 'none'}; wanted is {' or '.join(sorted(filters.tiers))}",
        )
    if filters.region and not within(region, filters.region):
        return "region", f"is in {region or 'no known region'}; wanted is {filters.region}"
    if filters.assurance and assurance(detail.numeric) not in filters.assurance:
        wanted = " or ".join(sorted(filters.assurance))
        return "assurance", f"gives answers that are {assurance(detail.numeric)}; wanted is {wanted}"
    if aim.operation not in detail.operations:
        return "operation", f"does not serve {aim.operation} requests with this agent"
    if aim.length >= detail.context and aim.length:
        return "context", f"has room for {detail.context} tokens, and the answer alone may take {aim.length}"
    if cap is not None and (known.offer.price_in > cap.input or known.offer.price_out > cap.output):
        return "price", "asks more than the price limit"
    return None
