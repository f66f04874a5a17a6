"""What the typed contract classes share: an address, a chain port and an ABI."""

from typing import Any, Self

from lading_contracts import abi
from lading_contracts.port import Chain, Note, Signer, TxReceipt
from lading_protocol.ids import Address


class Contract:
    """A deployed contract. Subclasses name its verbs with typed arguments."""

    NAME = ""

    def __init__(self, chain: Chain, address: Address, note: Note | None = None) -> None:
        self.chain = chain
        self.address = address
        self._abi = abi.load(self.NAME)
        self._note = note

    def noting(self, note: Note) -> Self:
        """The same contract; `note` is told of each of its transactions before they are broadcast."""
        return type(self)(self.chain, self.address, note)

    async def _view(self, function: str, *arguments: Any, sender: Address | None = None) -> tuple[Any, ...]:
        data = await self.chain.call(self.address, self._abi.call(function, *arguments), sender)
        return self._abi.result(function, data)

    async def _write(self, signer: Signer, function: str, *arguments: Any) -> TxReceipt:
        data = self._abi.call(function, *arguments)
        return await self.chain.send(signer, self.address, data, note=self._note)
