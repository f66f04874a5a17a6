"""Where gas is measured: a chain with the contracts on it, actors with coins, and a meter that reads receipts.

Two kinds, equal in all that a contract can see: the embedded py-evm chain and anvil. Same chain id, same keys, same
order of transactions, hence the same addresses and signatures. Only anvil can tell what a transaction touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import msgspec

from lading_contracts.anvil import Anvil, AnvilSettings, find
from lading_contracts.contract import Contract
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import DEFAULT_CHAIN_ID, EmbeddedSettings, faucet_key, in_process
from lading_contracts.rpc import RpcChain
from lading_contracts.transports import Answer, InProcess, Transport, open_transport
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

from .gas_floor import Touched, touched

COIN = 10**18
FOR_EVER = 2**256 - 1
START = 2_000_000_000
"""The first block's time, Unix seconds: fixed, so that what is signed is the same in every run and on both chains."""
EMBEDDED, ANVIL = "py-evm", "anvil"


class Cost(msgspec.Struct, frozen=True):
    """What one verb cost on one chain. `gas` is the receipts' gasUsed, for `per` units; `touched` None if untold."""

    gas: int
    per: int
    touched: Touched | None


class Words(msgspec.Struct, frozen=True):
    """What does not depend on the chain: how the state stood, and the project's budget in gas per unit, if any."""

    note: str = ""
    bar: int | None = None
    lot: bool = False
    """Whether a lot decides a part of it, so that the chains may differ."""


class Meter:
    """A transport that keeps the hash of every transaction that goes through it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.sent: list[str] = []

    async def request(self, method: str, params: list[Any]) -> Answer:
        answer = await self._inner.request(method, params)
        if method == "eth_sendRawTransaction" and answer.error is None:
            self.sent.append(answer.result)
        return answer

    async def close(self) -> None:
        await self._inner.close()


class Stage:
    """`costs` by the name of the figure; scenes fill it through `measure`. `batches` are the sizes K of redemptions,
    `locks` that of a batch of locks."""

    def __init__(self, kind: str, meter: Meter, chain: RpcChain, deployment: Deployment, quick: bool) -> None:
        self.kind = kind
        self.meter = meter
        self.chain = chain
        self.contracts = Contracts(chain, deployment)
        self.faucet = faucet_key("lading")
        self.batches = (1, 10) if quick else (1, 10, 50, 200)
        self.locks = 5 if quick else 25
        self.costs: dict[str, Cost] = {}
        self.words: dict[str, Words] = {}
        self._prepared: set[tuple[Address, Address | None]] = set()

    def key(self, name: str) -> PrivateKey:
        return self.faucet.child(name)

    async def actor(self, name: str, *spenders: Contract) -> PrivateKey:
        """Somebody with gas, coins, and endless allowances for the contracts that will take some."""
        key = self.key(name)
        if (key.address, None) not in self._prepared:
            self._prepared.add((key.address, None))
            await self.chain.send(self.faucet, key.address, b"", COIN)
            await self.contracts.coin.transfer(self.faucet, key.address, 100_000 * COIN)
        await self.allow(key, *spenders)
        return key

    async def allow(self, key: PrivateKey, *spenders: Contract) -> None:
        for spender in spenders:
            if (key.address, spender.address) not in self._prepared:
                self._prepared.add((key.address, spender.address))
                await self.contracts.coin.approve(key, spender.address, FOR_EVER)

    async def coins(self, *holders: Address) -> None:
        """Their balances are not nought: as for anybody who was paid before."""
        for holder in holders:
            await self.contracts.coin.transfer(self.faucet, holder, COIN + 12_345)

    async def now(self) -> int:
        head = await self.chain.block()
        return head.timestamp if head else 0

    async def until(self, moment: int) -> None:
        """The next block is no older than `moment`, Unix seconds."""
        if (left := moment - await self.now()) > 0:
            await self.skip(left)

    async def skip(self, seconds: int, blocks: int = 1) -> None:
        await self.chain.request("evm_increaseTime", [hex(seconds)])
        for _ in range(blocks):
            await self.chain.request("evm_mine", [])

    async def measure(self, name: str, verb: Awaitable[object], words: Words, *, per: int = 1) -> None:
        """Run a verb of one or several transactions; what they cost together, for `per` units, is the figure `name`."""
        self.meter.sent.clear()
        await verb
        sent = list(self.meter.sent)
        if not sent or name in self.costs:
            raise SystemExit(f"{name}: {'measured twice' if sent else 'no transaction was sent'}")
        receipts = [await self.chain.request("eth_getTransactionReceipt", [tx]) for tx in sent]
        touched = _sum([await self._touched(tx) for tx in sent])
        self.costs[name] = Cost(sum(int(receipt["gasUsed"], 16) for receipt in receipts), per, touched)
        self.words[name] = words

    def together(self, name: str, parts: Sequence[str], words: Words) -> None:
        """The figure `name` is the sum of all the transactions of others."""
        costs = [self.costs[part] for part in parts]
        self.costs[name] = Cost(sum(cost.gas for cost in costs), 1, _sum([cost.touched for cost in costs]))
        self.words[name] = words

    async def _touched(self, tx: str) -> Touched | None:
        if self.kind != ANVIL:
            return None
        tracers: list[dict[str, Any]] = [
            {"tracer": "callTracer"},
            {"tracer": "prestateTracer"},
            {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}},
        ]
        told = [await self.chain.request("debug_traceTransaction", [tx, one]) for one in tracers]
        sent = await self.chain.request("eth_getTransactionByHash", [tx])
        return touched(bytes.fromhex(sent["input"][2:]), sent["from"], *told)


def _sum(parts: Sequence[Touched | None]) -> Touched | None:
    known = [part for part in parts if part is not None]
    return sum(known[1:], known[0]) if len(known) == len(parts) else None


def kinds() -> list[str]:
    """The chains that this machine has."""
    return [EMBEDDED] if find() is None else [EMBEDDED, ANVIL]


@contextlib.asynccontextmanager
async def stage(kind: str, quick: bool) -> AsyncIterator[Stage]:
    async with _transport(kind) as transport:
        meter = Meter(transport)
        chain = RpcChain(meter, DEFAULT_CHAIN_ID)
        if kind == ANVIL:
            await chain.request("evm_setNextBlockTimestamp", [START])
            await chain.request("evm_mine", [])
        # An epoch of anvil's must outlast the bids on a busy machine: its clock runs on by itself.
        parameters = msgspec.structs.replace(Parameters.devnet(), epoch_length=3_600)
        deployment = await deploy(chain, faucet_key("lading"), parameters)
        made = Stage(kind, meter, chain, deployment, quick)
        await made.allow(made.faucet, made.contracts.settlement)
        yield made


@contextlib.asynccontextmanager
async def _transport(kind: str) -> AsyncIterator[Transport]:
    if kind == EMBEDDED:
        inside = InProcess(in_process(EmbeddedSettings(block_time=0), clock=lambda: START))
        try:
            yield inside
        finally:
            await inside.close()
        return
    anvil = await Anvil.start(AnvilSettings(block_time=0))
    socket = open_transport(anvil.url, 15.0)
    try:
        yield socket
    finally:
        await socket.close()
        await anvil.stop()
