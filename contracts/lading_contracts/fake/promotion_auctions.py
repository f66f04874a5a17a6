"""PromotionAuctions in memory: sealed second price, a slot and an epoch at a time."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.fake.epochs import EpochsModel, Seal, sealed
from lading_contracts.fake.parameters import ParametersModel
from lading_contracts.fake.registry import RegistryModel
from lading_contracts.fake.world import Book, World, require
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address
from lading_protocol.keys import keccak256

_WHOLE_BPS = 10_000
_MAX_SLOTS = 32
_SEAL = ("uint256", "address", "uint32", "uint8", "address", "bytes32", "uint96", "bytes32")
Key = tuple[int, int]


class Head(msgspec.Struct, frozen=True):
    """A slot of an epoch, in the order in which the contract shows it."""

    settled: bool = False
    version: int = 0
    committed: int = 0
    revealed: int = 0
    winner: Address = ZERO_ADDRESS
    best: int = 0
    price: int = 0
    best_order: int = 0
    agent: bytes = ZERO_DIGEST


class PromotionAuctionsModel(EpochsModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, registry, parameters, genesis, length = given
        super().__init__(world, address, coin, genesis, length)
        self._registry: RegistryModel = world.contracts[registry]
        self._parameters: ParametersModel = world.contracts[parameters]
        self._heads: Book[Key, Head] = Book(world, Head())
        self._bids: Book[tuple[Key, Address], Seal] = Book(world, Seal())

    def commit(self, sender: Address, epoch: int, slot: int, seal: bytes) -> None:
        self._require_committing(epoch)
        key = (epoch, slot)
        head = self._heads[key]
        if head.committed == 0:
            version = self._parameters.market_version()
            params = self._parameters.market_params(version)
            require(slot < params.promotion_slots, "NoSuchSlot", params.promotion_slots)
            head = replace(head, version=version, price=params.promotion_reserve)
        else:
            require(self._bids[key, sender].order == 0, "BidTaken", sender)
        head = replace(head, committed=head.committed + 1)
        self._bids[key, sender] = sealed(seal, head.committed)
        self._heads[key] = head
        self.emit("PromotionSealed", epoch, slot, sender, head.committed)
        self._pull(sender, self._parameters.market_params(head.version).promotion_deposit)

    def reveal(self, sender: Address, epoch: int, slot: int, agent: bytes, amount: int, salt: bytes) -> None:
        self._require_revealing(epoch)
        key = (epoch, slot)
        bid = self._bids[key, sender]
        require(bid.holds(self.seal_of(sender, epoch, slot, sender, agent, amount, salt)), "BadReveal")
        require(self._registry.lives(agent), "UnknownAgent", agent)
        self._bids[key, sender] = Seal(bid.order)
        self.emit("PromotionRevealed", epoch, slot, sender, agent, amount)
        self._enter(sender, key, agent, amount)
        self._send(sender, self._parameters.market_params(self._heads[key].version).promotion_deposit)

    def settle(self, _sender: Address, epoch: int, slot: int) -> None:
        self._require_over(epoch)
        head = self._heads[epoch, slot]
        require(head.committed != 0 and not head.settled, "NothingToSettle", epoch, slot)
        self._heads[epoch, slot] = replace(head, settled=True)
        params = self._parameters.market_params(head.version)
        forfeited = (head.committed - head.revealed) * params.promotion_deposit
        price = 0 if head.winner == ZERO_ADDRESS else head.price
        above = self._registry.owner_above(head.agent)
        to_lineage = 0 if above == ZERO_ADDRESS else price * params.lineage_bps // _WHOLE_BPS
        destroyed = price - to_lineage
        self.emit("Promoted", epoch, slot, head.agent, head.winner, price, to_lineage, destroyed, forfeited)
        self._send(head.winner, head.best - price)
        self._send(above, to_lineage)
        self._destroy(destroyed + forfeited)

    # --- views ---

    def slots(self, _sender: Address, epoch: int, slot: int) -> tuple[Any, ...]:
        return msgspec.structs.astuple(self._heads[epoch, slot])

    def bid_of(self, _sender: Address, epoch: int, slot: int, bidder: Address) -> tuple[int, bool]:
        bid = self._bids[(epoch, slot), bidder]
        return bid.order, bid.order != 0 and not bid.kept

    def promoted(self, _sender: Address, epoch: int) -> tuple[bytes, ...]:
        agents = [self._heads[epoch, slot].agent for slot in range(_MAX_SLOTS)]
        while agents and not any(agents[-1]):
            agents.pop()
        return tuple(agents)

    def seal_of(
        self, _sender: Address, epoch: int, slot: int, bidder: Address, agent: bytes, amount: int, salt: bytes
    ) -> bytes:
        values = (self.world.chain_id, self.address, epoch, slot, bidder, agent, amount, salt)
        return keccak256(abi.encode(_SEAL, values))

    def registry(self, _sender: Address) -> Address:
        return self._registry.address

    def parameters(self, _sender: Address) -> Address:
        return self._parameters.address

    # --- inside ---

    def _enter(self, sender: Address, key: Key, agent: bytes, amount: int) -> None:
        """A bid that is best or sets the price is paid; whoever is beaten by it, or itself, is paid back."""
        order = self._bids[key, sender].order
        head = replace(self._heads[key], revealed=self._heads[key].revealed + 1)
        first = head.winner == ZERO_ADDRESS
        ahead = (amount, -order) > (head.best, -head.best_order)
        payee, back, price = head.winner, head.best, head.price
        if amount >= head.price if first else ahead:
            price = head.price if first else head.best
            head = replace(head, winner=sender, best=amount, best_order=order, agent=agent)
        elif amount > head.price:
            payee, back, price = sender, amount, amount
        else:
            self._heads[key] = head
            return
        self._heads[key] = replace(head, price=price)
        self._pull(sender, amount)
        self._send(payee, back)
