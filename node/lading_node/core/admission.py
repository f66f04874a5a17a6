"""Whether to take a job: every check before an engine is asked, each refusal with its own code and words.

Pure. The shell looks the facts up; the order of the checks is that of docs/protocol.md.
"""

import msgspec

from lading_node.core.asked import bias_fault
from lading_node.core.channel import (
    NOTHING_BESIDE,
    Beside,
    Channel,
    admit_to,
    cover,
    is_news,
    lent_cap,
    promise_lock,
    read_lock,
    read_voucher,
    unpaid_cap,
    why,
)
from lading_node.core.proof import Prompt
from lading_protocol import OLDEST, VERSION
from lading_protocol.eip712 import Domain
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Wei
from lading_protocol.messages import ChatRequest, EmbedRequest, Open, Refuse, operation_of
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Lock, SignedLock, SignedVoucher, Voucher

# A lock must land before the session key expires; this many seconds are kept for that.
LANDING_SECONDS = 60
# Far below it logits divided by the temperature overflow, and what an auditor sees would hang on a rounding error.
LEAST_TEMPERATURE = 1e-6


class Account(msgspec.Struct, frozen=True):
    """The paying side on the chain. `free` is what the deposit can still back (wei), `room` what the session's cap
    still allows, `expires` when its key ends (Unix seconds; 0: never).
    """

    payer: Address
    free: Wei
    room: Wei
    expires: int = 0


class Facts(msgspec.Struct, frozen=True):
    """What the shell knows when a stream opens. `offer` is our own current offer with the digest that was asked for.

    `closed` names why we take nothing now ("" when we do). `account` is None when it was not needed or the chain did
    not answer; `chain_error` then says why. `seen`: this attempt of this job has run here before. `stranger`: the peer
    is neither the signer nor the one that brought the channel's papers so far. `beside`: the payer's other channels.
    `proven`: the prompt that the proof of the Open shows to be billed.
    """

    host: Address
    settlement: Domain
    now: float
    offer: KnownOffer | None
    free_slots: int
    channel: Channel
    account: Account | None = None
    chain_error: str = ""
    closed: str = ""
    seen: bool = False
    stranger: bool = False
    beside: Beside = NOTHING_BESIDE
    proven: Prompt | None = None


class Admitted(msgspec.Struct, frozen=True):
    """Papers that were not known before, and the channel with the lock counted in."""

    channel: Channel
    voucher: SignedVoucher | None
    lock: SignedLock | None


def admit(opening: Open, facts: Facts) -> Admitted | Refuse:
    offer = facts.offer
    if not OLDEST <= opening.version <= VERSION:
        spoken = f"versions {OLDEST} to {VERSION}" if OLDEST < VERSION else f"version {VERSION}"
        return Refuse("version", f"This host speaks protocol {spoken}, the request {opening.version}.")
    if offer is None:
        return Refuse("offer_unknown", "This host makes no such offer now. Fetch its current offers.")
    if offer.offer.expires <= facts.now:
        return Refuse("offer_expired", "The offer has expired. Fetch the host's current offers.")
    if facts.closed:
        return Refuse("unavailable", facts.closed, retry_ms=5000)
    if facts.free_slots <= 0:
        return Refuse("busy", f"All {offer.offer.slots} slots of this host are taken.", retry_ms=500)
    if refusal := _check_request(opening, offer, seen=facts.seen):
        return refusal
    if facts.channel.closing:
        return Refuse("channel_closed", "The payer is closing this channel. Open the next epoch.")
    papers = _read_papers(opening, facts)
    if isinstance(papers, Refuse):
        return papers
    return _check_money(opening, facts, offer, papers)


def _check_request(opening: Open, offer: KnownOffer, *, seen: bool) -> Refuse | None:
    request, detail = opening.request, offer.detail
    if operation_of(request) not in detail.operations:
        return Refuse(
            "bad_request", f"This agent does not do {operation_of(request)}; it does {', '.join(detail.operations)}."
        )
    if seen:
        # "busy", not "bad_request": another host must stay free to go on, whoever ran this attempt here.
        return Refuse("busy", f"Attempt {opening.attempt} of this job has run here already.")
    if isinstance(request, EmbedRequest):
        return Refuse("bad_request", "An embedding has no emitted tokens.") if opening.emitted else None
    if isinstance(request, ChatRequest) and 0 < request.sampler.temperature < LEAST_TEMPERATURE:
        return Refuse("bad_request", f"A temperature is 0 or at least {LEAST_TEMPERATURE:g}.")
    if isinstance(request, ChatRequest) and (why := bias_fault(request.sampler.bias)):
        return Refuse("bad_request", why)
    if len(opening.emitted) >= request.max_tokens:
        return Refuse("bad_request", "The answer has reached max_tokens already.")
    if request.max_tokens >= detail.context:
        return Refuse(
            "too_long", f"max_tokens is {request.max_tokens}; prompt and answer together have {detail.context} tokens."
        )
    return None


