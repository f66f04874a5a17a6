"""Of the offer book, of both auctions and of leases. Amounts are wei, moments Unix seconds."""

from lading_contracts.events.base import Event
from lading_contracts.leases import Lease
from lading_contracts.registry import Party
from lading_protocol.ids import Address, AgentId, Digest, TermsId, Wei
from lading_protocol.receipts import Offer

# --- OfferBook ---


class OfferPublished(Event, frozen=True):
    """`id` is the offer's EIP-712 digest."""

    id: Digest
    host: Address
    agent: AgentId
    offer: Offer


class FloorRaised(Event, frozen=True):
    """All offers of `host` with a lower sequence are void."""

    host: Address
    floor: int


# --- ShareAuctions ---


class AuctionOpened(Event, frozen=True):
    """`role` 0 is the host."""

    id: Digest
    agent: AgentId
    epoch: int
    role: int
    seats: int
    reserve_bps: int
    deposit: Wei
    base: tuple[Party, ...]


class ShareSealed(Event, frozen=True):
    """`order` counts sealed bids from 1."""

    id: Digest
    bidder: Address
    order: int


class ShareRevealed(Event, frozen=True):
    id: Digest
    bidder: Address
    bps: int


class AuctionSettled(Event, frozen=True):
    """`terms` are the agent's terms of the epoch; `forfeited` deposits of bids that stayed sealed were destroyed."""

    id: Digest
    terms: TermsId
    clearing_bps: int
    winners: tuple[Address, ...]
    forfeited: Wei


class AuctionVoid(Event, frozen=True):
    """There are no terms of the epoch."""

    id: Digest
    forfeited: Wei


# --- PromotionAuctions ---


class PromotionSealed(Event, frozen=True):
    """`order` counts sealed bids from 1."""

    epoch: int
    slot: int
    bidder: Address
    order: int


class PromotionRevealed(Event, frozen=True):
    epoch: int
    slot: int
    bidder: Address
    agent: AgentId
    amount: Wei


class Promoted(Event, frozen=True):
    """`price` = `to_lineage` + `destroyed`; `forfeited` deposits were destroyed too. `agent` is zero: nobody won."""

    epoch: int
    slot: int
    agent: AgentId
    winner: Address
    price: Wei
    to_lineage: Wei
    destroyed: Wei
    forfeited: Wei


# --- Leases ---


class LeaseBid(Event, frozen=True):
    id: Digest
    tenant: Address
    host: Address
    lease: Lease


class LeaseCancelled(Event, frozen=True):
    id: Digest


class LeaseAccepted(Event, frozen=True):
    id: Digest
    host: Address


class LeaseServed(Event, frozen=True):
    """`served` seconds in all; `amount` was paid for the new ones."""

    id: Digest
    served: int
    amount: Wei


class LeaseVacated(Event, frozen=True):
    """The tenant left: what it signed is still collected, the rest is divided from `pay_at` on."""

    id: Digest
    pay_at: int


class LeaseEnded(Event, frozen=True):
    """`fault` is a leases.Fault. `refunded` is the price of what was not served, back at the tenant."""

    id: Digest
    fault: int
    refunded: Wei
    penalty: Wei
    destroyed: Wei
