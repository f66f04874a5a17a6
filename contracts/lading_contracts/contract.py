"""What the typed contract classes share: an address, a chain port and an ABI."""

from typing import Any

from lading_contracts import abi
from lading_contracts.port import Chain, Signer, TxReceipt
from lading_protocol.ids import Address


class Contract:
    """A deployed contract. Subclasses name its verbs with typed arguments."""

    NAME = ""

    def __init__(self, chain: Chain, address: Address) -> None:
        self.chain = chain
        self.address = address
        self._abi = abi.load(self.NAME)

    async def _view(self, function: str, *arguments: Any, sender: Address | None = None) -> tuple[Any, ...]:
        data = await self.chain.call(self.address, self._abi.call(function, *arguments), sender)
        return self._abi.result(function, data)

    async def _write(self, signer: Signer, function: str, *arguments: Any) -> TxReceipt:
        return await self.chain.send(signer, self.address, self._abi.call(function, *arguments))
