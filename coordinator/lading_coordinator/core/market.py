"""The chain's notice board: tables, auctions, promotions, leases and settlements, as their events tell them.

A fold over events, bounded: of each kind the newest are kept. Pure. Times in Unix seconds, amounts in wei, shares in
basis points.
"""

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from lading_contracts import events
from lading_contracts.epochs import Calendar
from lading_contracts.registry import Party
from lading_protocol.ids import Address, AgentId, Digest, TermsId

K = TypeVar("K")
T = TypeVar("T")
KEPT = 200
KEPT_TABLES = 2_000
WHOLE_BPS = 10_000


def phase(calendar: Calendar, epoch: int, now: float) -> str:
    """Of an auction for `epoch` that nobody settled: sealing, opening or over."""
    if now < calendar.commit_ends(epoch):
        return "sealing"
    return "opening" if now < calendar.start_of(epoch) else "over"


class Table(msgspec.Struct):
    """A split table. `gross` was redeemed under it, `claimed` taken by its parties; `sunset` is 0 until announced."""

    terms: TermsId
    agent: AgentId
    parties: tuple[Party, ...]
    block: int
    sunset: int = 0
    gross: int = 0
    royalty: int = 0
    claimed: int = 0

    @property
    def host_bps(self) -> int:
        return WHOLE_BPS - sum(party.bps for party in self.parties)


class ShareAuction(msgspec.Struct):
    """`bps` and `winners` are set when it is settled; `state` is open, settled or void."""

    id: Digest
    agent: AgentId
    epoch: int
    role: int
    seats: int
    reserve_bps: int
    deposit: int
    sealed: int = 0
    opened: list[tuple[Address, int]] = []
    state: str = "open"
    bps: int = 0
    winners: tuple[Address, ...] = ()
    terms: TermsId | None = None


class Promotion(msgspec.Struct):
    """One slot of one epoch. `agent` is None while it is not settled, or when nobody won."""

    epoch: int
    slot: int
    sealed: int = 0
    opened: int = 0
    settled: bool = False
    agent: AgentId | None = None
    winner: Address | None = None
    price: int = 0


class Lease(msgspec.Struct):
    """Reserved slots of one host. `state` is bid, cancelled, running, vacated or ended."""

    id: Digest
    tenant: Address
    host: Address
    agent: AgentId
    slots: int
    start: int
    duration: int
    rate: int
    served: int = 0
    state: str = "bid"
    penalty: int = 0


class Payment(msgspec.Struct, frozen=True):
    """One redeemed batch: `rows` vouchers paid `host_amount` to the host and `royalty` to the table's parties."""

    block: int
    tx: Digest
    host: Address
    terms: TermsId
    host_amount: int
    royalty: int
    rows: int