def _read_papers(opening: Open, facts: Facts) -> tuple[SignedVoucher | None, SignedLock | None] | Refuse:
    channel, voucher, lock = facts.channel, None, None
    try:
        if opening.voucher and is_news(Voucher, opening.voucher, channel.signed):
            voucher = read_voucher(opening.voucher, channel.id, facts.host, facts.settlement)
        if opening.lock and is_news(Lock, opening.lock, cover(channel)):
            lock = read_lock(opening.lock, channel.id, facts.host, facts.settlement)
    except LadingError as error:
        return Refuse("bad_voucher", why(error))
    return voucher, lock


def _check_money(
    opening: Open, facts: Facts, offer: KnownOffer, papers: tuple[SignedVoucher | None, SignedLock | None]
) -> Admitted | Refuse:
    voucher, lock = papers
    channel = facts.channel
    public = lock is None and (voucher is None or voucher.value.cumulative <= channel.redeemed)
    if facts.stranger and public and (offer.price.input or offer.price.output):
        # Channels and redeemed papers are public: only a paper that nobody saw before speaks for the signer.
        return Refuse("bad_voucher", "This link has not shown that the channel's signer pays for it. Send a new paper.")
    if lock is not None:
        if refusal := _check_lock(lock.value.cumulative, facts):
            return refusal
        channel = promise_lock(channel, Wei(lock.value.cumulative))
    signed = max(channel.signed, voucher.value.cumulative if voucher else 0)
    left = 0 if isinstance(opening.request, EmbedRequest) else opening.request.max_tokens - len(opening.emitted)
    first = len(opening.emitted)
    least = attempt_amount(offer.price, 1, first, min(left, offer.detail.credit))
    if refusal := check_cover(channel, Wei(signed), least):
        if facts.account is None and facts.chain_error:
            return _chain_down(facts)
        return refusal
    owing = facts.beside.written + max(0, channel.written - (signed - channel.signed))
    if owing > (cap := unpaid_cap(channel, offer.price, facts.beside)):
        return Refuse("unpaid", f"Work for this payer worth {owing} wei was never paid; at most {cap} wei may be.")
    if opening.emitted and facts.proven is None and (refusal := check_lent(channel, offer.price, facts.beside)):
        return refusal
    return Admitted(admit_to(channel, Wei(signed)), voucher, lock)


def check_lent(channel: Channel, price: Price, beside: Beside = NOTHING_BESIDE) -> Refuse | None:
    """Whether the payer may have one more prompt of which nothing shows that it is billed."""
    lent, cap = channel.lent + beside.lent, lent_cap(channel, price, beside)
    if lent <= cap:
        return None
    return Refuse(
        "unproven",
        f"Prompts worth {lent} wei were read here for answers that are said to have begun elsewhere; at most "
        f"{cap} wei may be without the receipt of the host where they began. Send it, or begin answers here, too.",
    )


def check_cover(channel: Channel, signed: Wei, more: Wei) -> Refuse | None:
    """Whether the channel can take `more` on top of what is signed for."""
    missing = signed + more - cover(channel)
    if missing <= 0:
        return None
    return Refuse("no_funds", f"The channel is {missing} wei short of what this work may cost. Lock more.")


def _check_lock(cumulative: int, facts: Facts) -> Refuse | None:
    account = facts.account
    if account is None:
        return _chain_down(facts)
    more = cumulative - facts.channel.locked
    if account.expires and account.expires <= facts.now + LANDING_SECONDS:
        return Refuse("no_funds", "The session key has expired, or will before its lock can land. Authorize it again.")
    if more > account.room:
        return Refuse("no_funds", f"The lock goes {more - account.room} wei over the session key's cap.")
    if more > account.free:
        return Refuse("no_funds", f"The payer's free deposit is {more - account.free} wei short of the lock.")
    return None


def _chain_down(facts: Facts) -> Refuse:
    why = facts.chain_error or "it does not answer."
    return Refuse("chain_down", f"This host cannot look at the chain now: {why}", retry_ms=5000)
