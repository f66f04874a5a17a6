"""Auctions of promotion: which agents the index shows first in an epoch. Sealed second price, amounts in wei.

A bid is sealed by `seal`, and opened with the same words; whoever loses the salt loses the deposit.
"""

import msgspec

from lading_contracts import abi
from lading_contracts.epochs import Epochs
from lading_contracts.payments import Payments
from lading_contracts.port import Signer, TxReceipt
from lading_contracts.shares import BidStanding
from lading_protocol.ids import Address, AgentId, Digest, Wei
from lading_protocol.keys import keccak256


class PromotionSlot(msgspec.Struct, frozen=True):
    """One slot of one epoch; field order is the contract's. `version` is of the market parameters that it is under.

    `winner` is zero while nobody opened a bid of at least the reserve. `price` is what the winner pays if nothing
    changes: the second highest bid, at least the reserve. `committed` and `revealed` count bids.
    """

    settled: bool
    version: int
    committed: int
    revealed: int
    winner: Address
    best: Wei
    price: Wei
    best_order: int
    agent: AgentId


class PromotionBid(msgspec.Struct, frozen=True):
    """What is sealed, and opened later: `amount` wei for showing `agent`, and 32 random bytes, kept until then."""

    agent: AgentId
    amount: Wei
    salt: bytes


class PromotionAuctions(Epochs, Payments):
    """Slots count from 0."""

    NAME = "PromotionAuctions"

    async def commit(self, signer: Signer, epoch: int, slot: int, seal: bytes) -> TxReceipt:
        """With the flat deposit (needs an allowance: see Coin.allow), until `commit_ends(epoch)`. See `seal`."""
        return await self._write(signer, "commit", epoch, slot, seal)

    async def reveal(self, signer: Signer, epoch: int, slot: int, bid: PromotionBid) -> TxReceipt:
        """Takes the amount (needs an allowance), gives the deposit back; until the epoch starts."""
        return await self._write(signer, "reveal", epoch, slot, bid.agent, bid.amount, bid.salt)

    async def settle(self, signer: Signer, epoch: int, slot: int) -> TxReceipt:
        """Charges the winner the price and gives it back the rest; by anyone, once the epoch has begun."""
        return await self._write(signer, "settle", epoch, slot)

    # --- views ---

    def seal(self, epoch: int, slot: int, bidder: Address, bid: PromotionBid) -> Digest:
        """What `commit` takes, computed here: asking an endpoint for it would show it the bid."""
        types = ("uint256", "address", "uint32", "uint8", "address", "bytes32", "uint96", "bytes32")
        where = self.chain.chain_id, self.address, epoch, slot
        return keccak256(abi.encode(types, (*where, bidder, bid.agent, bid.amount, bid.salt)))

    async def slot(self, epoch: int, slot: int) -> PromotionSlot:
        return PromotionSlot(*(await self._view("slots", epoch, slot))[0])

    async def bid_of(self, epoch: int, slot: int, bidder: Address) -> BidStanding:
        return BidStanding(*await self._view("bidOf", epoch, slot, bidder))

    async def promoted(self, epoch: int) -> tuple[AgentId | None, ...]:
        """The agents promoted in `epoch`, by slot; None where nobody won. Final once the epoch has begun."""
        agents = (await self._view("promoted", epoch))[0]
        return tuple(AgentId(agent) if any(agent) else None for agent in agents)
