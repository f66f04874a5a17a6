"""What an auditor is paid for a finding. Pure.

A share of what the audited job cost, but no more than the auditor's own price for what it did, which is one prefill
over prompt and answer, and within caps: so that whoever audits a friend's dear job cannot live from it. A canary pays
like any other receipt, by the same numbers, which the auditor sees too.
"""

import msgspec

from lading_protocol.economics import MILLION, SHIPPED
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Receipt


class FeePolicy(msgspec.Struct, frozen=True):
    """`share_ppm` of a job's price, at most `each` for one finding and `epoch` for all in an epoch (wei)."""

    share_ppm: int = SHIPPED.audit_pay_ppm
    each: Wei = Wei(10**16)
    epoch: Wei = Wei(10 * 10**18)


def fee(receipt: Receipt, price: Price, policy: FeePolicy) -> Wei:
    """In wei; `price` is the auditor's own."""
    tokens = receipt.prompt_tokens + receipt.first + receipt.output_tokens
    own = attempt_amount(price, tokens, 0, 0)
    return Wei(min(receipt.amount * policy.share_ppm // MILLION, own, policy.each))


def affords(policy: FeePolicy, spent: int, due: Wei) -> bool:
    """Whether the epoch's budget, of which `spent` is gone, holds this whole fee."""
    return spent + due <= policy.epoch
