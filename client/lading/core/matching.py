"""Choosing a host: the cheapest that can serve, ties by load, and a reason in words for every one that lost.

Exact over the offers it is given; it knows nothing of where they come from.
"""

from collections.abc import Iterable

import msgspec

from lading_protocol.ids import Address, short
from lading_protocol.messages import EmbedRequest, Request, operation_of
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, attempt_amount, prompt_bound

BEAT_LIMIT = 5.0
# A lock must land before its terms sunset; this many seconds are kept for that.
LANDING_SECONDS = 20


class Candidate(msgspec.Struct, frozen=True):
    """An offer and what is known of its host. `beat_at` is None where nobody reports load (peer to peer).

    `busy` counts this side's own running jobs on the host, which a report may not show yet. `sunset_at` is the second
    from which nothing is locked under the offer's terms; 0: none is announced. `doubted`: spot checks cast suspicion on
    the host, so that it comes after all others that are free.
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


class Want(msgspec.Struct, frozen=True):
    request: Request
    max_price: Price | None = None
    excluded: frozenset[Address] = frozenset()


class Lost(msgspec.Struct, frozen=True):
    host: Address
    code: str
    reason: str

    def __str__(self) -> str:
        return f"host {short(self.host)} {self.reason}"


def output_bound(request: Request) -> int:
    return 0 if isinstance(request, EmbedRequest) else request.max_tokens


def rank(candidates: Iterable[Candidate], want: Want, now: float) -> tuple[list[Candidate], list[Lost]]:
    """Those who can serve, best first, and why the others cannot. Equal inputs give equal orders."""
    able, lost = [], []
    for candidate in candidates:
        if refusal := _refusal(candidate, want, now):
            lost.append(Lost(candidate.offer.host, *refusal))
        else:
            able.append(candidate)
    prompt, output = prompt_bound(want.request), output_bound(want.request)

    def order(candidate: Candidate) -> tuple[bool, bool, int, int, int, bytes]:
        full = candidate.busy + candidate.waiting >= candidate.free + candidate.busy and candidate.free == 0
        cost = attempt_amount(candidate.offer.price, prompt, 0, output)
        load = candidate.busy + candidate.waiting - candidate.free
        return full, candidate.doubted, cost, candidate.failures, load, candidate.offer.host

    return sorted(able, key=order), lost


def _refusal(candidate: Candidate, want: Want, now: float) -> tuple[str, str] | None:
    offer = candidate.offer.offer
    if candidate.offer.host in want.excluded:
        return "tried", "was tried already"
    if candidate.barred:
        return "barred", candidate.barred
    if operation_of(want.request) not in candidate.offer.detail.operations:
        return "operation", f"does not serve {operation_of(want.request)} requests with this agent"
    if offer.expires <= now:
        return "expired", "has only an expired offer"
    if candidate.sunset_at and candidate.sunset_at <= now + LANDING_SECONDS:
        return "terms", "offers it under terms that have sunset, so no payment to it could be locked any more"
    if candidate.beat_at is not None and now - candidate.beat_at > BEAT_LIMIT:
        return "silent", f"was last heard of {now - candidate.beat_at:.0f} s ago"
    if candidate.shunned_until > now:
        return "shunned", f"failed lately and is left alone for {candidate.shunned_until - now:.0f} s"
    cap = want.max_price
    if cap is not None and (offer.price_in > cap.input or offer.price_out > cap.output):
        return "price", "asks more than the price limit"
    return None
