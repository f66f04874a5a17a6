"""FakeChain: the chain port over the fake contracts. Time comes from outside; outages, delays, lost and rival
transactions and reorganisations on demand.

Every transaction makes a block. With `block_time`, idle time makes empty blocks too, so that block delays pass; they
are counted when somebody looks, at most a few hundred at once, so that a jump of a year costs nothing. Transactions
wait in a pool until they are due, whatever becomes of their sender, and are real ones: signed, with real hashes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from lading_contracts import abi, events, reverts
from lading_contracts.errors import ChainUnreachable, NotIncluded, Replaced, Reverted, RpcFailed
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
from lading_contracts.port import Block, Log, Note, Signed, Signer, TxReceipt
from lading_contracts.transactions import Fees, Unsigned, created_address, read, sign
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
_FREE = Fees(0, 0)
_PATIENCE = 180.0
_SURE = 60.0


class _Pooled(msgspec.Struct):
    """A transaction that no block has yet; `due` is when one takes it."""

    signed: Signed
    said: Unsigned
    sender: Address
    due: float


class _Mined(msgspec.Struct):
    block: Block
    logs: tuple[Log, ...]
    undo: Undo
    transaction: _Pooled | None = None


Outcome: TypeAlias = TxReceipt | Refused


class FakeChain:
    """Implements port.Chain. `down = True` makes every question fail with ChainUnreachable.

    A transaction that is on its way when the chain becomes unreachable is still included; its sender hears of it when
    the chain is reachable again, as on a real chain. Gas is free. `step` is told by name of every step of a `send` or
    `resume`, so that a story can let something happen just there.
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
        self.step: Callable[[str], Awaitable[None]] = _go_on
        self._pool: dict[Digest, _Pooled] = {}
        self._outcomes: dict[Digest, Outcome] = {}
        self._locks: dict[Address, asyncio.Lock] = {}
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

    async def send(
        self, signer: Signer, to: Address | None, data: bytes, value: int = 0, note: Note | None = None
    ) -> TxReceipt:
        async with self._locks.setdefault(signer.address, asyncio.Lock()):
            await self.call_as_sent(signer.address, to, data, value)  # the estimate: refuses what would revert now
            await self.step("estimated")
            draft = Unsigned(self.chain_id, self._next_nonce(signer.address), _FREE, 0, to, value, data)
            signed = sign(draft, signer)
            if note is not None:
                await self.step("signed")
                await note(signed)
                await self.step("noted")
            self._hand_over(signed)
        await self.step("broadcast")
        return await self._arrive(signer, (signed,))

    async def resume(self, signer: Signer, sent: Sequence[Signed], note: Note | None = None) -> TxReceipt:
        self._reach()
        await self.step("asked again")
        if not any(one.hash in self._outcomes for one in sent):
            self._hand_over(sent[-1])
            await self.step("broadcast again")
        return await self._arrive(signer, sent)

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
            self._append((), [], self._now())

    def rewind(self, number: int, *, keep: bool = False) -> None:
        """A reorganisation: forget the blocks above `number` and what they did. New blocks get other hashes.

        `keep`: their transactions go back to the pool and are included again after the usual delay.
        """
        while self._blocks[-1].block.number > number:
            mined = self._blocks.pop()
            self._world.undo = mined.undo
            self._world.roll_back()
            if (back := mined.transaction) is not None:
                del self._outcomes[back.signed.hash]
                if keep:
                    self._pool[back.signed.hash] = msgspec.structs.replace(back, due=self._now() + self.inclusion_delay)
        self._fork += 1

    def post(self, raw: bytes) -> Digest:
        """Take signed bytes into the pool, from whomever. A later one of the same nonce pushes the earlier one out.

        Raises RpcFailed when the nonce is used already.
        """
        said, sender = read(raw)
        tx = Signed(raw, keccak256(raw), said.nonce)
        if tx.hash in self._pool or tx.hash in self._outcomes:
            return tx.hash
        if said.nonce < self._world.nonces[sender]:
            raise RpcFailed(f"nonce too low: next nonce {self._world.nonces[sender]}, tx nonce {said.nonce}")
        self._pool = {
            known: one for known, one in self._pool.items() if (one.sender, one.signed.nonce) != (sender, said.nonce)
        }
        self._pool[tx.hash] = _Pooled(tx, said, sender, self._now() + self.inclusion_delay)
        return tx.hash

    def forget(self) -> int:
        """All pools lose what they hold; how many transactions that were."""
        lost = len(self._pool)
        self._pool.clear()
        return lost

    # --- inside ---

    def _reach(self) -> None:
        if self.down:
            raise ChainUnreachable("The chain is down (an outage of the simulation).")
        self._catch_up()

    def _catch_up(self) -> None:
        now = self._now()
        while (one := self._ready(now)) is not None:
            self._idle(one.due)
            del self._pool[one.signed.hash]
            self._include(one)
        self._idle(now)

    def _idle(self, until: float) -> None:
        if self._block_time > 0:
            idle = int((until - self._blocks[-1].block.timestamp) / self._block_time)
            for _ in range(min(idle, _MOST_EMPTY)):
                self._append((), [], until)

    def _ready(self, now: float) -> _Pooled | None:
        """What the next block takes: what is longest due, of each sender the next nonce first."""
        nonces = self._world.nonces
        ready = [one for one in self._pool.values() if one.due <= now and one.signed.nonce == nonces[one.sender]]
        return min(ready, key=lambda one: one.due, default=None)

    def _next_nonce(self, sender: Address) -> int:
        waiting = [one.signed.nonce + 1 for one in self._pool.values() if one.sender == sender]
        return max([self._world.nonces[sender], *waiting])

    def _hand_over(self, signed: Signed) -> None:
        if self.down:
            raise NotIncluded("The chain went down (an outage of the simulation).", tx=signed.hash)
        self._catch_up()
        try:
            self.post(signed.raw)
        except RpcFailed:
            pass  # its nonce is used: `_arrive` tells by whom

    async def _arrive(self, signer: Signer, sent: Sequence[Signed]) -> TxReceipt:
        waited, nonce = -1.0, sent[-1].nonce
        while True:
            if not self.down:
                self._catch_up()
                for one in sent:
                    if (outcome := self._outcomes.get(one.hash)) is not None:
                        await self.step("included")
                        return _opened(outcome, one.hash)
                if self._world.nonces[signer.address] > nonce:
                    raise Replaced(f"Another transaction of this key took nonce {nonce}.")
                if waited >= _SURE:
                    self._fill(signer, nonce)
            if waited >= _PATIENCE:
                raise NotIncluded(f"No block took the transaction in {waited:.0f} s.", tx=sent[-1].hash)
            if waited < 0:
                delay = self.inclusion_delay
                waited = min(delay, _PATIENCE)
                await self._sleep(waited)
                pooled = self._pool.get(sent[-1].hash)
                if pooled is not None and waited == delay:
                    pooled.due = min(pooled.due, self._now())  # the clock may be one that stands still
            else:
                await self._sleep(1.0)
                waited += 1.0
            await self.step("waited")

    def _fill(self, signer: Signer, nonce: int) -> None:
        """Empty transactions for what is missing before this nonce and waits in no pool."""
        waiting = {one.signed.nonce for one in self._pool.values() if one.sender == signer.address}
        for missing in range(self._world.nonces[signer.address], nonce):
            if missing not in waiting:
                empty = Unsigned(self.chain_id, missing, _FREE, 0, signer.address, 0, b"")
                self.post(sign(empty, signer).raw)

    def _enter(self, now: float | None = None) -> None:
        """Execution sees the next block, as a pending transaction does."""
        moment = self._now() if now is None else now
        self._world.now = max(int(moment), self._blocks[-1].block.timestamp)
        self._world.number = len(self._blocks)
        self._world.undo = []
        self._world.emitted.clear()

    def _include(self, one: _Pooled) -> None:
        sender, said, tx = one.sender, one.said, one.signed.hash
        self._enter(one.due)
        refused: Refused | None = None
        created: Address | None = None
        try:
            created = self._transact(sender, said.to, said.data, said.value)
        except Refused as caught:
            refused = caught
            self._world.roll_back()
            self._world.emitted.clear()
        except RpcFailed:
            self._world.roll_back()
            return  # no block takes it: its value is not covered
        self._world.nonces[sender] = said.nonce + 1
        number = len(self._blocks)
        emitted, undo = tuple(self._world.emitted), self._world.undo
        block_hash = self._hash(number, self._fork)
        logs = tuple(self._log(*what, number, block_hash, tx, at) for at, what in enumerate(emitted))
        self._world.undo = []
        block = self._append(logs, undo, one.due, one)
        receipt = TxReceipt(tx, said.nonce, block.number, block.hash, 0, Wei(0), logs, created)
        self._outcomes[tx] = refused or receipt

    def _append(self, logs: tuple[Log, ...], undo: Undo, now: float, transaction: _Pooled | None = None) -> Block:
        last = self._blocks[-1].block
        number = last.number + 1
        block = Block(number, self._hash(number, self._fork), last.hash, max(int(now), last.timestamp))
        self._blocks.append(_Mined(block, logs, undo, transaction))
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


async def _go_on(step: str) -> None:
    """Nothing happens at any step."""


def _opened(outcome: Outcome, tx: Digest) -> TxReceipt:
    """The receipt. Raises Reverted, with the transaction that failed."""
    if isinstance(outcome, TxReceipt):
        return outcome
    why = reverts.explain(_revert_data(outcome))
    raise Reverted(why.message, name=why.name, arguments=why.arguments, tx=tx, hint=why.hint) from outcome


def _revert_data(refused: Refused) -> bytes:
    for selector, item in abi.all_errors().items():
        if item.name == refused.name:
            return selector + abi.encode(item.inputs, refused.arguments)
    raise Reverted(f"The fake contracts use an error that does not exist: {refused.name}.", name=refused.name)
