"""The coin in which everything is paid: a plain ERC-20 with permits. Amounts are wei."""

from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, Wei


class Coin(Contract):
    NAME = "AICoin"

    async def balance(self, holder: Address) -> Wei:
        return Wei((await self._view("balanceOf", holder))[0])

    async def allowance(self, holder: Address, spender: Address) -> Wei:
        return Wei((await self._view("allowance", holder, spender))[0])

    async def supply(self) -> Wei:
        return Wei((await self._view("totalSupply"))[0])

    async def symbol(self) -> str:
        return str((await self._view("symbol"))[0])

    async def decimals(self) -> int:
        return int((await self._view("decimals"))[0])

    async def transfer(self, signer: Signer, to: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "transfer", to, amount)

    async def approve(self, signer: Signer, spender: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "approve", spender, amount)

    async def allow(self, signer: Signer, spender: Address, amount: int) -> TxReceipt | None:
        """Approve `spender` for at least `amount`; sends nothing when the allowance already suffices."""
        if await self.allowance(signer.address, spender) >= amount:
            return None
        return await self.approve(signer, spender, amount)

    async def burn(self, signer: Signer, amount: int) -> TxReceipt:
        return await self._write(signer, "burn", amount)
