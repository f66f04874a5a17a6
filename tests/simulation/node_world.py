"""Nodes as they really are, on the in-memory network, the fake chain and the virtual clock; a payer beside them.

`Sea` holds what all share. Nothing here mocks our own code: only the doors are the in-memory ones.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import msgspec

from factories import chat_request, key
from lading.dispatch import Ask, Directory, Dispatcher, Payer, Purse
from lading.dispatch.dispatcher import Ended, Limits, Piece
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_net.memory import Conditions, MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Stream, Transport
from lading_node.agents import Serving
from lading_node.core.policy import Policy
from lading_node.disk import Identity
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec
from lading_node.errors import NoPackage
from lading_node.node import Node, Plan
from lading_node.ports import Doors, Package, Packages
from lading_node.store import Ledger
from lading_protocol.ids import AgentId, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest, agent_id, dump
from lading_protocol.messages import (
    HEARTBEAT,
    SETTLE,
    VOUCHER_PAGE,
    Beat,
    ChatRequest,
    Collect,
    Hello,
    ToIndex,
    Vouchers,
)
from lading_protocol.offers import check_advert
from lading_protocol.parts import Operation, Runtime, describe_file
from lading_protocol.pricing import Price

COIN = 10**18
PRICE = Price(Wei(COIN // 100), Wei(COIN // 50))
EPOCH = 1_800_000_000.0

MANIFEST = Manifest(
    schema="lading.agent/1",
    name="toy",
    version="1",
    publisher="0x" + key("publisher").address.hex(),
    summary="A toy.",
    licence="Apache-2.0",
    api=(Operation("chat"), Operation("embed"), Operation("echo")),
    context=1024,
    runtimes=(Runtime("memory", "model.bin", "f32", "onnx-f32-cpu"),),
    files=(describe_file("model.bin", "model", b"toy"),),
)
AGENT: AgentId = agent_id(dump(MANIFEST))


class Shelf:
    """Packages without files. `seed` names the weights: a cheating host has others under the same name."""

    def __init__(self, seed: str = "toy", slots: int = 4) -> None:
        self._seed = seed
        self._slots = slots

    def has(self, agent: AgentId) -> bool:
        return agent == AGENT

    def release(self, agent: AgentId) -> None: ...

    async def get(self, agent: AgentId, note: Callable[[str], None]) -> Package:
        if agent != AGENT:
            raise NoPackage("There is only the toy here.")
        spec = EngineSpec("memory", context=1024, slots=self._slots, seed=self._seed)
        return Package(agent, MANIFEST, MANIFEST.runtimes[0], spec)


class Sea:
    """The chain, the network and the parties. Make it with `await Sea.create()` inside a virtual loop."""

    def __init__(self, network: MemoryNetwork, chain: FakeChain, contracts: Contracts, terms: TermsId) -> None:
        self.network = network
        self.chain = chain
        self.contracts = contracts
        self.terms = terms

    @classmethod
    async def create(
        cls, seed: int = 0, conditions: Conditions | None = None, block_time: float = 2.0, appeal_window: int = 5
    ) -> "Sea":
        network = MemoryNetwork(seed, conditions or Conditions(delay=0.01))
        chain = FakeChain(cls.now, inclusion_delay=block_time / 2, block_time=block_time)
        treasury = key("treasury")
        devnet = Parameters.devnet()
        court = msgspec.structs.replace(devnet.court, appeal_window=appeal_window)
        record = await deploy(chain, treasury, msgspec.structs.replace(devnet, court=court))
        contracts = Contracts(chain, record)
        maker = key("maker")
        await contracts.registry.register(maker, AGENT)
        terms = await contracts.registry.agree_terms(maker, AGENT, [Party(maker.address, Role.MAKER, 1000)])
        return cls(network, chain, contracts, TermsId(terms))

    @staticmethod
    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    @property
    def record(self) -> Deployment:
        return self.contracts.deployment

    def ledger(self, who: PrivateKey, folder: Path | None = None) -> Ledger:
        return Ledger.open(folder, Identity(who.address, self.record.chain_id, self.record.settlement))

    def node(
        self,
        name: str,
        *,
        coordinators: tuple[str, ...] = (),
        folder: Path | None = None,
        seed: str = "toy",
        token_delay: float = 0.02,
        engine: Callable[[EngineSpec], object] | None = None,
        rng: int = 0,
        packages: Packages | None = None,
        **plan: object,
    ) -> Node:
        who = key(name)
        doors = Doors(
            key=who,
            transport=self.network.transport(who),
            gossip=self.network.gossip(who),
            contracts=self.contracts,
            ledger=self.ledger(who, folder),
            packages=packages or Shelf(seed),
            engine=engine or (lambda spec: MemoryEngine(spec, token_delay=token_delay)),  # type: ignore[arg-type]
            clock=self.now,
            rng=random.Random(rng),
        )
        base = Plan(
            agents=(Serving(AGENT, self.terms, PRICE),),
            listen=("/ip4/10.0.0.1/tcp/0",),
            coordinators=coordinators,
            policy=Policy(Wei(COIN), 30.0),
            drain=5.0,
        )
        return Node(doors, msgspec.structs.replace(base, **plan))

    async def fund(self, who: PrivateKey, amount: int = 1000 * COIN) -> None:
        coin, settlement = self.contracts.coin, self.contracts.settlement
        await coin.transfer(key("treasury"), who.address, amount)
        await coin.allow(who, self.record.settlement, amount)
        await settlement.deposit(who, amount)


class Shore(Protocol):
    """What a gateway needs to know of its surroundings, real or not."""

    @property
    def record(self) -> Deployment: ...

    def now(self) -> float: ...


class Gateway:
    """The paying side as a coordinator has it: takes heartbeats, serves SETTLE, dispatches jobs."""

    def __init__(
        self,
        sea: "Sea | Shore",
        name: str = "gateway",
        limits: Limits | None = None,
        transport: Transport | None = None,
        agent: AgentId = AGENT,
        *,
        bare: bool = False,
    ) -> None:
        self.sea = sea
        self.agent = agent
        self.key = key(name)
        self.transport = transport or cast(Sea, sea).network.transport(self.key)
        self.directory = Directory(needs_beats=True)
        self.purse = Purse(":memory:", sea.record.settlement_domain)
        self._ended: list[Ended] = []
        self.dispatcher = Dispatcher(
            self.transport,
            self.directory,
            self.purse,
            sea.record,
            sea.now,
            random.Random(7),
            limits or Limits(first=10.0, between=4.0),
            self._ended.append,
            bare=bare,
        )
        self.payer = Payer(self.key, self.key.address, Wei(1000 * COIN))
        self.endpoint = ""

    @property
    def ended(self) -> list[Ended]:
        """The accounts of all jobs, once what they come to is signed for."""
        self.dispatcher.funds.tab.sign_all()
        return self._ended

    async def start(self, endpoint: str = "/ip4/10.9.9.9/tcp/4100") -> str:
        self.transport.handle(HEARTBEAT, self._beats)
        self.transport.handle(SETTLE, self._settle)
        self.endpoint = await self.transport.listen(endpoint)
        return self.endpoint

    async def offers(self, count: int) -> None:
        """Wait until so many hosts are eligible."""
        while sum(not one.barred for one in self.directory.candidates(self.agent)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def ask(self, request: ChatRequest | None = None) -> tuple[str, list[int]]:
        text, ids = "", list[int]()
        async for event in self.dispatcher.run(self.payer, Ask(self.agent, request or chat_request(max_tokens=100))):
            if isinstance(event, Piece):
                assert event.first == len(ids)
                text += event.text
                ids += event.ids
        return text, ids

    async def _beats(self, stream: Stream) -> None:
        messages: MessageStream[Hello | Beat] = MessageStream(stream, msgspec.msgpack.Decoder(ToIndex))
        try:
            while (message := await messages.recv()) is not None:
                now = self.sea.now()
                if isinstance(message, Hello):
                    known = [check_advert(one, self.sea.record.settlement_domain, now) for one in message.adverts]
                    self.directory.replace(stream.peer, known)
                else:
                    self.directory.beat(stream.peer, message.free, message.waiting, now)
        finally:
            self.directory.gone(stream.peer)

    async def _settle(self, stream: Stream) -> None:
        messages: MessageStream[Collect] = MessageStream(stream, msgspec.msgpack.Decoder(Collect))
        if await messages.recv() is not None:
            for page in self.purse.pages(stream.peer, VOUCHER_PAGE):
                messages.send(Vouchers(tuple(page)))
            await messages.drain()
