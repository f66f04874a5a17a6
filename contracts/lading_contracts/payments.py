"""Payments that no payee can block: what a coin refused to pay waits in the contract for its owner. Amounts are wei."""

from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, Wei


class Payments(Contract):
    """Part of every contract that pays out by itself: both courts, both auctions, leases."""

    async def collect_unpaid(self, signer: Signer, to: Address) -> TxReceipt:
        """Sends what waits for the signer to an address that the coin accepts."""
        return await self._write(signer, "collectUnpaid", to)

    async def unpaid(self, payee: Address) -> Wei:
        return Wei((await self._view("unpaid", payee))[0])

    async def coin(self) -> Address:
        return Address((await self._view("coin"))[0])
