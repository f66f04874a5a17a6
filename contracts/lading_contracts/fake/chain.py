"""FakeChain: the chain port over the fake contracts. Time comes from outside, outages and delays on demand.

Every transaction makes a block. With `block_time`, idle time makes empty blocks too, so that block delays pass; they
are counted when somebody looks, at most a few hundred at once, so that a jump of a year costs nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from lading_contracts import abi, events, reverts
from lading_contracts.errors import ChainUnreachable, Reverted, RpcFailed
from lading_contracts.fake.coin import CoinModel
from lading_contracts.fake.court import CourtModel
from lading_contracts.fake.leases import LeasesModel
from lading_contracts.fake.lineage_court import LineageCourtModel
from lading_contracts.fake.offer_book import OfferBookModel
from lading_contracts.fake.parameters import ParametersModel
from lading_contracts.fake.promotion_auctions import PromotionAuctionsModel
from lading_contracts.fake.registry import RegistryModel
from lading_contracts.fake.settlement import SettlementModel
from lading_contracts.fake.share_auctions import ShareAuctionsModel
from lading_contracts.fake.staking import StakingModel
from lading_contracts.fake.timelock import TimelockModel
from lading_contracts.fake.world import Model, Refused, Undo, World
from lading_contracts.port import Block, Log, Signer, TxReceipt
from lading_contracts.transactions import created_address
from lading_protocol.ids import Address, Digest, Wei
from lading_protocol.keys import keccak256

_MODELS: dict[str, type[Any]] = {
    "AICoin": CoinModel,
    "AgentRegistry": RegistryModel,
    "Settlement": SettlementModel,
    "TimelockController": TimelockModel,
    "Parameters": ParametersModel,
    "Staking": StakingModel,
    "AuditCourt": CourtModel,
    "LineageCourt": LineageCourtModel,
    "OfferBook": OfferBookModel,
    "ShareAuctions": ShareAuctionsModel,
    "PromotionAuctions": PromotionAuctionsModel,
    "Leases": LeasesModel,
}
_MOST_EMPTY = 300
_NOBODY = Address(bytes(20))


class _Mined(msgspec.Struct):
    block: Block
    logs: tuple[Log, ...]
    undo: Undo


class FakeChain:
    """Implements port.Chain. `down = True` makes every question fail with ChainUnreachable.

    A transaction that is on its way when the chain becomes unreachable is still included; its sender hears of it when
    the chain is reachable again, as on a real chain. Gas is free.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        chain_id: int = 31_337,
        inclusion_delay: float = 0.0,
        block_time: float = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.down = False
        self.inclusion_delay = inclusion_delay
        self._now = now
        self._sleep = sleep
        self._block_time = block_time
        self._fork = 0
        self._names: dict[Address, str] = {}
        self._world = World(chain_id, lambda number: self._blocks[number].block.hash)
        self._world.run = self._run
        genesis = Block(0, self._hash(0, 0), Digest(bytes(32)), int(now()))
        self._blocks: list[_Mined] = [_Mined(genesis, (), [])]

    # --- the port ---

    @property
    def chain_id(self) -> int:
        return self._world.chain_id

    async def block(self, number: int | None = None) -> Block | None:
        self._reach()
        if number is None:
            return self._blocks[-1].block
        return self._blocks[number].block if 0 <= number < len(self._blocks) else None

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        self._reach()
        self._enter()
        try:
            return self._run(to, data, sender or _NOBODY)
        except Refused as refused:
            raise reverts.explain(_revert_data(refused)) from refused
        finally:
            self._world.roll_back()

    async def send(self, signer: Signer, to: Address | None, data: bytes, value: int = 0) -> TxReceipt:
        await self.call_as_sent(signer.address, to, data, value)  # the estimate: refuses what would revert now
        if self.inclusion_delay:
            await self._sleep(self.inclusion_delay)
        outcome = self._include(signer.address, to, data, value)
        while self.down:
            await self._sleep(1.0)
        if isinstance(outcome, Refused):
            raise reverts.explain(_revert_data(outcome)) from outcome
        return outcome

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        self._reach()
        wanted = set(addresses)
        mined = self._blocks[first : last + 1]
        return tuple(log for one in mined for log in one.logs if not wanted or log.address in wanted)

    async def balance(self, address: Address) -> Wei:
        self._reach()
        return Wei(self._world.native[address])

    async def code(self, address: Address) -> bytes:
        self._reach()
        name = self._names.get(address)
        return b"" if name is None or address not in self._world.contracts else abi.load(name).bytecode

    # --- what only a fake can do ---

    async def call_as_sent(self, sender: Address, to: Address | None, data: bytes, value: int) -> None:
        """Whether a transaction would succeed on the newest state. Raises Reverted, ChainUnreachable."""
        self._reach()
        self._enter()
        try:
            self._transact(sender, to, data, value)
        except Refused as refused:
            raise reverts.explain(_revert_data(refused)) from refused
        finally:
            self._world.roll_back()
            self._world.emitted.clear()

    def mine(self, count: int = 1) -> None:
        for _ in range(count):
            self._append((), [])

    def rewind(self, number: int) -> None:
        """A reorganisation: forget the blocks above `number` and what they did. New blocks get other hashes."""
        while self._blocks[-1].block.number > number:
            self._world.undo = self._blocks.pop().undo
            self._world.roll_back()
        self._fork += 1

    # --- inside ---

    def _reach(self) -> None:
        if self.down:
            raise ChainUnreachable("The chain is down (an outage of the simulation).")
        self._catch_up()

    def _catch_up(self) -> None:
        if self._block_time > 0:
            idle = int((self._now() - self._blocks[-1].block.timestamp) / self._block_time)
            self.mine(min(idle, _MOST_EMPTY))

    def _enter(self) -> None:
        """Execution sees the next block, as a pending transaction does."""
        self._world.now = max(int(self._now()), self._blocks[-1].block.timestamp)
        self._world.number = len(self._blocks)
        self._world.undo = []
        self._world.emitted.clear()

    def _include(self, sender: Address, to: Address | None, data: bytes, value: int) -> TxReceipt | Refused:
        self._catch_up()
        self._enter()
        nonce = self._world.nonces[sender]
        refused: Refused | None = None
        created: Address | None = None
        try:
            created = self._transact(sender, to, data, value)
        except Refused as caught:
            refused = caught
            self._world.roll_back()
            self._world.emitted.clear()
        self._world.nonces[sender] = nonce + 1
        number = len(self._blocks)
        tx = keccak256(sender + nonce.to_bytes(8, "big") + data)
        emitted, undo = tuple(self._world.emitted), self._world.undo
        block_hash = self._hash(number, self._fork)
        logs = tuple(self._log(*what, number, block_hash, tx, at) for at, what in enumerate(emitted))
        self._world.undo = []
        block = self._append(logs, undo)
        return refused or TxReceipt(tx, nonce, block.number, block.hash, 0, Wei(0), logs, created)

    def _append(self, logs: tuple[Log, ...], undo: Undo) -> Block:
        last = self._blocks[-1].block
        number = last.number + 1
        block = Block(number, self._hash(number, self._fork), last.hash, max(int(self._now()), last.timestamp))
        self._blocks.append(_Mined(block, logs, undo))
        return block

    def _transact(self, sender: Address, to: Address | None, data: bytes, value: int) -> Address | None:
        world = self._world
        if to is None:
            return self._create(sender, data)
        if value:
            if world.native[sender] < value:
                raise RpcFailed("insufficient funds for value")
            world.native[sender] -= value
            world.native[to] += value
        if to in world.contracts:
            self._run(to, data, sender)
        return None

    def _create(self, sender: Address, data: bytes) -> Address:
        for name, kind in _MODELS.items():
            item = abi.load(name)
            if data.startswith(item.bytecode):
                given = abi.decode(item.constructor, data[len(item.bytecode) :])
                address = created_address(sender, self._world.nonces[sender])
                self._names[address] = name
                self._world.create(address, kind(self._world, address, sender, *given))
                return address
        raise RpcFailed("The fake chain knows only the contracts of this package.")

    def _run(self, to: Address, data: bytes, sender: Address) -> bytes:
        model: Model | None = self._world.contracts.get(to)
        if model is None:
            return b""
        name = self._names[to]
        item = abi.load(name).selectors.get(data[:4])
        verb = None if item is None else getattr(model, events.field_name(item.name), None)
        if item is None or verb is None:
            raise RpcFailed(f"The fake {name} does not model 0x{data[:4].hex()}.")
        answer = verb(sender, *abi.decode(item.inputs, data[4:]))
        if not item.outputs:
            return b""
        several = len(item.outputs) > 1
        return abi.encode(item.outputs, answer if several else (answer,))

    def _log(
        self,
        address: Address,
        event: str,
        values: tuple[Any, ...],
        number: int,
        block_hash: Digest,
        tx: Digest,
        at: int,
    ) -> Log:
        item = next(one for one in abi.load(self._names[address]).events.values() if one.name == event)
        topics, kinds, rest = [item.topic], [], []
        for kind, indexed, value in zip(item.inputs, item.indexed, values, strict=True):
            if indexed:
                topics.append(abi.encode((kind,), (value,)))
            else:
                kinds.append(kind)
                rest.append(value)
        return Log(address, tuple(topics), abi.encode(kinds, rest), number, block_hash, tx, at)

    def _hash(self, number: int, fork: int) -> Digest:
        return keccak256(b"fake block" + number.to_bytes(8, "big") + fork.to_bytes(8, "big"))


def _revert_data(refused: Refused) -> bytes:
    for selector, item in abi.all_errors().items():
        if item.name == refused.name:
            return selector + abi.encode(item.inputs, refused.arguments)
    raise Reverted(f"The fake contracts use an error that does not exist: {refused.name}.", name=refused.name)
