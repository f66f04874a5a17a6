"""The chain port over JSON-RPC: any EVM endpoint, with retries, nonces, EIP-1559 fees, gas and revert reasons.

Never blocks the event loop. Trusts an endpoint only after it has named the expected chain id, and asks again after
every lost connection. Knows no contract.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from lading_contracts import reverts
from lading_contracts.errors import ChainError, ChainUnreachable, NoFunds, NotIncluded, Reverted, RpcFailed, WrongChain
from lading_contracts.port import Block, Log, Signer, TxReceipt
from lading_contracts.transactions import Fees, RawTransaction, Unsigned, created_address, sign
from lading_contracts.transports import Transport, open_transport
from lading_protocol.ids import Address, Digest, Wei, to_hex

# How endpoints say that somebody else's transaction has this nonce already.
_TAKEN = ("nonce", "already known", "already imported", "known transaction", "underpriced")
_RAISE_PERCENT = 25


class RpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `gas_percent` is applied to the endpoint's estimate."""

    timeout: float = 15.0
    attempts: int = 4
    backoff: float = 0.1
    inclusion_timeout: float = 180.0
    raise_fees_after: float = 45.0
    poll: float = 1.0
    gas_percent: int = 130


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
        self._locks: dict[Address, asyncio.Lock] = {}
        self._next_nonce: dict[Address, tuple[int, float]] = {}

    @property
    def chain_id(self) -> int:
        return self._chain_id

    async def close(self) -> None:
        await self._transport.close()

    # --- the port ---

    async def block(self, number: int | None = None) -> Block | None:
        found = await self.request("eth_getBlockByNumber", ["latest" if number is None else hex(number), False])
        if found is None:
            return None
        return Block(
            _int(found["number"]), _digest(found["hash"]), _digest(found["parentHash"]), _int(found["timestamp"])
        )

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        message = {"to": to_hex(to), "data": to_hex(data)} | ({} if sender is None else {"from": to_hex(sender)})
        return _bytes(await self.request("eth_call", [message, "latest"]))

    async def send(self, signer: Signer, to: Address | None, data: bytes, value: int = 0) -> TxReceipt:
        async with self._locks.setdefault(signer.address, asyncio.Lock()):
            sent, raw = await self._broadcast(signer, await self._prepare(signer, to, data, value))
        return await self._included(signer, sent, [raw])

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        query = {"address": [to_hex(one) for one in addresses], "fromBlock": hex(first), "toBlock": hex(last)}
        found = await self.request("eth_getLogs", [query])
        return tuple(_log(entry) for entry in found)

    async def balance(self, address: Address) -> Wei:
        return Wei(_int(await self.request("eth_getBalance", [to_hex(address), "latest"])))

    async def code(self, address: Address) -> bytes:
        return _bytes(await self.request("eth_getCode", [to_hex(address), "latest"]))

    # --- asking ---

    async def request(self, method: str, params: list[Any]) -> Any:
        """The result of any JSON-RPC method, with retries. Raises ChainUnreachable, WrongChain, Reverted, RpcFailed."""
        pause = self._settings.backoff
        for left in reversed(range(self._settings.attempts)):
            try:
                return await self._ask(method, params)
            except ChainUnreachable:
                self._verified = False
                if left == 0:
                    raise
            await asyncio.sleep(pause)
            pause *= 3
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _ask(self, method: str, params: list[Any]) -> Any:
        if not self._verified:
            found = (await self._transport.request("eth_chainId", [])).result
            if not isinstance(found, str) or _int(found) != self._chain_id:
                named = _int(found) if isinstance(found, str) else found
                raise WrongChain(f"The endpoint serves chain {named}, the settings say {self._chain_id}.")
            self._verified = True
        answer = await self._transport.request(method, params)
        if answer.error is not None:
            raise _failure(method, answer.error)
        return answer.result

    # --- sending ---

    async def _prepare(self, signer: Signer, to: Address | None, data: bytes, value: int) -> Unsigned:
        sender = to_hex(signer.address)
        message = {"from": sender, "data": to_hex(data), "value": hex(value)} | (
            {} if to is None else {"to": to_hex(to)}
        )
        gas = _int(await self.request("eth_estimateGas", [message])) * self._settings.gas_percent // 100
        fees = await self._fees()
        return Unsigned(self._chain_id, await self._nonce(signer.address), fees, gas, to, value, data)

    async def _fees(self) -> Fees:
        head = await self.request("eth_getBlockByNumber", ["latest", False])
        tip = _int(await self.request("eth_maxPriorityFeePerGas", []))
        return Fees(2 * _int(head.get("baseFeePerGas", "0x0")) + tip, tip)

    async def _nonce(self, sender: Address) -> int:
        """The chain's pending count, or our own when a broadcast of ours is too fresh for the endpoint to count it."""
        counted = _int(await self.request("eth_getTransactionCount", [to_hex(sender), "pending"]))
        own, at = self._next_nonce.get(sender, (0, 0.0))
        fresh = asyncio.get_running_loop().time() - at < self._settings.raise_fees_after
        return max(counted, own) if fresh else counted

    async def _broadcast(self, signer: Signer, unsigned: Unsigned) -> tuple[Unsigned, RawTransaction]:
        """Another process may use the same key: a taken nonce is replaced by a fresh one, a few times.

        After a lost answer the same bytes go out again: the transaction is never doubled, and "known" then means ours.
        """
        lost = False
        for left in reversed(range(self._settings.attempts)):
            raw = sign(unsigned, signer)
            try:
                await self._ask("eth_sendRawTransaction", [to_hex(raw.raw)])
            except ChainUnreachable:
                lost, self._verified = True, False
                if left == 0:
                    raise
                await asyncio.sleep(self._settings.backoff)
                continue
            except RpcFailed as error:
                words = error.message.lower()
                if "insufficient funds" in words:
                    raise _no_funds(signer, unsigned) from error
                if not (lost and await self._known(raw)):
                    if left == 0 or not any(phrase in words for phrase in _TAKEN):
                        raise
                    self._next_nonce.pop(signer.address, None)
                    unsigned = msgspec.structs.replace(unsigned, nonce=await self._nonce(signer.address))
                    continue
            self._next_nonce[signer.address] = (unsigned.nonce + 1, asyncio.get_running_loop().time())
            return unsigned, raw
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _known(self, raw: RawTransaction) -> bool:
        return await self.request("eth_getTransactionByHash", [to_hex(raw.hash)]) is not None

    async def _included(self, signer: Signer, unsigned: Unsigned, raws: list[RawTransaction]) -> TxReceipt:
        loop = asyncio.get_running_loop()
        started = raised = loop.time()
        pause = 0.02
        while True:
            for raw in raws:
                try:
                    found = await self.request("eth_getTransactionReceipt", [to_hex(raw.hash)])
                except ChainUnreachable:
                    continue  # an outage while we wait: the deadline below ends it
                if found is not None:
                    return await self._judge(signer, unsigned, raw, found)
            now = loop.time()
            if now - started > self._settings.inclusion_timeout:
                raise NotIncluded(f"No block took the transaction in {now - started:.0f} s.", tx=raws[-1].hash)
            if now - raised > self._settings.raise_fees_after:
                raised = now
                unsigned = await self._raise_fees(signer, unsigned, raws)
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._settings.poll)

    async def _raise_fees(self, signer: Signer, unsigned: Unsigned, raws: list[RawTransaction]) -> Unsigned:
        """Offer more for the same nonce. Whichever of the rivals is taken is the transaction."""
        dearer = msgspec.structs.replace(unsigned, fees=unsigned.fees.raised(_RAISE_PERCENT))
        raw = sign(dearer, signer)
        try:
            await self.request("eth_sendRawTransaction", [to_hex(raw.raw)])
        except ChainError:
            return unsigned  # taken meanwhile, or refused: the earlier ones are still looked for
        raws.append(raw)
        return dearer

    async def _judge(self, signer: Signer, sent: Unsigned, raw: RawTransaction, found: dict[str, Any]) -> TxReceipt:
        block = _int(found["blockNumber"])
        if _int(found["status"]) != 1:
            raise await self._reason(signer, sent, raw, block)
        created = None if sent.to is not None else created_address(signer.address, sent.nonce)
        return TxReceipt(
            tx=raw.hash,
            nonce=sent.nonce,
            block=block,
            block_hash=_digest(found["blockHash"]),
            gas_used=_int(found["gasUsed"]),
            gas_price=Wei(_int(found["effectiveGasPrice"])),
            logs=tuple(_log(entry) for entry in found["logs"]),
            created=created,
        )

    async def _reason(self, signer: Signer, sent: Unsigned, raw: RawTransaction, block: int) -> Reverted:
        """Replay a failed transaction on the state before its block; a node without that state gives no reason."""
        message = {"from": to_hex(signer.address), "data": to_hex(sent.data), "value": hex(sent.value)}
        if sent.to is not None:
            message["to"] = to_hex(sent.to)
        try:
            await self.request("eth_call", [message, hex(block - 1)])
        except Reverted as why:
            return Reverted(why.message, name=why.name, arguments=why.arguments, tx=raw.hash, hint=why.hint)
        except ChainError:
            pass
        return Reverted(
            "The transaction failed on the chain: another one came first, or gas ran out.", name="", tx=raw.hash
        )


