"""When vouchers are worth a transaction. Pure."""

from collections.abc import Sequence

import msgspec

from lading_node.core.channel import Channel, ChannelId, cover
from lading_protocol.ids import TermsId, Wei

BATCH_ROWS = 100


class Policy(msgspec.Struct, frozen=True):
    """Redeem when `threshold` wei have accrued under one table, or the oldest voucher is `max_age` seconds old."""

    threshold: Wei = Wei(10**18)
    max_age: float = 3600.0


class Claim(msgspec.Struct, frozen=True):
    """What the settling side knows of a channel. `since` is when its oldest unredeemed voucher came (Unix seconds)."""

    channel: Channel
    lock: int
    since: float

    @property
    def due(self) -> int:
        """What redeeming now would move, once the lock has landed (wei)."""
        # On a dead channel no lock ever lands: counting on one would try for ever.
        backed = self.channel.locked if self.channel.dead else max(cover(self.channel), self.lock)
        return max(0, min(self.channel.signed, backed) - self.channel.redeemed)

    @property
    def lock_due(self) -> bool:
        """Until a close is finished the chain takes locks, and a payer may close to keep one from landing."""
        return self.lock > self.channel.locked and not self.channel.dead


class Transaction(msgspec.Struct, frozen=True):
    """One batch: rows of one table and epoch. `why` is "" for locks alone."""

    terms: TermsId
    epoch: int
    locks: tuple[ChannelId, ...]
    vouchers: tuple[ChannelId, ...]
    why: str


def plan(claims: Sequence[Claim], policy: Policy, now: float, *, force: str = "") -> list[Transaction]:
    """What to send now, most valuable rows first. `force` gives a reason to redeem everything."""
    groups: dict[tuple[TermsId, int], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.channel.id.terms, claim.channel.id.epoch), []).append(claim)
    planned = []
    for (terms, epoch), group in sorted(groups.items()):
        why = force or _reason(group, policy, now)
        locks = [claim.channel.id for claim in group if claim.lock_due]
        due = sorted((claim for claim in group if why and claim.due), key=lambda claim: -claim.due)
        rows = [claim.channel.id for claim in due]
        for at in range(0, max(len(locks), len(rows)), BATCH_ROWS):
            part = rows[at : at + BATCH_ROWS]
            planned.append(
                Transaction(terms, epoch, tuple(locks[at : at + BATCH_ROWS]), tuple(part), why if part else "")
            )
    return planned


def _reason(group: Sequence[Claim], policy: Policy, now: float) -> str:
    due = [claim for claim in group if claim.due]
    total = sum(claim.due for claim in due)
    if any(claim.channel.closing for claim in due):
        return "a payer closes its channel"
    if total and total >= policy.threshold:
        return f"{total} wei have accrued"
    if due and now - min(claim.since for claim in due) >= policy.max_age:
        return "the oldest voucher is due"
    return ""
