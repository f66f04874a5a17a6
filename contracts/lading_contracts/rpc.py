"""The chain port over JSON-RPC: any EVM endpoint, its questions with retries; sending is outbox's.

Never blocks the event loop. Trusts an endpoint only after it has named the expected chain id, and asks again after
every lost connection. Knows no contract.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from lading_contracts.answers import blob, block, failure, log, reading, whole
from lading_contracts.errors import BadAnswer, ChainUnreachable, WrongChain
from lading_contracts.outbox import RpcOutbox
from lading_contracts.port import Block, Log, Note, Signed, Signer, TxReceipt
from lading_contracts.transports import Transport, open_transport
from lading_protocol.ids import Address, Wei, to_hex


class RpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `gas_percent` is applied to the endpoint's estimate; whatever it says, no more than `most_fee`
    wei per gas is ever offered. A nonce that the endpoint calls used for `sure_after` without ours in it is gone.
    """

    timeout: float = 15.0
    attempts: int = 4
    backoff: float = 0.1
    inclusion_timeout: float = 180.0
    raise_fees_after: float = 45.0
    sure_after: float = 60.0
    poll: float = 1.0
    gas_percent: int = 130
    most_fee: int = 10**13


def open_chain(url: str, chain_id: int, settings: RpcSettings | None = None) -> "RpcChain":
    """Never touches the network: the first use does. Close it with `await chain.close()`."""
    settings = settings or RpcSettings()
    return RpcChain(open_transport(url, settings.timeout), chain_id, settings)


class RpcChain:
    """Implements port.Chain."""

    def __init__(self, transport: Transport, chain_id: int, settings: RpcSettings | None = None) -> None:
        self._transport = transport
        self._chain_id = chain_id
        self._settings = settings or RpcSettings()
        self._verified = False
        self._outbox = RpcOutbox(self, chain_id, self._settings)

    @property
    def chain_id(self) -> int:
        return self._chain_id

    async def close(self) -> None:
        await self._transport.close()

    # --- the port ---

    async def block(self, number: int | None = None) -> Block | None:
        method = "eth_getBlockByNumber"
        found = await self.request(method, ["latest" if number is None else hex(number), False])
        if found is None:
            return None
        with reading(method):
            named = block(found)
            if number is not None and named.number != number:
                raise ValueError(f"block {named.number} for the question after block {number}")
            return named

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        message = {"to": to_hex(to), "data": to_hex(data)} | ({} if sender is None else {"from": to_hex(sender)})
        return await self._blob("eth_call", [message, "latest"])

    async def send(
        self, signer: Signer, to: Address | None, data: bytes, value: int = 0, note: Note | None = None
    ) -> TxReceipt:
        return await self._outbox.send(signer, to, data, value, note)

    async def resume(self, signer: Signer, sent: Sequence[Signed], note: Note | None = None) -> TxReceipt:
        return await self._outbox.resume(signer, sent, note)

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        query = {"address": [to_hex(one) for one in addresses], "fromBlock": hex(first), "toBlock": hex(last)}
        found = await self.request("eth_getLogs", [query])
        with reading("eth_getLogs"):
            logs = tuple(log(entry) for entry in found if not entry.get("removed"))
            if any(not first <= one.block <= last or (addresses and one.address not in addresses) for one in logs):
                raise ValueError("events that nobody asked for")
            return logs

    async def balance(self, address: Address) -> Wei:
        return Wei(await self.number("eth_getBalance", [to_hex(address), "latest"]))

    async def code(self, address: Address) -> bytes:
        return await self._blob("eth_getCode", [to_hex(address), "latest"])

    # --- asking ---

    async def number(self, method: str, params: list[Any]) -> int:
        """The answer of a method that gives a number. Raises as `request` does."""
        answer = await self.request(method, params)
        with reading(method):
            return whole(answer)

    async def _blob(self, method: str, params: list[Any]) -> bytes:
        answer = await self.request(method, params)
        with reading(method):
            return blob(answer)

    async def request(self, method: str, params: list[Any]) -> Any:
        """The result of any JSON-RPC method, with retries. Raises ChainUnreachable, WrongChain, Reverted, RpcFailed."""
        pause = self._settings.backoff
        for left in reversed(range(self._settings.attempts)):
            try:
                return await self.once(method, params)
            except ChainUnreachable:
                if left == 0:
                    raise
            await asyncio.sleep(pause)
            pause *= 3
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def once(self, method: str, params: list[Any]) -> Any:
        """The same without retries."""
        try:
            if not self._verified:
                await self._verify()
            answer = await self._transport.request(method, params)
        except ChainUnreachable:
            self._verified = False
            raise
        if answer.error is not None:
            raise failure(method, answer.error)
        return answer.result

    async def _verify(self) -> None:
        answer = await self._transport.request("eth_chainId", [])
        if answer.error is not None:
            raise failure("eth_chainId", answer.error)
        try:
            with reading("eth_chainId"):
                found = whole(answer.result)
        except BadAnswer as error:
            raise WrongChain(f"The endpoint does not name its chain: {error.message}") from error
        if found != self._chain_id:
            raise WrongChain(f"The endpoint serves chain {found}, the settings say {self._chain_id}.")
        self._verified = True