class Board:
    """Newest last. Feed it entries in the chain's order; after a reorganisation begin a new one."""

    def __init__(self) -> None:
        self.tables: dict[TermsId, Table] = {}
        self.auctions: dict[Digest, ShareAuction] = {}
        self.promotions: dict[tuple[int, int], Promotion] = {}
        self.leases: dict[Digest, Lease] = {}
        self.floors: dict[Address, int] = {}
        self.payments: deque[Payment] = deque(maxlen=KEPT)

    def note(self, entry: events.Entry) -> None:
        self._note_tables(entry)
        self._note_shares(entry.event)
        self._note_promotions(entry.event)
        self._note_leases(entry.event)
        match entry.event:
            case events.FloorRaised(host=host, floor=floor):
                self.floors[host] = floor

    def promoted(self, epoch: int) -> tuple[AgentId, ...]:
        """The agents that paid for being shown first in `epoch`, by slot."""
        slots = sorted((one.slot, one.agent) for one in self.promotions.values() if one.epoch == epoch and one.agent)
        return tuple(dict.fromkeys(agent for _, agent in slots if agent is not None))

    def _note_tables(self, entry: events.Entry) -> None:
        match entry.event:
            case events.TermsAgreed(id=terms, agent=agent, parties=parties):
                self.tables[terms] = Table(terms, agent, parties, entry.block)
                _trim(self.tables, KEPT_TABLES)
            case events.TermsSunsetSet(id=terms, moment=moment) | events.Condemned(id=terms, moment=moment):
                if table := self.tables.get(terms):
                    table.sunset = moment
            case events.Redeemed(host=host, terms=terms, host_amount=amount, royalty=royalty, rows=rows):
                self.payments.append(Payment(entry.block, entry.tx, host, terms, amount, royalty, rows))
                if table := self.tables.get(terms):
                    table.gross += amount + royalty
                    table.royalty += royalty
            case events.Claimed(terms=terms, amount=amount):
                if table := self.tables.get(terms):
                    table.claimed += amount
            case _:
                pass

    def _note_shares(self, event: events.Event) -> None:
        match event:
            case events.AuctionOpened():
                self.auctions[event.id] = ShareAuction(
                    id=event.id,
                    agent=event.agent,
                    epoch=event.epoch,
                    role=event.role,
                    seats=event.seats,
                    reserve_bps=event.reserve_bps,
                    deposit=event.deposit,
                )
                _trim(self.auctions, KEPT)
            case events.ShareSealed(id=id_):
                if auction := self.auctions.get(id_):
                    auction.sealed += 1
            case events.ShareRevealed(id=id_, bidder=bidder, bps=bps):
                if auction := self.auctions.get(id_):
                    auction.opened.append((bidder, bps))
            case events.AuctionSettled(id=id_, terms=terms, clearing_bps=bps, winners=winners):
                if auction := self.auctions.get(id_):
                    auction.state, auction.bps, auction.winners, auction.terms = "settled", bps, winners, terms
            case events.AuctionVoid(id=id_):
                if auction := self.auctions.get(id_):
                    auction.state = "void"
            case _:
                pass

    def _note_promotions(self, event: events.Event) -> None:
        match event:
            case events.PromotionSealed(epoch=epoch, slot=slot):
                self._slot(epoch, slot).sealed += 1
            case events.PromotionRevealed(epoch=epoch, slot=slot):
                self._slot(epoch, slot).opened += 1
            case events.Promoted(epoch=epoch, slot=slot):
                won = self._slot(epoch, slot)
                won.settled = True
                if any(event.agent):
                    won.agent, won.winner, won.price = event.agent, event.winner, event.price
            case _:
                pass

    def _note_leases(self, event: events.Event) -> None:
        match event:
            case events.LeaseBid(id=id_, tenant=tenant, host=host, lease=asked):
                self.leases[id_] = Lease(
                    id=id_,
                    tenant=tenant,
                    host=host,
                    agent=asked.agent,
                    slots=asked.slots,
                    start=asked.start,
                    duration=asked.duration,
                    rate=asked.rate,
                )
                _trim(self.leases, KEPT)
            case events.LeaseCancelled(id=id_):
                if lease := self.leases.get(id_):
                    lease.state = "cancelled"
            case events.LeaseAccepted(id=id_, host=host):
                if lease := self.leases.get(id_):
                    lease.state, lease.host = "running", host
            case events.LeaseServed(id=id_, served=served):
                if lease := self.leases.get(id_):
                    lease.served = served
            case events.LeaseVacated(id=id_):
                if lease := self.leases.get(id_):
                    lease.state = "vacated"
            case events.LeaseEnded(id=id_, penalty=penalty):
                if lease := self.leases.get(id_):
                    lease.state, lease.penalty = "ended", penalty
            case _:
                pass

    def _slot(self, epoch: int, slot: int) -> Promotion:
        found = self.promotions.setdefault((epoch, slot), Promotion(epoch, slot))
        _trim(self.promotions, KEPT)
        return found


def newest(kept: Iterable[T], count: int) -> list[T]:
    """The last `count`, newest first."""
    return list(kept)[: -count - 1 : -1]


def _trim(kept: dict[K, T], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
