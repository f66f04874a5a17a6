"""OfferBook in memory: published offers and the floors below which older ones are void."""

from typing import Any

from lading_contracts.fake.settlement import SettlementModel
from lading_contracts.fake.world import Book, Model, World, require, signed_by
from lading_protocol.ids import Address
from lading_protocol.receipts import Offer


class OfferBookModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        (settlement,) = given
        self._settlement: SettlementModel = world.contracts[settlement]
        self._floors: Book[Address, int] = Book(world, 0)

    def publish(self, sender: Address, fields: tuple[Any, ...], signature: bytes) -> bytes:
        offer = Offer(*fields)
        floor = self._floors[offer.host]
        require(self.world.now < offer.expires, "OfferExpired", offer.expires)
        require(offer.sequence >= floor, "BelowFloor", floor)
        id_ = self._settlement.offer_digest(sender, fields)
        require(signed_by(offer.host, id_, signature), "BadOffer", offer.host)
        self.emit("OfferPublished", id_, offer.host, offer.agent, fields)
        return id_

    def raise_floor(self, sender: Address, floor: int) -> None:
        known = self._floors[sender]
        require(floor > known, "FloorNotRaised", known)
        self._floors[sender] = floor
        self.emit("FloorRaised", sender, floor)

    def settlement(self, _sender: Address) -> Address:
        return self._settlement.address

    def floor_of(self, _sender: Address, host: Address) -> int:
        return self._floors[host]

    def is_live(self, sender: Address, fields: tuple[Any, ...], signature: bytes) -> bool:
        offer = Offer(*fields)
        if self.world.now >= offer.expires or offer.sequence < self._floors[offer.host]:
            return False
        return signed_by(offer.host, self._settlement.offer_digest(sender, fields), signature)
