"""A payment channel as its host sees it: what was earned, what is signed for, what stands behind the signatures.

Pure. One channel is shared by every job that the same signer runs here under the same terms. The rule it keeps is:
earned - signed <= written + the allowances of the running jobs, and `written` is bounded before a new job may start.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from lading_protocol.eip712 import Domain, read_field, unpack
from lading_protocol.errors import BadSignature, LadingError
from lading_protocol.ids import Address, JobId, TermsId, Wei
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Lock, SignedLock, SignedVoucher, Voucher

# What a payer may leave unpaid over all its broken attempts before it is refused: work worth this many tokens, and
# a fiftieth of all that it ever paid, so that a long and good acquaintance survives a bad line.
UNPAID_PROMPT_TOKENS = 4096
UNPAID_OUTPUT_TOKENS = 512
UNPAID_SHARE = 50
# And a quarter of it in prompts of answers that are said to have begun elsewhere, without the receipt that shows it.
UNPROVEN_SHARE = 4


P = TypeVar("P", SignedVoucher, SignedLock)


class ChannelId(msgspec.Struct, frozen=True):
    """The host is this node."""

    signer: Address
    terms: TermsId
    epoch: int


class Running(msgspec.Struct, frozen=True):
    """An attempt that may still be paid. It may earn `allowance` ahead of payment, and has earned `amount` in all."""

    job: JobId
    attempt: int
    allowance: Wei
    amount: Wei = Wei(0)


class Channel(msgspec.Struct, frozen=True):
    """All in wei, cumulative over the channel's life, running attempts included in `earned`.

    `locked`, `redeemed`, `closing` and `dead` (closed for good) are as last seen on the chain; `pending` is what an
    accepted lock will bring `locked` up to.
    `signed` is the highest voucher that is durable here. `written` is what ended attempts were not paid for. `lent` is
    what the prompts of resumed attempts are worth since this node started, which another host is said to have billed,
    and no receipt shows it.
    """

    id: ChannelId
    locked: Wei = Wei(0)
    redeemed: Wei = Wei(0)
    pending: Wei = Wei(0)
    closing: bool = False
    dead: bool = False
    signed: Wei = Wei(0)
    earned: Wei = Wei(0)
    written: Wei = Wei(0)
    lent: Wei = Wei(0)
    running: tuple[Running, ...] = ()


class Beside(msgspec.Struct, frozen=True):
    """What all other channels of the same payer come to here (wei), but those that are closed for good: names are free,
    and trust in a payer is not given to each of them."""

    signed: Wei = Wei(0)
    written: Wei = Wei(0)
    lent: Wei = Wei(0)


NOTHING_BESIDE = Beside()


def beside(others: Iterable[Channel]) -> Beside:
    signed = written = lent = 0
    for one in others:
        if not one.dead:
            signed, written, lent = signed + one.signed, written + one.written, lent + one.lent
    return Beside(Wei(signed), Wei(written), Wei(lent))


def cover(channel: Channel) -> Wei:
    """What can be redeemed from this channel in all, once its accepted lock has landed."""
    return max(channel.locked, channel.pending)


def paid(channel: Channel) -> Wei:
    """What is signed for and covered."""
    return min(channel.signed, cover(channel))


def allowances(channel: Channel) -> Wei:
    return Wei(sum(one.allowance for one in channel.running))


def headroom(channel: Channel) -> int:
    """How much more may be earned before the next voucher; negative when the bound is overrun."""
    return paid(channel) + channel.written + allowances(channel) - channel.earned


def outstanding(channel: Channel) -> Wei:
    """What was earned and not yet signed for."""
    return Wei(max(0, channel.earned - channel.signed))


def unpaid_cap(channel: Channel, price: Price, beside: Beside = NOTHING_BESIDE) -> Wei:
    """How much of ended attempts may stay unpaid, over all channels of a payer, before it is refused."""
    known = attempt_amount(price, UNPAID_PROMPT_TOKENS, 0, UNPAID_OUTPUT_TOKENS)
    return Wei(known + (channel.signed + beside.signed) // UNPAID_SHARE)


def lend(channel: Channel, prompt: Wei) -> Channel:
    """A prompt worth that much is read for an answer that is only said to have begun elsewhere."""
    return msgspec.structs.replace(channel, lent=Wei(channel.lent + prompt))


def lent_cap(channel: Channel, price: Price, beside: Beside = NOTHING_BESIDE) -> Wei:
    """How much of such prompts a payer may have before its next one is refused.

    Without the first host's receipt (core.proof) it is the payer's word alone that there is a first token: whoever
    guesses it has the prompt read for nothing. An honest payer lacks that receipt only of answers that were lost within
    their first tokens, or with whoever had it; it comes to this where a fifth of what it brings are such.
    """
    paid = (channel.signed + beside.signed) // UNPROVEN_SHARE
    return Wei(attempt_amount(price, UNPAID_PROMPT_TOKENS, 0, 0) + paid)


def restored(channel: Channel) -> Channel:
    """As read from the ledger after a restart: nothing runs, and what is unpaid is written off against the cap.

    A crash may have lost the last tokens' account, never a voucher, so what is signed was earned.
    """
    earned = Wei(max(channel.earned, channel.signed))
    return msgspec.structs.replace(channel, earned=earned, written=Wei(earned - channel.signed), running=())


def begin(channel: Channel, running: Running) -> Channel:
    return msgspec.structs.replace(channel, running=(*channel.running, running))


def earn(channel: Channel, job: JobId, attempt: int, amount: Wei) -> Channel:
    """The attempt's amount is now `amount`. Raises ValueError when it would fall or the attempt does not run."""
    for at, one in enumerate(channel.running):
        if (one.job, one.attempt) == (job, attempt):
            more = amount - one.amount
            if more < 0:
                raise ValueError("an attempt's amount never falls")
            raised = msgspec.structs.replace(one, amount=amount)
            return msgspec.structs.replace(
                channel,
                earned=Wei(channel.earned + more),
                running=(*channel.running[:at], raised, *channel.running[at + 1 :]),
            )
    raise ValueError("this attempt does not run on the channel")


