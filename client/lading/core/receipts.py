"""What a receipt proves, checked without any network: who signed, for what, and whether its numbers agree.

Pure. Faults are values in words; the caller decides what a fault means.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from lading_protocol.eip712 import Domain
from lading_protocol.errors import BadSignature
from lading_protocol.ids import JobId, Wei, to_hex
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import TIERS, Finish, Receipt, SignedReceipt
from lading_protocol.transcript import commitment

FINISHES: frozenset[int] = frozenset(Finish)


class Checked(msgspec.Struct, frozen=True):
    """`faults` is empty for a receipt that holds. `ids` says whether its tokens were compared too."""

    receipt: Receipt
    faults: tuple[str, ...]
    ids: bool


def check(
    signed: SignedReceipt, domain: Domain, ids: Sequence[int] | None = None, marks: Sequence[bytes] = ()
) -> Checked:
    """`domain` is the audit court's; `ids` are all output tokens of the job, from index 0, and `marks` what came with
    the receipt (transcript.commitment)."""
    receipt, faults = signed.value, []
    try:
        signer = signed.signer(domain)
        if signer != receipt.host:
            faults.append(f"it is not signed by its host {to_hex(receipt.host)}: altered, or of another network")
    except BadSignature as error:
        faults.append(f"its signature is none: {error.message.rstrip('.')}")
    price = Price(Wei(receipt.price_in), Wei(receipt.price_out))
    due = attempt_amount(price, receipt.prompt_tokens, receipt.first, receipt.output_tokens)
    if due != receipt.amount:
        faults.append(f"its tokens and prices make {due} wei, it says {receipt.amount}")
    if receipt.finish not in FINISHES:
        faults.append(f"it ends in an unknown way ({receipt.finish})")
    if receipt.tier >= len(TIERS):
        faults.append(f"it names an unknown isolation tier ({receipt.tier})")
    compared = ids is not None and receipt.output_tokens > 0
    if ids is not None and compared:
        mine = ids[: receipt.first + receipt.output_tokens]
        if not _commits(receipt, mine, marks):
            faults.append("its commitment is not that of the tokens")
    return Checked(receipt, tuple(faults), compared)


def _commits(receipt: Receipt, ids: Sequence[int], marks: Sequence[bytes]) -> bool:
    try:
        return commitment(JobId(receipt.job), ids, receipt.first, marks) == receipt.commitment
    except ValueError:
        return False


def check_job(receipts: Sequence[Receipt], jobs: Sequence[bytes]) -> tuple[str, ...]:
    """Whether receipts can be those of one answer, each token charged once. `jobs` are those that it took, in their
    order: several where it went on at another gateway; none: the one that the receipts name."""
    faults = []
    known = list(jobs) or [receipts[0].job]
    if {receipt.job for receipt in receipts} - set(known):
        return ("the receipts are not all of this job",)
    if len({receipt.request for receipt in receipts}) > 1 or len({receipt.agent for receipt in receipts}) > 1:
        faults.append("the receipts are for different requests or agents")
    ordered = sorted(receipts, key=lambda receipt: (known.index(receipt.job), receipt.attempt))
    for before, after in pairwise(ordered):
        if (after.job, after.attempt) == (before.job, before.attempt):
            faults.append(f"attempt {after.attempt} is charged twice")
        elif after.first < before.first + before.output_tokens:
            faults.append(f"attempts {before.attempt} and {after.attempt} both charge token {after.first}")
    return tuple(faults)
