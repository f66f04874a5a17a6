"""One host's redemption under a magnifying glass: every step has a name, and something may befall the world at any.

`Dock` is the world: a chain with a payer's two session keys on it, and a host's disk. A `Life` is one run of the
host's settling parts over that disk. A step is every question to the chain, every stage of a transaction, and both
sides of every write to the disk.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from factories import key
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_contracts.port import Block, Signer
from lading_contracts.registry import Party, Role
from lading_contracts.settlement import ChannelKey, pack_rows
from lading_contracts.transactions import Fees, Unsigned, read, sign
from lading_net.memory import MemoryNetwork
from lading_node.channels import Channels
from lading_node.core.channel import ChannelId
from lading_node.core.policy import Policy
from lading_node.engines.memory import MemoryEngine
from lading_node.ports import Doors
from lading_node.settle import Settler
from lading_node.store import Identity, Ledger
from lading_node.watch import Watch
from lading_protocol.ids import Address, Digest, TermsId, Wei
from lading_protocol.receipts import Lock, SignedLock, SignedVoucher, Voucher
from simulation.flow.people import copy_disk
from simulation.node_world import AGENT, EPOCH, Shelf

HOST, PAYERS = key("host"), (key("payer one"), key("payer two"))
MAKER, RIVAL, TREASURY = key("maker"), key("rival"), key("treasury")
LOCKED = 1_000
ALWAYS = Policy(Wei(1), 0.0)
POLL = 20.0


class Killed(BaseException):
    """The host's process is gone, in the middle of what it did."""


Hand = Callable[[str], Awaitable[None]]


class Perilous(FakeChain):
    """The fake chain, with a step before every question; what comes after an answer is before the next step."""

    beside_another = 0

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        await self.step("asking")
        return await super().call(to, data, sender)

    async def block(self, number: int | None = None) -> Block | None:
        await self.step("asking for a block")
        return await super().block(number)

    def post(self, raw: bytes) -> Digest:
        """The rule that is never broken: a settlement goes out only when no other one of this host still waits."""
        said, sender = read(raw)
        waiting = [one.said for one in self._pool.values() if one.sender == sender == HOST.address]
        if said.data and said not in waiting and any(one.data and one.nonce != said.nonce for one in waiting):
            self.beside_another += 1
        return super().post(raw)


class PerilousLedger(Ledger):
    """The real ledger, with a step on both sides of every write; its disk may be full for a while."""

    step: Hand
    full = False

    async def _write(self, *write: Any) -> None:
        await self.step("writing")
        await super()._write(*write)
        await self.step("written")

    def _commit(self, writes: Iterable[Any]) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super()._commit(writes)


class Life:
    """The settling parts of a node, from a start to a crash or the end."""

    def __init__(self, dock: "Dock", folder: Path) -> None:
        record = dock.contracts.deployment
        opened = PerilousLedger.open(folder, Identity(HOST.address, record.chain_id, record.settlement))
        assert isinstance(opened, PerilousLedger)
        self.ledger = opened
        self.ledger.step = dock.chain.step
        doors = Doors(
            key=HOST,
            transport=MemoryNetwork(0).transport(HOST),
            gossip=None,
            contracts=dock.contracts,
            ledger=self.ledger,
            packages=Shelf(),
            engine=MemoryEngine,
            clock=dock.now,
            rng=random.Random(0),
        )
        self.channels = Channels(HOST.address, self.ledger, dock.contracts, dock.now)
        self.settler = Settler(doors, self.channels, ALWAYS)
        self.watch = Watch(doors, self.channels, self.settler.poke, POLL)
        self.tasks: list[asyncio.Task[None]] = []

    def go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self.settler.run()), loop.create_task(self.watch.run())]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.ledger.close()


