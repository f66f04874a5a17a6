"""One host's redemption under a magnifying glass: every step has a name, and something may befall the world at any.

`Dock` is the world: a chain with a payer's two session keys on it, and a host's disk. A `Life` is one run of the
host's settling parts over that disk. A step is every question to the chain, every stage of a transaction, and
every write to the disk: what comes after one step comes before the next.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from factories import key
from lading_contracts import abi
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_contracts.port import Block
from lading_contracts.registry import Party, Role
from lading_contracts.settlement import ChannelKey, pack_rows
from lading_contracts.transactions import Fees, Unsigned, read, sign
from lading_net.memory import MemoryNetwork
from lading_node.channels import Channels
from lading_node.core.channel import ChannelId
from lading_node.core.policy import Policy
from lading_node.disk import Identity
from lading_node.engines.memory import MemoryEngine
from lading_node.ports import Doors
from lading_node.settle import Settler
from lading_node.store import Ledger
from lading_node.watch import Watch
from lading_protocol.ids import Address, Digest, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import Lock, SignedLock, SignedVoucher, Voucher
from simulation.flow.people import copy_disk
from simulation.node_world import AGENT, COIN, EPOCH, Shelf

HOST, PAYERS = key("host"), (key("payer one"), key("payer two"))
MAKER, RIVAL, TREASURY = key("maker"), key("rival"), key("treasury")
LOCKED, FIRST, SECOND = 1_000 * COIN, 100 * COIN + 7, 555 * COIN + 1
ALWAYS = Policy(Wei(1), 0.0)
POLL = 50.0


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


class Killed(BaseException):
    """The host's process is gone, in the middle of what it did."""


Hand = Callable[[str], Awaitable[None]]


class Perilous(FakeChain):
    """The fake chain, with a step before every question; what comes after an answer is before the next step."""

    beside_another = 0
    tried = 0
    lags = False
    first_answers: dict[tuple[Address, bytes], bytes] | None = None

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        await self.step("asking")
        answer = await super().call(to, data, sender)
        if self.first_answers is None:
            return answer
        first = self.first_answers.setdefault((to, data), answer)
        return first if self.lags else answer

    async def block(self, number: int | None = None) -> Block | None:
        await self.step("asking for a block")
        return await super().block(number)

    async def call_as_sent(self, sender: Address, to: Address | None, data: bytes, value: int) -> None:
        self.tried += 1
        await super().call_as_sent(sender, to, data, value)

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

    def _commit(self, writes: Iterable[Any]) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super()._commit(writes)


class Life:
    """The settling parts of a node, from a start to a crash or the end."""

    def __init__(self, contracts: Contracts, folder: Path, step: Hand) -> None:
        record = contracts.deployment
        opened = PerilousLedger.open(folder, Identity(HOST.address, record.chain_id, record.settlement))
        assert isinstance(opened, PerilousLedger)
        self.contracts = contracts
        self.ledger = opened
        self.ledger.step = step
        doors = Doors(
            key=HOST,
            transport=MemoryNetwork(0).transport(HOST),
            gossip=None,
            contracts=contracts,
            ledger=self.ledger,
            packages=Shelf(),
            engine=MemoryEngine,
            clock=now,
            rng=random.Random(0),
        )
        self.channels = Channels(HOST.address, self.ledger, contracts, now)
        self.settler = Settler(doors, self.channels, ALWAYS)
        self.watch = Watch(doors, self.channels, self.settler.poke, POLL)
        self.tasks: list[asyncio.Task[None]] = []

    def go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self.settler.run()), loop.create_task(self.watch.run())]

    async def receive(self, papers: "Papers", payers: Sequence[PrivateKey] = PAYERS) -> None:
        """A lock and a first voucher of each payer, as jobs would have brought them."""
        for payer in payers:
            await self.ledger.put_lock(papers.id(payer), papers.lock(payer), payer.address)
            await self.promise(papers, payer, FIRST)
        await self.channels.load()

    async def promise(self, papers: "Papers", payer: PrivateKey, cumulative: int) -> None:
        await self.ledger.put_voucher(papers.id(payer), papers.voucher(payer, cumulative), payer.address, now())

    async def check(self, terms: TermsId, *, watched: bool = False) -> None:
        """All that was promised is redeemed once, the host's book says the same as the chain, and nothing hangs.

        `watched`: the newest blocks may still be, and nothing else.
        """
        settlement, coin = self.contracts.settlement, self.contracts.coin
        free = sum([(await settlement.account(payer.address)).free for payer in PAYERS])
        redeemed = locked = 0
        for row in await self.ledger.channels():
            channel = await settlement.channel(ChannelKey(row.id.signer, HOST.address, terms, 0))
            assert channel.redeemed == row.signed, "a voucher's money is not redeemed, or more than it"
            assert (row.locked, row.redeemed) == (channel.locked, channel.redeemed)
            redeemed += channel.redeemed
            locked += channel.locked - channel.redeemed
        assert redeemed == await settlement.gross(terms)
        host, pool = await settlement.host_balance(HOST.address), await settlement.earned(terms)
        assert host + pool == redeemed
        assert await coin.balance(settlement.address) == free + locked + host + pool
        assert sum(one.amount for one in await self.ledger.redemptions()) == redeemed, "the book differs from the chain"
        sendings = await self.ledger.sendings()
        assert not [one for one in sendings if one.open or not watched]
        assert len(self.settler.on_the_way) == len(sendings)
        assert (self.settler.status, self.watch.trouble) == ("", "")

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.ledger.close()