def _failure(method: str, error: dict[str, Any]) -> ChainError:
    words = str(error.get("message", "")) or "no reason given"
    data = error.get("data")
    if isinstance(data, dict):
        data = data.get("data")
    reverted = "revert" in words.lower() or error.get("code") == 3
    if isinstance(data, str) and data.startswith("0x") and (reverted or len(data) >= 10):
        return reverts.explain(_bytes(data))
    if reverted:
        return reverts.explain(b"")
    return RpcFailed(f"{method}: {words}.")


def _no_funds(signer: Signer, tx: Unsigned) -> NoFunds:
    needed = tx.gas * tx.fees.most + tx.value
    return NoFunds(f"The account {to_hex(signer.address)} cannot pay for gas: it needs up to {needed} wei.")


def _log(entry: dict[str, Any]) -> Log:
    return Log(
        address=Address(_bytes(entry["address"])),
        topics=tuple(_bytes(topic) for topic in entry["topics"]),
        data=_bytes(entry["data"]),
        block=_int(entry["blockNumber"]),
        block_hash=_digest(entry["blockHash"]),
        tx=_digest(entry["transactionHash"]),
        index=_int(entry["logIndex"]),
    )


def _int(text: str) -> int:
    return int(text, 16)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _digest(text: str) -> Digest:
    return Digest(_bytes(text))