class Dock:
    """`labels` are the steps so far; `hand` is called with each, and may do anything."""

    def __init__(self, folder: Path) -> None:
        self.chain = Perilous(self.now, inclusion_delay=4.0, block_time=12.0)
        self.chain.step = self._step
        self.labels: list[str] = []
        self.hand: Hand | None = None
        self.killed = asyncio.Event()
        self._folder = folder
        self._crashes = 0

    @staticmethod
    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    @property
    def home(self) -> Path:
        return self._folder / str(self._crashes)

    async def _step(self, label: str) -> None:
        if self.hand is not None:
            self.labels.append(label)
            await self.hand(label)

    async def open(self) -> None:
        """Deposits, terms, and a host that holds a lock and a voucher of two payers."""
        delay, self.chain.inclusion_delay = self.chain.inclusion_delay, 0.0
        self.contracts = Contracts(self.chain, await deploy(self.chain, TREASURY, Parameters.devnet()))
        await self.contracts.registry.register(MAKER, AGENT)
        share = [Party(MAKER.address, Role.MAKER, 1_234)]
        self.terms = TermsId(await self.contracts.registry.agree_terms(MAKER, AGENT, share))
        for payer in PAYERS:
            await self.contracts.coin.transfer(TREASURY, payer.address, LOCKED)
            await self.contracts.coin.allow(payer, self.contracts.settlement.address, LOCKED)
            await self.contracts.settlement.deposit(payer, LOCKED)
        self.chain.inclusion_delay = delay
        self.chain.mine(3)
        head = await self.chain.block()
        assert head is not None
        self.base = head.number
        self.life = Life(self, self.home)
        for at, payer in enumerate(PAYERS):
            await self.life.ledger.put_lock(self.id(payer), self.lock(payer), payer.address)
            await self.promise(at, 100 + at)
        await self.life.channels.load()

    def crash(self) -> None:
        """What a restart will find is what the disk has now; what this life still does reaches no disk any more."""
        before, self._crashes = self.home, self._crashes + 1
        copy_disk(before, self.home)
        self.killed.set()
        raise Killed

    async def again(self) -> None:
        """The next life, over the disk that the crash left."""
        self.killed.clear()
        await self.life.end()
        self.life = Life(self, self.home)
        await self.life.channels.load()

    # Papers

    def id(self, payer: Signer) -> ChannelId:
        return ChannelId(payer.address, self.terms, 0)

    def lock(self, payer: Any) -> SignedLock:
        return Lock(HOST.address, self.terms, 0, LOCKED).sign(self.contracts.deployment.settlement_domain, payer)

    def voucher(self, payer: Any, cumulative: int) -> SignedVoucher:
        return Voucher(HOST.address, self.terms, 0, cumulative).sign(self.contracts.deployment.settlement_domain, payer)

    async def promise(self, at: int, cumulative: int) -> None:
        payer = PAYERS[at]
        await self.life.ledger.put_voucher(self.id(payer), self.voucher(payer, cumulative), payer.address, self.now())

    # What others do

    def rival_lands_the_rows(self) -> None:
        locks = pack_rows((LOCKED, self.lock(payer).signature) for payer in PAYERS)
        papers = [(100 + at, self.voucher(payer, 100 + at).signature) for at, payer in enumerate(PAYERS)]
        data = self.contracts.settlement._abi.call(
            "lockAndRedeem", HOST.address, self.terms, 0, locks, pack_rows(papers)
        )
        self._at_once(RIVAL, self.contracts.settlement.address, data)

    def nonce_is_used_elsewhere(self) -> None:
        """The operator's wallet uses the node's key: whatever waits under this nonce is pushed out."""
        self._at_once(HOST, MAKER.address, b"")

    def _at_once(self, who: Any, to: Address, data: bytes) -> None:
        delay, self.chain.inclusion_delay = self.chain.inclusion_delay, 0.0
        nonce = self.chain._world.nonces[who.address]
        self.chain.post(sign(Unsigned(self.chain.chain_id, nonce, Fees(9, 9), 0, to, 0, data), who).raw)
        self.chain._catch_up()
        self.chain.inclusion_delay = delay

    async def outage(self, seconds: float) -> None:
        self.chain.down = True
        asyncio.get_running_loop().call_later(seconds, setattr, self.chain, "down", False)

    # What must hold

    async def check(self) -> None:
        """All that was promised is redeemed once, the host's book says the same as the chain, and nothing hangs."""
        settlement, coin = self.contracts.settlement, self.contracts.coin
        redeemed = free = locked = 0
        for row in await self.life.ledger.channels():
            where = ChannelKey(row.id.signer, HOST.address, self.terms, 0)
            channel = await settlement.channel(where)
            assert channel.redeemed == row.signed, "a voucher's money is not redeemed, or more than it"
            assert (row.locked, row.redeemed) == (channel.locked, channel.redeemed)
            redeemed += channel.redeemed
            locked += channel.locked - channel.redeemed
            free += (await settlement.account(row.id.signer)).free
        assert redeemed == await settlement.gross(self.terms)
        host, pool = await settlement.host_balance(HOST.address), await settlement.earned(self.terms)
        assert host + pool == redeemed
        assert await coin.balance(settlement.address) == free + locked + host + pool
        book = await self.life.ledger.redemptions()
        assert sum(one.amount for one in book) == redeemed, "the book differs from the chain"
        assert await self.life.ledger.sendings() == []
        assert (self.life.settler.on_the_way, self.life.settler.status, self.life.watch.trouble) == ([], "", "")
