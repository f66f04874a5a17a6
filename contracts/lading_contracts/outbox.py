"""How RpcChain sends: nonces, EIP-1559 fees, broadcasting, waiting, offering more, and taking up what a crash left.

The one rule: a transaction that may be out is never signed again for another nonce. It is looked for, broadcast again
as the same bytes, or outbid under its own nonce, until a block has it or another one took its nonce.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lading_contracts.answers import digest, log, reading, whole
from lading_contracts.errors import (
    BadAnswer,
    ChainError,
    NoFunds,
    NotIncluded,
    Replaced,
    Reverted,
    RpcFailed,
    TxRefused,
    WrongChain,
)
from lading_contracts.port import Note, Signed, Signer, TxReceipt
from lading_contracts.transactions import Fees, Unsigned, created_address, read, sign
from lading_protocol.ids import Address, Wei, short, to_hex

if TYPE_CHECKING:
    from lading_contracts.rpc import RpcSettings

# How endpoints say that this nonce is used, or waits in their pool under another transaction.
_TAKEN = ("nonce", "already known", "already imported", "known transaction", "replacement")
# The endpoint estimates for this very second. In the next one a history that would have been amended grows by a slot,
# and others may have emptied what was full: two slots' worth. What is not used costs nothing.
_SPARE_GAS = 50_000
# How they say that the fee is too low to be kept at all.
_CHEAP = ("underpriced", "base fee", "fee too low", "gas price too low", "feetoolow")
_RAISE_PERCENT = 25
_USUAL_TIP = 10**9
_FIRST_LOOK = 0.02
_EMPTY_GAS = 21_000
_MOST_RIVALS = 25


class Line(Protocol):
    """What is needed of RpcChain."""

    async def request(self, method: str, params: list[Any]) -> Any: ...
    async def once(self, method: str, params: list[Any]) -> Any: ...
    async def number(self, method: str, params: list[Any]) -> int: ...


class _Voyage(msgspec.Struct):
    """One transaction on its way. `signed` are rivals for one nonce, `draft` is what the newest of them says."""

    signer: Signer
    note: Note | None
    draft: Unsigned
    signed: list[Signed]
    trouble: str = ""

    @property
    def newest(self) -> Signed:
        return self.signed[-1]

    async def sign(self, draft: Unsigned) -> None:
        """Raises what `note` raises, and then nothing has changed."""
        fresh = sign(draft, self.signer)
        if self.note is not None:
            await self.note(fresh)
        if draft.nonce != self.draft.nonce:
            self.signed.clear()
        self.draft = draft
        self.signed.append(fresh)


class RpcOutbox:
    """Implements port.Outbox for one endpoint."""

    def __init__(self, line: Line, chain_id: int, settings: "RpcSettings") -> None:
        self._line = line
        self._chain_id = chain_id
        self._settings = settings
        self._locks: dict[Address, asyncio.Lock] = {}
        self._next_nonce: dict[Address, tuple[int, float]] = {}

    async def send(self, signer: Signer, to: Address | None, data: bytes, value: int, note: Note | None) -> TxReceipt:
        async with self._locks.setdefault(signer.address, asyncio.Lock()):
            draft = await self._prepare(signer, to, data, value)
            voyage = _Voyage(signer, note, draft, [])
            await voyage.sign(draft)
            await self._launch(voyage)
        return await self._included(voyage)

    async def resume(self, signer: Signer, sent: Sequence[Signed], note: Note | None) -> TxReceipt:
        voyage = _Voyage(signer, note, read(sent[-1].raw)[0], list(sent))
        found = await self._look(voyage)
        if found is None:
            await self._launch(voyage, fixed=True)
            return await self._included(voyage)
        return found

    # --- the draft ---

    async def _prepare(self, signer: Signer, to: Address | None, data: bytes, value: int) -> Unsigned:
        message = _message(signer, to, data, value)
        gas = await self._line.number("eth_estimateGas", [message]) * self._settings.gas_percent // 100
        if data:
            gas += _SPARE_GAS
        return Unsigned(self._chain_id, await self._nonce(signer.address), await self._fees(), gas, to, value, data)

    async def _fees(self) -> Fees:
        head = await self._line.request("eth_getBlockByNumber", ["latest", False])
        with reading("eth_getBlockByNumber"):
            base = whole(head.get("baseFeePerGas", "0x0"))
        try:
            tip = await self._line.number("eth_maxPriorityFeePerGas", [])
        except RpcFailed:
            tip = _USUAL_TIP  # some endpoints do not know the method
        return self._bounded(Fees(2 * base + tip, tip))

    def _bounded(self, fees: Fees) -> Fees:
        most = min(fees.most, self._settings.most_fee)
        return Fees(most, min(fees.tip, most))

    async def _nonce(self, sender: Address) -> int:
        """The chain's pending count, or our own when a broadcast of ours is too fresh for the endpoint to count it."""
        counted = await self._line.number("eth_getTransactionCount", [to_hex(sender), "pending"])
        own, at = self._next_nonce.get(sender, (0, 0.0))
        fresh = asyncio.get_running_loop().time() - at < self._settings.raise_fees_after
        return max(counted, own) if fresh else counted

    # --- out ---

    async def _launch(self, voyage: _Voyage, *, fixed: bool = False) -> None:
        """Broadcast. Returns when the transaction is out, or may be: then waiting will tell.

        Another process may use the same key: a nonce that the endpoint calls taken is replaced by a fresh one, unless
        an answer was lost or the transaction is an older one (`fixed`): then the one that took it may be ours.
        """
        lost, left, rivals = False, self._settings.attempts, 0
        while True:
            try:
                answer = await self._line.once("eth_sendRawTransaction", [to_hex(voyage.newest.raw)])
                with reading("eth_sendRawTransaction"):
                    digest(answer)
                break
            except ChainError as error:
                refusal = _refusal(error, voyage)
                taken = refusal is not None and _any(_TAKEN, refusal.message)
                if refusal is not None and taken and not lost and not fixed and rivals < _MOST_RIVALS:
                    # Another program of this key was first: it went on, so this is no failure. Not in step again.
                    rivals += 1
                    await asyncio.sleep(self._settings.backoff * random.random())
                    await self._amend(voyage, refusal, fixed=fixed)
                    continue
                left -= 1
                if refusal is None:
                    lost = True
                    if not left:
                        words = f"Whether the transaction went out is unknown: {error.message}"
                        raise NotIncluded(words, tx=voyage.newest.hash) from error
                    await asyncio.sleep(self._settings.backoff)
                elif lost or (fixed and (taken or len(voyage.signed) > 1)):
                    break
                elif not left or not await self._amend(voyage, refusal, fixed=fixed):
                    raise refusal from error
        self._next_nonce[voyage.signer.address] = voyage.draft.nonce + 1, asyncio.get_running_loop().time()

    async def _amend(self, voyage: _Voyage, refusal: ChainError, *, fixed: bool) -> bool:
        """Sign again what the endpoint did not take; False when nothing can be bettered."""
        draft = voyage.draft
        if _any(_TAKEN, refusal.message) and not fixed:
            self._next_nonce.pop(voyage.signer.address, None)
            draft = msgspec.structs.replace(draft, nonce=await self._nonce(voyage.signer.address))
        elif _any(_CHEAP, refusal.message):
            draft = await self._dearer(draft)
        else:
            return False
        if draft != voyage.draft:
            await voyage.sign(draft)
        return True

    async def _dearer(self, draft: Unsigned) -> Unsigned:
        """At least what endpoints ask for a replacement, and what the market asks now."""
        market, raised = await self._fees(), draft.fees.raised(_RAISE_PERCENT)
        fees = self._bounded(Fees(max(market.most, raised.most), max(market.tip, raised.tip)))
        return msgspec.structs.replace(draft, fees=fees) if fees.most > draft.fees.most else draft

    # --- waiting ---

    async def _included(self, voyage: _Voyage) -> TxReceipt:
        loop = asyncio.get_running_loop()
        started = offered = loop.time()
        taken_since: float | None = None
        gap_since: float | None = None
        pause = _FIRST_LOOK
        while True:
            found = await self._glance(voyage)
            if found is not None:
                return found
            now = loop.time()
            if taken_since is not None and now - taken_since >= self._settings.sure_after:
                raise Replaced(f"Another transaction of this key took nonce {voyage.draft.nonce}.")
            if now - started > self._settings.inclusion_timeout:
                raise _not_included(voyage, now - started, taken=taken_since is not None)
            if pause >= self._settings.poll:
                used = await self._used(voyage)
                taken_since = _since(taken_since, now, used > voyage.draft.nonce)
                gap_since = _since(gap_since, now, used < voyage.draft.nonce)
                if gap_since is not None and now - gap_since >= self._settings.sure_after:
                    gap_since = None
                    await self._fill(voyage, used)
            if taken_since is None and now - offered > self._settings.raise_fees_after:
                offered = now
                await self._offer_more(voyage)
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._settings.poll)

    async def _glance(self, voyage: _Voyage) -> TxReceipt | None:
        """A look that does not mind a bad line: the deadline ends the waiting, not the endpoint."""
        try:
            return await self._look(voyage)
        except Reverted:
            raise
        except ChainError as error:
            voyage.trouble = error.message
            return None

    async def _look(self, voyage: _Voyage) -> TxReceipt | None:
        for signed in voyage.signed:
            found = await self._line.request("eth_getTransactionReceipt", [to_hex(signed.hash)])
            with reading("eth_getTransactionReceipt"):
                # Some endpoints give a receipt without a block while the transaction waits.
                if found is None or found.get("blockNumber") is None:
                    continue
                if digest(found["transactionHash"]) != signed.hash:
                    raise ValueError("the receipt of another transaction")
                failed, block = whole(found["status"]) != 1, whole(found["blockNumber"])
                receipt = _receipt(voyage, signed, found)
            if failed:
                raise await self._reason(voyage, signed, block)
            return receipt
        return None

    async def _used(self, voyage: _Voyage) -> int:
        """How many nonces the newest block has used. Is ours among them, its receipt comes a look later."""
        try:
            return await self._line.number("eth_getTransactionCount", [to_hex(voyage.signer.address), "latest"])
        except ChainError as error:
            voyage.trouble = error.message
            return voyage.draft.nonce

    async def _fill(self, voyage: _Voyage, nonce: int) -> None:
        """An earlier nonce of this key is missing. If no pool has it either, no block can ever take ours: fill it."""
        who = voyage.signer.address
        try:
            if await self._line.number("eth_getTransactionCount", [to_hex(who), "pending"]) > nonce:
                return
            empty = Unsigned(self._chain_id, nonce, await self._fees(), _EMPTY_GAS, who, 0, b"")
            await self._line.once("eth_sendRawTransaction", [to_hex(sign(empty, voyage.signer).raw)])
        except ChainError as error:
            voyage.trouble = error.message

    async def _offer_more(self, voyage: _Voyage) -> None:
        """A dearer rival for the same nonce, or the same bytes again at the limit. Whichever is taken is the one."""
        try:
            draft = await self._dearer(voyage.draft)
            if draft != voyage.draft:
                await voyage.sign(draft)
            await self._line.once("eth_sendRawTransaction", [to_hex(voyage.newest.raw)])
        except ChainError as error:
            voyage.trouble = error.message  # taken meanwhile, refused or lost: all that were signed are looked for

    async def _reason(self, voyage: _Voyage, signed: Signed, block: int) -> Reverted:
        """Replay a failed transaction on the state before its block; a node without that state gives no reason."""
        draft = voyage.draft
        message = _message(voyage.signer, draft.to, draft.data, draft.value)
        try:
            await self._line.request("eth_call", [message, hex(block - 1)])
        except Reverted as why:
            return Reverted(why.message, name=why.name, arguments=why.arguments, tx=signed.hash, hint=why.hint)
        except ChainError:
            pass
        return Reverted(
            "The transaction failed on the chain: another one came first, or gas ran out.", name="", tx=signed.hash
        )