def end(channel: Channel, job: JobId, attempt: int) -> Channel:
    """The payer has had its last word on the attempt. What nobody else's allowance explains is written off."""
    rest = tuple(one for one in channel.running if (one.job, one.attempt) != (job, attempt))
    expected = sum(min(one.amount, one.allowance) for one in rest)
    overdue = max(0, outstanding(channel) - channel.written - expected)
    return msgspec.structs.replace(channel, running=rest, written=Wei(channel.written + overdue))


def sign_for(channel: Channel, cumulative: Wei) -> Channel:
    """A voucher over `cumulative` is durable. A lower or equal one changes nothing."""
    if cumulative <= channel.signed:
        return channel
    raised = msgspec.structs.replace(channel, signed=cumulative)
    return msgspec.structs.replace(raised, written=min(channel.written, outstanding(raised)))


def receive(channel: Channel, amount: Wei) -> Channel:
    """`amount` of what is signed for pays for something else than jobs, and was earned with it."""
    return msgspec.structs.replace(channel, earned=Wei(channel.earned + amount))


def admit_to(channel: Channel, cumulative: Wei) -> Channel:
    """The payer says that it owes `cumulative` while nothing runs: believe it where our own account is lower.

    Vouchers are for delivered work, so a higher one means that a crash lost the account of some.
    """
    if channel.running or cumulative <= channel.earned:
        return channel
    return msgspec.structs.replace(channel, earned=cumulative)


def promise_lock(channel: Channel, cumulative: Wei) -> Channel:
    """An accepted lock will bring `locked` up to `cumulative`."""
    return msgspec.structs.replace(channel, pending=max(channel.pending, cumulative))


def see_chain(channel: Channel, locked: Wei, redeemed: Wei, closing: bool, dead: bool = False) -> Channel:
    """Facts read from the chain."""
    pending = channel.pending if channel.pending > locked and not dead else Wei(0)
    seen = msgspec.structs.replace(channel, locked=locked, redeemed=redeemed, pending=pending)
    return msgspec.structs.replace(seen, closing=closing or dead, dead=dead)


def lose_lock(channel: Channel) -> Channel:
    """The chain refused the pending lock; it counts no longer."""
    return msgspec.structs.replace(channel, pending=Wei(0))


def read_voucher(packed: bytes, id: ChannelId, host: Address, domain: Domain) -> SignedVoucher:
    """A voucher of exactly this channel. Raises BadMessage or BadSignature in words a payer understands."""
    return _of_channel(unpack(Voucher, packed), id, host, domain)


def read_lock(packed: bytes, id: ChannelId, host: Address, domain: Domain) -> SignedLock:
    """A lock of exactly this channel. Raises BadMessage or BadSignature."""
    return _of_channel(unpack(Lock, packed), id, host, domain)


def is_news(kind: type[Voucher | Lock], packed: bytes, known: Wei) -> bool:
    """Whether a packed paper is over more than `known`. One that is not changes nothing, so its signature need not be
    looked at: payers send the last one with every job. Raises BadMessage."""
    cumulative: int = read_field(kind, packed, "cumulative")
    return cumulative > known


def _of_channel(paper: P, id: ChannelId, host: Address, domain: Domain) -> P:
    value = paper.value
    name = type(value).__name__.lower()
    if value.host != host:
        raise BadSignature(f"The {name} names another host, 0x{value.host.hex()}.")
    if (value.terms, value.epoch) != (id.terms, id.epoch):
        raise BadSignature(f"The {name} is for other terms or another epoch of the channel.")
    paper.check(domain, id.signer)
    return paper


def why(error: LadingError) -> str:
    """One sentence for a refusal."""
    return f"{error.message} {error.hint}".strip()
