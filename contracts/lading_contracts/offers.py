"""Signed offers shown on the chain, and the floor below which a host's older offers are void."""

from typing import Any

import msgspec

from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address
from lading_protocol.receipts import Offer, SignedOffer


class OfferBook(Contract):
    NAME = "OfferBook"

    async def publish(self, signer: Signer, offer: SignedOffer) -> TxReceipt:
        """Shows an offer to everybody; by anyone. Its id, the offer's digest, is in the OfferPublished event."""
        return await self._write(signer, "publish", _tuple(offer.value), offer.signature)

    async def raise_floor(self, signer: Signer, floor: int) -> TxReceipt:
        """Voids every offer of the signer whose sequence is lower than `floor`."""
        return await self._write(signer, "raiseFloor", floor)

    async def floor_of(self, host: Address) -> int:
        return int((await self._view("floorOf", host))[0])

    async def is_live(self, offer: SignedOffer) -> bool:
        """Whether its host signed it, and it is neither expired nor below the floor."""
        return bool((await self._view("isLive", _tuple(offer.value), offer.signature))[0])

    async def settlement(self) -> Address:
        """Offers are signed for this contract."""
        return Address((await self._view("settlement"))[0])


def _tuple(offer: Offer) -> tuple[Any, ...]:
    return msgspec.structs.astuple(offer)