def _message(signer: Signer, to: Address | None, data: bytes, value: int) -> dict[str, str]:
    message = {"from": to_hex(signer.address), "data": to_hex(data), "value": hex(value)}
    return message if to is None else {**message, "to": to_hex(to)}


def _receipt(voyage: _Voyage, signed: Signed, found: dict[str, Any]) -> TxReceipt:
    sender, draft = voyage.signer.address, voyage.draft
    return TxReceipt(
        tx=signed.hash,
        nonce=draft.nonce,
        block=whole(found["blockNumber"]),
        block_hash=digest(found["blockHash"]),
        gas_used=whole(found["gasUsed"]),
        gas_price=Wei(whole(found["effectiveGasPrice"])),
        logs=tuple(log(entry) for entry in found["logs"]),
        created=None if draft.to is not None else created_address(sender, draft.nonce),
    )


def _refusal(error: ChainError, voyage: _Voyage) -> ChainError | None:
    """The endpoint's no in our words; None when the transaction may be out all the same."""
    if isinstance(error, WrongChain):
        return error
    if not isinstance(error, RpcFailed) or isinstance(error, BadAnswer):
        return None
    words = error.message.removeprefix("eth_sendRawTransaction: ")
    if "insufficient funds" in words.lower():
        tx = voyage.draft
        needed = tx.gas * tx.fees.most + tx.value
        who = to_hex(voyage.signer.address)
        return NoFunds(f"The account {who} cannot pay for gas: it needs up to {needed} wei.")
    return TxRefused(f"The endpoint does not take the transaction: {words}")


def _not_included(voyage: _Voyage, waited: float, *, taken: bool) -> NotIncluded:
    words = f"No block took the transaction {short(voyage.newest.hash)} in {waited:.0f} s."
    if taken:
        words += f" Another one seems to have taken its nonce {voyage.draft.nonce}."
    if voyage.trouble:
        words += f" The endpoint said last: {voyage.trouble}"
    return NotIncluded(words, tx=voyage.newest.hash)


def _since(before: float | None, now: float, holds: bool) -> float | None:
    """Since when it holds without a break."""
    if not holds:
        return None
    return now if before is None else before


def _any(phrases: tuple[str, ...], words: str) -> bool:
    return any(phrase in words.lower() for phrase in phrases)