class Papers:
    """What the payers sign, under one table of terms."""

    def __init__(self, contracts: Contracts, terms: TermsId) -> None:
        self._domain = contracts.deployment.settlement_domain
        self._settlement = contracts.settlement
        self._terms = terms

    def id(self, payer: PrivateKey) -> ChannelId:
        return ChannelId(payer.address, self._terms, 0)

    def lock(self, payer: PrivateKey) -> SignedLock:
        return Lock(HOST.address, self._terms, 0, LOCKED).sign(self._domain, payer)

    def voucher(self, payer: PrivateKey, cumulative: int) -> SignedVoucher:
        return Voucher(HOST.address, self._terms, 0, cumulative).sign(self._domain, payer)

    def call(self, payers: Sequence[PrivateKey] = PAYERS) -> bytes:
        """All first rows, as anybody may send them."""
        locks = pack_rows((LOCKED, self.lock(payer).signature) for payer in payers)
        vouchers = pack_rows((FIRST, self.voucher(payer, FIRST).signature) for payer in payers)
        return abi.load("Settlement").call("lockAndRedeem", HOST.address, self._terms, 0, locks, vouchers)


async def furnish(contracts: Contracts, treasury: PrivateKey) -> TermsId:
    """Terms that split, and a deposit of each payer."""
    await contracts.registry.register(MAKER, AGENT)
    share = [Party(MAKER.address, Role.MAKER, 1_234)]
    terms = await contracts.registry.agree_terms(MAKER, AGENT, share)
    for payer in PAYERS:
        await contracts.coin.transfer(treasury, payer.address, LOCKED)
        await contracts.coin.allow(payer, contracts.settlement.address, LOCKED)
        await contracts.settlement.deposit(payer, LOCKED)
    return TermsId(terms)


class Harbour:
    """The chain with all that stories begin with. Made once: each story rewinds it."""

    made: "Harbour | None" = None

    @classmethod
    async def open(cls) -> "Harbour":
        if cls.made is None:
            cls.made = cls()
            await cls.made._build()
        harbour = cls.made
        harbour.chain.down = False
        harbour.chain.forget()
        harbour.chain.rewind(harbour.base)
        harbour.chain.beside_another = 0
        return harbour

    async def _build(self) -> None:
        self.chain = Perilous(now, block_time=60.0)
        self.contracts = Contracts(self.chain, await deploy(self.chain, TREASURY, Parameters.devnet()))
        self.terms = await furnish(self.contracts, TREASURY)
        self.papers = Papers(self.contracts, self.terms)
        self.chain.mine(3)
        self.base = self.chain._blocks[-1].block.number
        self.chain.inclusion_delay = 4.0


class Dock:
    """A story's beginning: a host that holds a lock and a voucher of each payer.

    `labels` are the steps so far; `hand` is called with each, and may do anything.
    """

    def __init__(self, folder: Path, harbour: Harbour) -> None:
        self.chain, self.contracts, self.base = harbour.chain, harbour.contracts, harbour.base
        self.terms, self.papers = harbour.terms, harbour.papers
        self.chain.step = self.step
        self.labels: list[str] = []
        self.hand: Hand | None = None
        self.killed = asyncio.Event()
        self._folder = folder
        self._crashes = 0

    @classmethod
    async def open(cls, folder: Path) -> "Dock":
        dock = cls(folder, await Harbour.open())
        dock.life = Life(dock.contracts, dock.home, dock.step)
        await dock.life.receive(dock.papers)
        return dock

    @property
    def home(self) -> Path:
        return self._folder / str(self._crashes)

    async def step(self, label: str) -> None:
        if self.hand is not None:
            self.labels.append(label)
            await self.hand(label)

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
        self.life = Life(self.contracts, self.home, self.step)
        await self.life.channels.load()

    # What others do

    def rival_lands_the_rows(self) -> None:
        self._at_once(RIVAL, self.contracts.settlement.address, self.papers.call())

    def rival_lands(self, payer: PrivateKey, cumulative: int) -> None:
        row = pack_rows([(cumulative, self.papers.voucher(payer, cumulative).signature)])
        call = abi.load("Settlement").call("redeem", HOST.address, self.terms, 0, row)
        self._at_once(RIVAL, self.contracts.settlement.address, call)

    def nonce_is_used_elsewhere(self) -> None:
        """The operator's wallet uses the node's key: whatever waits under this nonce is pushed out."""
        self._at_once(HOST, MAKER.address, b"")

    def _at_once(self, who: PrivateKey, to: Address, data: bytes) -> None:
        delay, self.chain.inclusion_delay = self.chain.inclusion_delay, 0.0
        nonce = self.chain._world.nonces[who.address]
        self.chain.post(sign(Unsigned(self.chain.chain_id, nonce, Fees(9, 9), 0, to, 0, data), who).raw)
        self.chain._catch_up()
        self.chain.inclusion_delay = delay

    async def outage(self, seconds: float) -> None:
        self.chain.down = True
        asyncio.get_running_loop().call_later(seconds, setattr, self.chain, "down", False)
