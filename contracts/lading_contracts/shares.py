"""Auctions of shares: who gets which part of an agent's revenue for an epoch. Bids in basis points, deposits in wei.

A bid is sealed by `Bid.seal`, and opened with the same words; whoever loses the salt loses the deposit. What an auction
would come to is lading.core.bidding's business.
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from lading_contracts import abi
from lading_contracts.epochs import Epochs
from lading_contracts.payments import Payments
from lading_contracts.port import Signer, TxReceipt
from lading_contracts.registry import Consents, Party, rows
from lading_protocol.ids import Address, AgentId, Digest, TermsId, Wei
from lading_protocol.keys import keccak256

HOSTS = 0
"""The role of hosts: winners are admitted hosts, and their share is what the table leaves."""


class AuctionState(IntEnum):
    NONE = 0
    OPEN = 1
    SETTLED = 2
    VOID = 3


class ShareAuction(msgspec.Struct, frozen=True):
    """`role` is HOSTS or a Role. `base` is the terms id of the table that it began with; `deposit` (wei) is what a bid
    costs until it is opened; `committed` and `revealed` count bids.
    """

    state: AuctionState
    role: int
    seats: int
    reserve_bps: int
    epoch: int
    committed: int
    revealed: int
    deposit: Wei
    agent: AgentId
    base: TermsId


class ShareBid(msgspec.Struct, frozen=True):
    """A bid that was opened. `order` counts the sealed bids: of equal bids the earlier one wins."""

    bidder: Address
    bps: int
    order: int


class Lot(msgspec.Struct, frozen=True):
    """What the owner of an agent puts up: `seats` (1 to 8) of one role in one epoch, at most `reserve_bps` each."""

    agent: AgentId
    epoch: int
    role: int
    seats: int
    reserve_bps: int


class BidStanding(msgspec.Struct, frozen=True):
    """`order` counts sealed bids from 1; 0 when the bidder sealed none."""

    order: int
    revealed: bool


def auction_id(agent: bytes, epoch: int) -> Digest:
    """Computed without asking the chain."""
    return keccak256(abi.encode(("bytes32", "uint32"), (agent, epoch)))


class ShareAuctions(Epochs, Payments):
    NAME = "ShareAuctions"

    async def open(self, signer: Signer, lot: Lot, base: Sequence[Party], consents: Consents | None = None) -> Digest:
        """By the agent's owner. The base table needs the consents that `AgentRegistry.agree_terms` needs.

        Returns the auction's id.
        """
        given = (consents or Consents()).arguments(base)
        lot_ = lot.agent, lot.epoch, lot.role, lot.seats, lot.reserve_bps
        await self._write(signer, "open", *lot_, rows(base), *given)
        return auction_id(lot.agent, lot.epoch)

    async def commit(self, signer: Signer, auction: bytes, seal: bytes) -> TxReceipt:
        """With the flat deposit (needs an allowance: see Coin.allow), until `commit_ends(epoch)`. See `seal`."""
        return await self._write(signer, "commit", auction, seal)

    async def reveal(self, signer: Signer, auction: bytes, bps: int, salt: bytes, base: Sequence[Party]) -> TxReceipt:
        """Opens the signer's bid and returns its deposit, until the epoch starts."""
        return await self._write(signer, "reveal", auction, bps, salt, rows(base))

    async def settle(self, signer: Signer, auction: bytes, base: Sequence[Party]) -> TxReceipt:
        """Agrees the terms of the epoch; by anyone, once it has begun. They are in the AuctionSettled event."""
        return await self._write(signer, "settle", auction, rows(base))

    # --- views ---

    def seal(self, auction: bytes, bidder: Address, bps: int, salt: bytes) -> Digest:
        """What `commit` takes, computed here: asking an endpoint for it would show it the bid."""
        types = ("uint256", "address", "bytes32", "address", "uint16", "bytes32")
        return keccak256(abi.encode(types, (self.chain.chain_id, self.address, auction, bidder, bps, salt)))

    async def auction(self, auction: bytes) -> ShareAuction | None:
        state, *rest = (await self._view("auctions", auction))[0]
        found = ShareAuction(AuctionState(state), *rest)
        return None if found.state is AuctionState.NONE else found

    async def leading(self, auction: bytes) -> tuple[ShareBid, ...]:
        """The opened bids that could still win, lowest first: at most `seats + 1`, the last of them sets the price."""
        return tuple(ShareBid(*bid) for bid in (await self._view("leading", auction))[0])

    async def bid_of(self, auction: bytes, bidder: Address) -> BidStanding:
        return BidStanding(*await self._view("bidOf", auction, bidder))

    async def terms_of(self, agent: bytes, epoch: int) -> TermsId | None:
        """The terms that an auction made for the epoch."""
        found = TermsId((await self._view("termsOf", agent, epoch))[0])
        return found if any(found) else None

    async def winners_of(self, auction: bytes) -> tuple[Address, ...]:
        """Hosts admitted by an auction of role HOSTS, or the winners of any other."""
        return tuple((await self._view("winnersOf", auction))[0])
