"""A receipt held against all that its payer knows of the attempt: it must say just that, and be its host's."""

from struct import Struct
from typing import Final

from lading_protocol.eip712 import Domain, check_packed
from lading_protocol.errors import LadingError
from lading_protocol.ids import MAX_U96, Digest, Wei
from lading_protocol.jobstate import RUNNING, Attempt, JobState
from lading_protocol.messages import Chunk, Done, request_hash
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import TIERS, Receipt
from lading_protocol.transcript import CHUNK_TOKENS, commitment, merkle_root, vectors_leaf

CLOCK_SKEW: Final = 120.0
LIED: Final = "host_lied"
BARE: Final = 32 * len(Receipt.__struct_fields__)
# The two words of a receipt that its host alone knows stand side by side.
_TOLD_AT: Final = 32 * Receipt.__struct_fields__.index("finish")
# All words of a receipt. An amount is two numbers, of 4 and of 8 bytes.
_pack: Final = Struct(
    ">32s28xI32s32s32s12x20s12x20s28xI28xI28xI28xI32s32s20xIQ20xIQ20xIQ31xB24xQ31xB",
).pack
_LOW: Final = 2**64 - 1
_told: Final = Struct(">31xB24xQ").unpack_from
Claim = tuple[int, tuple[bytes, ...]]  # how the host says that the attempt ended, and the marks of all chunks


def lied(reason: str) -> LadingError:
    """The host contradicts itself or the protocol."""
    return LadingError(reason, code=LIED)


def price_of(state: JobState, attempt: Attempt) -> Wei:
    """What a receipt over the attempt must say."""
    accepted = attempt.accepted
    if accepted is None or not (attempt.count or state.vectors):
        return Wei(0)
    return attempt_amount(attempt.price, accepted.prompt_tokens, attempt.first, attempt.count)


def check_receipt(state: JobState, attempt: Attempt, event: Chunk | Done, domain: Domain, now: float) -> Claim:
    """What the receipt says that its payer did not know, once all else is as it must be. Raises LadingError.

    A bare one has no signature yet: the shell waits for it.
    """
    packed, marks = event.receipt, _marks(attempt, event.marks)
    if attempt.accepted is None:
        raise lied("The host signed for an attempt that it never accepted.")
    if len(packed) < BARE:
        raise lied(f"A receipt is cut short ({len(packed)} bytes).")
    finish: int
    finish, issued_at = _told(packed, _TOLD_AT)
    if abs(issued_at - now) > CLOCK_SKEW:
        # A receipt from long ago could no longer be disputed, one from the future not yet.
        raise lied(f"The receipt is dated {issued_at - now:+.0f} s from now.")
    words = _words(state, attempt, _commitment(state, attempt, marks), finish, issued_at)
    if not packed.startswith(words):
        fields = enumerate(Receipt.__struct_fields__)
        wrong = [name for at, name in fields if packed[32 * at : 32 * at + 32] != words[32 * at : 32 * at + 32]]
        raise lied(f"The receipt is wrong in: {', '.join(wrong)}.")
    if len(packed) > BARE or not attempt.bare or finish == RUNNING:
        check_packed(Receipt, packed, domain, attempt.offer.host)
    return finish, marks


def _words(state: JobState, attempt: Attempt, root: Digest, finish: int, issued_at: int) -> bytes:
    """What the host has to say of its attempt: Receipt.words, field by field, without the Receipt."""
    accepted, spec, offer, amount = attempt.accepted, state.spec, attempt.offer.offer, price_of(state, attempt)
    assert accepted is not None
    if amount > MAX_U96:
        raise lied("The host's price is more than a receipt can say.")
    if not state.asked:
        state.asked = request_hash(spec.request)
    price = attempt.price
    return _pack(
        spec.job,
        attempt.number,
        state.asked,
        offer.agent,
        offer.terms,
        offer.host,
        spec.signer,
        attempt.epoch,
        attempt.first,
        accepted.prompt_tokens,
        attempt.count,
        accepted.prompt_hash,
        root,
        price.input >> 64,
        price.input & _LOW,
        price.output >> 64,
        price.output & _LOW,
        amount >> 64,
        amount & _LOW,
        finish,
        issued_at,
        TIERS.index(attempt.offer.detail.tier),
    )


def _commitment(state: JobState, attempt: Attempt, marks: tuple[bytes, ...]) -> Digest:
    job = state.spec.job
    if state.streamed is not None:
        return commitment(job, state.emitted, attempt.first, marks)
    return merkle_root([vectors_leaf(job, state.vectors)] if state.vectors else [])


def _marks(attempt: Attempt, added: bytes) -> tuple[bytes, ...]:
    """Those of all chunks so far, of which `added` is what the last receipt did not have (messages.Chunk)."""
    if not added and not attempt.marks:
        return ()
    kept = attempt.marks[: 1 + attempt.signed // CHUNK_TOKENS] if attempt.signed else ()
    marks = (*kept, *[added[at : at + 32] for at in range(0, len(added), 32)])
    due = 1 + -(-attempt.count // CHUNK_TOKENS) if attempt.count else 0
    if len(added) % 32 or (marks and len(marks) != due):
        raise lied(f"The host sent {len(added)} bytes of marks for a receipt over {attempt.count} tokens.")
    return marks
