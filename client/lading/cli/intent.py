"""What a command is about to sign, in words, before it signs; with --dry-run the chain is asked and nothing is signed.

Steps run in order. The words of all are shown before the first is signed.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from lading.cli.flags import Signing
from lading.cli.output import emit, out, plain
from lading_contracts.deployment import Contracts
from lading_contracts.port import Block, Chain, Log, Note, Signed, Signer, TxReceipt
from lading_protocol.errors import LadingError
from lading_protocol.ids import ZERO_DIGEST, Address, Digest, Wei, to_hex
from lading_protocol.pricing import format_amount

_NOTHING = TxReceipt(Digest(ZERO_DIGEST), 0, 0, Digest(ZERO_DIGEST), 0, Wei(0), ())
Act = Callable[[Contracts], Awaitable[Any]]


class Step(msgspec.Struct, frozen=True):
    words: str
    act: Act


class Intent:
    """Collects steps of one signer, then carries them out or rehearses them."""

    def __init__(self, contracts: Contracts, signer: Signer) -> None:
        self._contracts = contracts
        self._signer = signer
        self._steps: list[Step] = []
        self._lent: dict[Address, int] = {}

    def will(self, words: str, act: Act) -> None:
        """`act` signs and sends; it gets the contracts to do it on, which a rehearsal replaces."""
        self._steps.append(Step(words, act))

    async def will_allow(self, spender: Address, wei: int) -> None:
        """A contract may take `wei` of the signer's coins, more for each call. No step where it may already.

        Raises ChainError.
        """
        coin, record = self._contracts.coin, self._contracts.deployment
        self._lent[spender] = self._lent.get(spender, 0) + wei
        if await coin.allowance(self._signer.address, spender) >= self._lent[spender]:
            return
        money = f"{format_amount(wei, record.decimals)} {record.symbol}"
        words = f"Allow the contract {record.names()[spender]} at {to_hex(spender)} to take {money}."
        self.will(words, lambda c: c.coin.allow(self._signer, spender, wei))

    @property
    def words(self) -> list[str]:
        return [step.words for step in self._steps]

    async def carry_out(self, how: Signing) -> bool:
        """False after a rehearsal, whose result is printed here. Raises what the steps raise."""
        if not how.as_json:
            self._show()
        if how.dry_run:
            told = await self._rehearse()
            emit({name: value for name, value in told.items() if how.as_json or name != "signs"}, how.as_json)
            return False
        for step in self._steps:
            await step.act(self._contracts)
        return True

    def _show(self) -> None:
        chain = self._contracts.deployment.chain_id
        out.print(f"[dim]You sign, with {to_hex(self._signer.address)} on chain {chain}:[/]")
        for number, words in enumerate(self.words, 1):
            out.print(f"  {number}. {plain(words)}", markup=False, soft_wrap=True)

    async def _rehearse(self) -> dict[str, Any]:
        """The first transaction is tried on the newest state. What follows builds on it, so only the first can be."""
        rehearsal = Rehearsal(self._contracts.chain)
        contracts = Contracts(rehearsal, self._contracts.deployment)
        result: dict[str, Any] = {"dry_run": True, "signs": self.words, "would": "be accepted"}
        for step in self._steps:
            try:
                await step.act(contracts)
            except LadingError as error:
                if rehearsal.sent:
                    break  # it needs what the step before it would have done
                result |= {"would": f"be refused: {error}", "code": error.code}
                break
            if rehearsal.sent:
                break
        if len(self._steps) > 1:
            result["checked"] = "the first transaction; the others build on it"
        return result


class Rehearsal:
    """The chain port with every transaction turned into a question: nothing is signed, nothing is sent."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.sent = 0

    @property
    def chain_id(self) -> int:
        return self._chain.chain_id

    async def block(self, number: int | None = None) -> Block | None:
        return await self._chain.block(number)

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        return await self._chain.call(to, data, sender)

    async def send(
        self, signer: Signer, to: Address | None, data: bytes, value: int = 0, note: Note | None = None
    ) -> TxReceipt:
        """Raises Reverted as the transaction would."""
        if to is not None:
            await self._chain.call(to, data, signer.address)
        self.sent += 1
        return _NOTHING

    async def resume(self, signer: Signer, sent: Sequence[Signed], note: Note | None = None) -> TxReceipt:
        """A rehearsal leaves nothing open."""
        return _NOTHING

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        return await self._chain.logs(addresses, first, last)

    async def balance(self, address: Address) -> Wei:
        return await self._chain.balance(address)

    async def code(self, address: Address) -> bytes:
        return await self._chain.code(address)
