"""Share and promotion auctions as their contracts show them, and who has which deposit or bid lying there."""

import msgspec
from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.ledgers.journal import Journal, Ledger
from lading_contracts.parameters import MarketParams
from lading_contracts.promotions import PromotionSlot
from lading_contracts.registry import terms_id
from lading_contracts.shares import AuctionState, BidStanding, ShareAuction
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, AgentId, Digest, TermsId, Wei

_NO_AUCTION = ShareAuction(AuctionState.NONE, 0, 0, 0, 0, 0, 0, Wei(0), AgentId(ZERO_DIGEST), TermsId(ZERO_DIGEST))
_NO_SLOT = PromotionSlot(False, 0, 0, 0, ZERO_ADDRESS, Wei(0), Wei(0), 0, AgentId(ZERO_DIGEST))
_NO_BID = BidStanding(0, False)
Slot = tuple[int, int]
"""(epoch, slot)."""


class ShareResult(msgspec.Struct, frozen=True):
    """What came of an auction: the terms of its epoch, and what each winner gets."""

    terms: TermsId
    clearing_bps: int
    winners: tuple[Address, ...]


class ShareLedger:
    def __init__(self, journal: Journal) -> None:
        self.auctions: Ledger[Digest, ShareAuction] = Ledger(journal, _NO_AUCTION)
        self.bids: Ledger[tuple[Digest, Address], BidStanding] = Ledger(journal, _NO_BID)
        self.results: Ledger[Digest, ShareResult | None] = Ledger(journal, None)

    def note(self, event: events.Event) -> None:
        match event:
            case events.AuctionOpened(id=id_):
                base = terms_id(event.agent, event.base)
                counts = (event.role, event.seats, event.reserve_bps, event.epoch, 0, 0)
                self.auctions[id_] = ShareAuction(AuctionState.OPEN, *counts, event.deposit, event.agent, base)
            case events.ShareSealed(id=id_, bidder=bidder, order=order):
                self.auctions[id_] = replace(self.auctions[id_], committed=order)
                self.bids[id_, bidder] = BidStanding(order, False)
            case events.ShareRevealed(id=id_, bidder=bidder):
                found = self.auctions[id_]
                self.auctions[id_] = replace(found, revealed=found.revealed + 1)
                self.bids[id_, bidder] = replace(self.bids[id_, bidder], revealed=True)
            case events.AuctionSettled(id=id_):
                self.auctions[id_] = replace(self.auctions[id_], state=AuctionState.SETTLED)
                self.results[id_] = ShareResult(event.terms, event.clearing_bps, tuple(event.winners))
            case events.AuctionVoid(id=id_):
                self.auctions[id_] = replace(self.auctions[id_], state=AuctionState.VOID)
            case _:
                pass

    def deposits_of(self, bidder: Address) -> int:
        """Deposits of bids that are sealed in open auctions: back when they are opened, destroyed when they are not."""
        return sum(
            self.auctions[id_].deposit
            for (id_, who), bid in self.bids.items()
            if who == bidder and not bid.revealed and self.auctions[id_].state is AuctionState.OPEN
        )

    def owed(self) -> int:
        opened = (auction for auction in self.auctions.values() if auction.state is AuctionState.OPEN)
        return sum(auction.deposit * (auction.committed - auction.revealed) for auction in opened)


class PromotionLedger:
    def __init__(self, journal: Journal) -> None:
        self.slots: Ledger[Slot, PromotionSlot] = Ledger(journal, _NO_SLOT)
        self.bids: Ledger[tuple[Slot, Address], BidStanding] = Ledger(journal, _NO_BID)
        self._params: Ledger[int, MarketParams | None] = Ledger(journal, None)
        self._version: Ledger[str, int] = Ledger(journal, 0)

    def note(self, event: events.Event) -> None:
        match event:
            case events.MarketParamsSet(version=version, params=params):
                self._params[version] = params
                self._version["in force"] = version
            case events.PromotionSealed(epoch=epoch, slot=slot, bidder=bidder, order=order):
                self._seal((epoch, slot), bidder, order)
            case events.PromotionRevealed():
                self._open(event)
            case events.Promoted(epoch=epoch, slot=slot):
                self.slots[epoch, slot] = replace(self.slots[epoch, slot], settled=True)
            case _:
                pass

    def deposits_of(self, bidder: Address) -> int:
        """Deposits of its sealed bids, and its bids that are best so far, until their slot is settled."""
        held = sum(
            self._deposit(slot)
            for (slot, who), bid in self.bids.items()
            if who == bidder and not bid.revealed and not self.slots[slot].settled
        )
        return held + sum(slot.best for slot in self.slots.values() if slot.winner == bidder and not slot.settled)

    def owed(self) -> int:
        return sum(
            self._deposit(at) * (slot.committed - slot.revealed) + slot.best
            for at, slot in self.slots.items()
            if not slot.settled
        )

    def _deposit(self, slot: Slot) -> int:
        params = self._params[self.slots[slot].version]
        return 0 if params is None else params.promotion_deposit

    def _seal(self, slot: Slot, bidder: Address, order: int) -> None:
        """The first seal freezes deposit and reserve; the reserve is the price until somebody is beaten."""
        found, version = self.slots[slot], self._version["in force"]
        params = self._params[version]
        if not found.committed and params is not None:
            found = replace(found, version=version, price=params.promotion_reserve)
        self.slots[slot] = replace(found, committed=order)
        self.bids[slot, bidder] = BidStanding(order, False)

    def _open(self, event: events.PromotionRevealed) -> None:
        """The higher bid is held, of equal ones the earlier; whoever is beaten was paid back and sets the price."""
        slot, amount = (event.epoch, event.slot), event.amount
        order = self.bids[slot, event.bidder].order
        found = replace(self.slots[slot], revealed=self.slots[slot].revealed + 1)
        first = not any(found.winner)
        ahead = (amount, -order) > (found.best, -found.best_order)
        if amount >= found.price if first else ahead:
            price = found.price if first else found.best
            found = replace(found, winner=event.bidder, best=amount, price=price, best_order=order, agent=event.agent)
        elif amount > found.price:
            found = replace(found, price=amount)
        self.slots[slot] = found
        self.bids[slot, event.bidder] = BidStanding(order, True)
