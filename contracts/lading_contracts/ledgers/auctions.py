"""Share and promotion auctions: who sealed what, which deposits and bids are held, who won."""

import msgspec
from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.ledgers.journal import Amounts, Journal, Ledger
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, AgentId, Digest, TermsId

Slot = tuple[int, int]
"""(epoch, slot)."""


class ShareRecord(msgspec.Struct, frozen=True):
    """A share auction. `sealed` and `opened` count bids; `terms` is zero until it is settled."""

    agent: AgentId = AgentId(ZERO_DIGEST)
    epoch: int = 0
    role: int = 0
    seats: int = 0
    reserve_bps: int = 0
    deposit: int = 0
    sealed: int = 0
    opened: int = 0
    over: bool = False
    terms: TermsId = TermsId(ZERO_DIGEST)
    clearing_bps: int = 0
    winners: tuple[Address, ...] = ()

    @property
    def held(self) -> int:
        """Deposits of bids that stayed sealed so far."""
        return 0 if self.over else self.deposit * (self.sealed - self.opened)


class PromotionRecord(msgspec.Struct, frozen=True):
    """One slot of one epoch. `best` is the bid that is held; `price` is set when it is settled."""

    deposit: int = 0
    reserve: int = 0
    sealed: int = 0
    opened: int = 0
    winner: Address = ZERO_ADDRESS
    agent: AgentId = AgentId(ZERO_DIGEST)
    best: int = 0
    best_order: int = 0
    settled: bool = False
    price: int = 0

    @property
    def held(self) -> int:
        return 0 if self.settled else self.deposit * (self.sealed - self.opened) + self.best


class ShareLedger:
    def __init__(self, journal: Journal) -> None:
        self.auctions: Ledger[Digest, ShareRecord] = Ledger(journal, ShareRecord())
        self.deposits: Amounts[tuple[Digest, Address]] = Amounts(journal)
        """By auction and bidder, while the bid is sealed; forfeited if it is so at the end."""

    def note(self, event: events.Event) -> None:
        match event:
            case events.AuctionOpened():
                self.auctions[event.id] = ShareRecord(
                    agent=event.agent,
                    epoch=event.epoch,
                    role=event.role,
                    seats=event.seats,
                    reserve_bps=event.reserve_bps,
                    deposit=event.deposit,
                )
            case events.ShareSealed(id=id_, bidder=bidder):
                found = self.auctions[id_]
                self.auctions[id_] = replace(found, sealed=found.sealed + 1)
                self.deposits[id_, bidder] = found.deposit
            case events.ShareRevealed(id=id_, bidder=bidder):
                found = self.auctions[id_]
                self.auctions[id_] = replace(found, opened=found.opened + 1)
                self.deposits[id_, bidder] = 0
            case events.AuctionSettled(id=id_, terms=terms, clearing_bps=clearing, winners=winners):
                found = replace(self.auctions[id_], over=True, terms=terms)
                self.auctions[id_] = replace(found, clearing_bps=clearing, winners=tuple(winners))
            case events.AuctionVoid(id=id_):
                self.auctions[id_] = replace(self.auctions[id_], over=True)
            case _:
                pass

    def owed(self) -> int:
        return sum(auction.held for auction in self.auctions.values())


class PromotionLedger:
    def __init__(self, journal: Journal) -> None:
        self.slots: Ledger[Slot, PromotionRecord] = Ledger(journal, PromotionRecord())
        self.deposits: Amounts[tuple[Slot, Address]] = Amounts(journal)
        self._orders: Ledger[tuple[Slot, Address], int] = Ledger(journal, 0)
        self._terms: Ledger[str, tuple[int, int]] = Ledger(journal, (0, 0))

    def note(self, event: events.Event) -> None:
        match event:
            case events.MarketParamsSet(params=params):
                self._terms["now"] = (params.promotion_deposit, params.promotion_reserve)
            case events.PromotionSealed(epoch=epoch, slot=slot, bidder=bidder, order=order):
                self._seal((epoch, slot), bidder, order)
            case events.PromotionRevealed():
                self._open(event)
            case events.Promoted(epoch=epoch, slot=slot, price=price):
                self.slots[epoch, slot] = replace(self.slots[epoch, slot], settled=True, price=price)
            case _:
                pass

    def owed(self) -> int:
        return sum(slot.held for slot in self.slots.values())

    def _seal(self, slot: Slot, bidder: Address, order: int) -> None:
        """The first seal freezes deposit and reserve."""
        found = self.slots[slot]
        if not found.sealed:
            deposit, reserve = self._terms["now"]
            found = replace(found, deposit=deposit, reserve=reserve)
        self.slots[slot] = replace(found, sealed=found.sealed + 1)
        self.deposits[slot, bidder] = found.deposit
        self._orders[slot, bidder] = order

    def _open(self, event: events.PromotionRevealed) -> None:
        """The higher bid is held, of equal ones the earlier; whoever is beaten was paid back."""
        slot = (event.epoch, event.slot)
        order = self._orders[slot, event.bidder]
        found = replace(self.slots[slot], opened=self.slots[slot].opened + 1)
        ahead = (event.amount, -order) > (found.best, -found.best_order)
        if event.amount >= found.reserve and ahead:
            found = replace(found, winner=event.bidder, agent=event.agent, best=event.amount, best_order=order)
        self.slots[slot] = found
        self.deposits[slot, event.bidder] = 0
