"""Pays auditors: a voucher on this coordinator's own channel with each, when a finding has shown what was sealed.

Owns the rows of what was paid and the epoch's budget. Signs before it sends, so that a crash pays once at most. Whether
a finding counts is decided elsewhere; what it was about (a receipt, or a canary) is not known here.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from lading.dispatch import Purse
from lading.dispatch.purse import ChannelKey
from lading_contracts import settlement
from lading_coordinator.core.fees import FeePolicy, affords, fee
from lading_coordinator.metrics import Metrics
from lading_coordinator.store import Store
from lading_net.ports import Link
from lading_net.speech import agreed_with
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Wei, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Fee
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Receipt
from lading_protocol.speech import AUDIT_FEE

log = logging.getLogger(__name__)
# A lock is for so many fees, where the deposit allows it: each new one costs the auditor a look at the chain.
FEES_AHEAD = 64


class Till(msgspec.Struct, frozen=True):
    """Out of what is paid: `key` signs for its own deposit."""

    key: PrivateKey
    purse: Purse
    settlement: settlement.Settlement
    store: Store


class Fees:
    """`clock` gives Unix seconds; the budget is for `epoch` seconds."""

    def __init__(
        self, till: Till, policy: FeePolicy, metrics: Metrics, clock: Callable[[], float], epoch: float = 86_400.0
    ) -> None:
        self._till = till
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._epoch = epoch
        self._spent: tuple[int, int] = (-1, 0)
        self._speaks: dict[Link, bool] = {}
        self._said = ""
        self._turn = asyncio.Lock()

    async def pay(self, link: Link, auditor: KnownOffer, leaf: bytes, receipt: Receipt) -> Fee | None:
        """What to hand over for a finding about `leaf`; None where nothing is due or can be paid, which is counted and
        logged, and stops no audit."""
        if not self._policy.share_ppm:
            return None
        try:
            outcome: Fee | str = "an auditor's program takes no fee yet"
            if await self._takes(link):  # before its turn: who is slow to say so keeps nobody else waiting
                async with self._turn:
                    outcome = await self._pay(auditor, leaf, receipt)
        except LadingError as error:
            outcome = str(error)
        if isinstance(outcome, Fee):
            self._metrics.audit_fees.labels("paid").inc()
            return outcome
        if outcome:
            self._metrics.audit_fees.labels("unpaid").inc()
            self._say(outcome)
        return None

    async def _pay(self, auditor: KnownOffer, leaf: bytes, receipt: Receipt) -> Fee | str:
        """The paper, or why there is none ("": none is due)."""
        till, host = self._till, auditor.offer.host
        if till.store.row("select 1 from audit_fees where leaf=? and auditor=?", (leaf, host)) is not None:
            return ""
        due = fee(receipt, auditor.price, self._policy)
        if not due:
            return ""
        if not affords(self._policy, self.spent(), due):
            return "the epoch's budget is used up (coordinator.audit_pay_epoch)"
        signer = till.key.address
        key = till.purse.current(signer, host, auditor.terms)
        lock = await self._locked(key, due)
        if lock is None:
            return f"the deposit of {to_hex(signer)} does not cover a fee: deposit coins from that account"
        now = self._clock()
        row = (leaf, host, str(due), now)
        till.store.write([("insert into audit_fees values (?,?,?,?)", row)])
        self._spent = (self._now(), self.spent() + due)
        self._metrics.audit_fees_wei.inc(due)
        return Fee(till.purse.pay(till.key, key, due), lock)

    async def _locked(self, key: ChannelKey, due: Wei) -> bytes | None:
        """The packed lock that covers one more fee on the channel; None when the deposit does not."""
        till = self._till
        held = till.purse.channel(key)
        target = held.cumulative + due
        if target <= held.locked:
            return held.lock
        account = await till.settlement.account(key.signer)
        # Locks that have not landed are in the free deposit still: they are counted as if none had.
        room = held.locked + max(account.free - account.exit_amount, 0) - await self._unlanded(key.signer)
        if target > room:
            return None
        return till.purse.lock(till.key, key, min(room, target + FEES_AHEAD * due))

    async def _unlanded(self, signer: Address) -> int:
        """What has been locked in papers and not on the chain."""
        purse = self._till.purse
        used = [(key, purse.epoch(signer, key.host, key.terms)) for key, _ in purse.channels(signer)]
        mine = [(key, purse.channel(key)) for key, epoch in used if key.epoch == epoch]
        seen = await asyncio.gather(*(self._till.settlement.channel(_on_chain(key)) for key, _ in mine))
        return sum(max(one.locked - landed.locked, 0) for (_, one), landed in zip(mine, seen, strict=True))

    def spent(self) -> int:
        """In the epoch that runs (wei)."""
        epoch = self._now()
        if self._spent[0] != epoch:
            rows = self._till.store.rows("select amount from audit_fees where at >= ?", (epoch * self._epoch,))
            self._spent = (epoch, sum(int(amount) for (amount,) in rows))
        return self._spent[1]

    def _now(self) -> int:
        return int(self._clock() // self._epoch)

    async def _takes(self, link: Link) -> bool:
        if link not in self._speaks:
            self._speaks = {one: takes for one, takes in self._speaks.items() if not one.closed.is_set()}
            self._speaks[link] = AUDIT_FEE in (await agreed_with(link)).features
        return self._speaks[link]

    def _say(self, why: str) -> None:
        if why != self._said:
            log.warning("An auditor was not paid: %s", why)
        self._said = why


def paid_since(store: Store, since: float) -> dict[Address, Wei]:
    """What each auditor was paid since then (Unix seconds)."""
    paid: dict[Address, Wei] = {}
    for auditor, amount in store.rows("select auditor, amount from audit_fees where at >= ?", (since,)):
        paid[Address(auditor)] = Wei(paid.get(Address(auditor), 0) + int(amount))
    return paid


def _on_chain(key: ChannelKey) -> settlement.ChannelKey:
    return settlement.ChannelKey(key.signer, key.host, key.terms, key.epoch)
