"""All balances, from the contracts' events alone: what anybody can rebuild without asking a contract anything.

Feed it what a Follower yields. It asks no chain and stores nothing: whoever wants to go on after a restart replays from
the deployment's block, or keeps the events. The one thing that events do not say is in `ledgers.settlement.Range`.
"""

from collections.abc import Callable, Mapping

import msgspec

from lading_contracts import events
from lading_contracts.follower import Progress
from lading_contracts.ledgers.auctions import PromotionLedger, ShareLedger
from lading_contracts.ledgers.courts import CourtLedger
from lading_contracts.ledgers.journal import Amounts, Journal
from lading_contracts.ledgers.leases import LeaseLedger
from lading_contracts.ledgers.settlement import Range, SettlementLedger
from lading_contracts.ledgers.staking import StakingLedger
from lading_protocol.ids import ZERO_ADDRESS, Address

_HOLDERS = ("Settlement", "Staking", "AuditCourt", "LineageCourt", "ShareAuctions", "PromotionAuctions", "Leases")


class Holding(msgspec.Struct, frozen=True):
    """What a contract holds, and what it must hold. It holds more where somebody sent it coins past the verbs."""

    contract: str
    held: int
    owed: int


class Estate(msgspec.Struct, frozen=True):
    """All that belongs to one address, in wei. `at_hosts` is locked in channels and not redeemed; `in_auctions` are
    deposits and best bids; `leased` is what its leases as a tenant hold for it; `sureties` is what its operators may
    set aside for votes."""

    coins: int
    free: int
    at_hosts: Range
    earned: int
    royalties: int
    staked: int
    sureties: int
    in_auctions: int
    leased: int
    unpaid: int


class Books:
    """`contracts` maps each address to its contract's name, as `Deployment.names()` gives it."""

    def __init__(self, contracts: Mapping[Address, str]) -> None:
        self._addresses = {name: address for address, name in contracts.items()}
        self._journal = journal = Journal()
        self.coins: Amounts[Address] = Amounts(journal)
        self.settlement = SettlementLedger(journal)
        self.staking = StakingLedger(journal)
        self.court = CourtLedger(journal)
        self.lineage_court = CourtLedger(journal)
        self.share_auctions = ShareLedger(journal)
        self.promotion_auctions = PromotionLedger(journal)
        self.leases = LeaseLedger(journal)
        self.unpaid: Amounts[tuple[str, Address]] = Amounts(journal)
        """What waits at a contract (by name) for a payee that its coin refused to pay."""

    def apply(self, progress: Progress) -> None:
        """Takes back what the chain took back, then adds what is new."""
        if progress.undo_above is not None:
            self.undo_above(progress.undo_above, start=progress.cursor.start)
        for entry in progress.entries:
            self.note(entry)
        if progress.cursor.marks:
            self._journal.settle(progress.cursor.marks[0].number)

    def undo_above(self, block: int, start: int = 0) -> None:
        """Forgets the events of blocks above `block`; below `start` there are none, so nothing is left."""
        if block < start:
            self._journal.clear()
        else:
            self._journal.undo_above(block)

    def note(self, entry: events.Entry) -> None:
        """One event. Entries come in the chain's order."""
        self._journal.block = entry.block
        for note in self._readers(entry.contract):
            note(entry.event)
        match entry.event:
            case events.Transfer(from_=from_, to=to, value=value) if entry.contract == "AICoin":
                self._move(from_, to, value)
            case events.Unpaid(payee=payee, amount=amount):
                self.unpaid.add((entry.contract, payee), amount)
            case events.UnpaidCollected(payee=payee, amount=amount):
                self.unpaid.add((entry.contract, payee), -amount)
            case events.Voided(id=id_) if entry.contract == "AuditCourt":
                self.staking.voided(id_)
            case _:
                pass

    # --- questions ---

    def holdings(self) -> tuple[Holding, ...]:
        """For each contract that holds coins: its balance by the coin's own events, and the sum of all claims on it."""
        owed = {
            "Settlement": self.settlement.owed(),
            "Staking": self.staking.owed(),
            "AuditCourt": self.court.owed(),
            "LineageCourt": self.lineage_court.owed(),
            "ShareAuctions": self.share_auctions.owed(),
            "PromotionAuctions": self.promotion_auctions.owed(),
            "Leases": self.leases.owed(),
        }
        for (contract, _), amount in self.unpaid.items():
            owed[contract] += amount
        return tuple(Holding(name, self.coins[self._addresses[name]], owed[name]) for name in _HOLDERS)

    def estate(self, who: Address) -> Estate:
        """What belongs to `who`, wherever it lies."""
        return Estate(
            coins=self.coins[who],
            free=self.settlement.accounts[who].free,
            at_hosts=self.settlement.at_hosts(who),
            earned=self.settlement.hosts[who],
            royalties=self.settlement.royalties_of(who),
            staked=self.staking.stakes_of(who),
            sureties=sum(
                court.sureties[operator]
                for court in (self.court, self.lineage_court)
                for operator in self.staking.operators_of(who)
            ),
            in_auctions=self.share_auctions.deposits_of(who) + self.promotion_auctions.deposits_of(who),
            leased=self.leases.held_for(who),
            unpaid=sum(amount for (_, payee), amount in self.unpaid.items() if payee == who),
        )

    # --- inside ---

    def _readers(self, contract: str) -> tuple[Callable[[events.Event], None], ...]:
        match contract:
            case "AgentRegistry":
                return self.settlement.note, self.lineage_court.note
            case "Parameters":
                return self.court.note, self.lineage_court.note, self.promotion_auctions.note
            case "Settlement":
                return (self.settlement.note,)
            case "Staking":
                return (self.staking.note,)
            case "AuditCourt":
                return self.court.note, self.staking.note
            case "LineageCourt":
                return (self.lineage_court.note,)
            case "ShareAuctions":
                return (self.share_auctions.note,)
            case "PromotionAuctions":
                return (self.promotion_auctions.note,)
            case "Leases":
                return (self.leases.note,)
            case _:
                return ()

    def _move(self, from_: Address, to: Address, value: int) -> None:
        if from_ != ZERO_ADDRESS:
            self.coins.add(from_, -value)
        if to != ZERO_ADDRESS:
            self.coins.add(to, value)
