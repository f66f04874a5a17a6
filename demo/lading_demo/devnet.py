"""`make devnet N=100`: coordinators and many light hosts in one process, over real sockets on loopback.

Real nodes, coordinators and HTTP; the chain and the model are those in memory. Consumers are anybody who speaks HTTP.
`--check` asks while a part of the hosts dies and comes back, and says how that went.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec

from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_coordinator.agents import entry_of
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectTransport
from lading_node.agents import Serving
from lading_node.core.policy import Policy
from lading_node.disk import Identity
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec
from lading_node.errors import NoPackage
from lading_node.node import Node, Plan
from lading_node.ports import Doors, Package
from lading_node.store import Ledger
from lading_protocol.ids import AgentId, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest, agent_id, dump
from lading_protocol.parts import Operation, Runtime, describe_file
from lading_protocol.pricing import Price
from lading_protocol.transcript import sha256

COIN = 10**18
DEPOSIT = 100_000 * COIN
TOKEN_SECONDS = 0.005
FIRST_PORT = 8700
LANES = 8
ENOUGH = 0.95
"""The share of jobs that must be answered: one that meets two deaths is refused, lest it be what kills the hosts."""
ANYWHERE = "/ip4/127.0.0.1/tcp/0"


def key(name: str) -> PrivateKey:
    return PrivateKey(sha256(b"lading devnet " + name.encode()))


MANIFEST = Manifest(
    schema="lading.agent/1",
    name="sailor",
    version="1",
    publisher="0x" + key("publisher").address.hex(),
    summary="Tells of the sea; a model of no size, for trying the network.",
    licence="Apache-2.0",
    api=(Operation("chat"),),
    context=1024,
    runtimes=(Runtime("memory", "model.bin", "f32", "onnx-f32-cpu"),),
    files=(describe_file("model.bin", "model", b"sea"),),
)
AGENT: AgentId = agent_id(dump(MANIFEST))


class Shelf:
    """The one agent, which has no files to fetch."""

    def has(self, agent: AgentId) -> bool:
        return agent == AGENT

    def release(self, agent: AgentId) -> None: ...

    async def get(self, agent: AgentId, note: Callable[[str], None]) -> Package:
        if agent != AGENT:
            raise NoPackage("A devnet has one agent only.")
        return Package(agent, MANIFEST, MANIFEST.runtimes[0], EngineSpec("memory", context=1024, slots=4, seed="sea"))


class LightHost:
    """A node that dies and comes back; its ledger lasts, as a disk would."""

    def __init__(self, net: Devnet, nth: int) -> None:
        self.net, self.nth, self.key = net, nth, key(f"host {nth}")
        self.alive = False
        contracts = net.contracts.deployment
        self._ledger = Ledger.open(None, Identity(self.key.address, contracts.chain_id, contracts.settlement))

    async def up(self) -> None:
        net, transport = self.net, DirectTransport(self.key)
        doors = Doors(
            key=self.key,
            transport=transport,
            gossip=None,
            contracts=net.contracts,
            ledger=self._ledger,
            packages=Shelf(),
            engine=lambda spec: MemoryEngine(spec, token_delay=TOKEN_SECONDS),
            clock=time.time,
            rng=random.Random(),
            direct=transport,
        )
        price = Price(Wei(COIN // 1000 + self.nth), Wei(COIN // 500 + self.nth))
        plan = Plan(
            agents=(Serving(AGENT, net.terms, price),),
            listen=(ANYWHERE,),
            coordinators=net.endpoints,
            policy=Policy(Wei(DEPOSIT), 86_400.0),
            drain=1.0,
            redeem_at_stop=False,
            chain_poll=10.0,
        )
        self.node = Node(doors, plan)
        self._task = asyncio.create_task(self.node.run())
        await self.node.started.wait()
        self.alive = True

    async def die(self) -> None:
        """As a killed process does: nothing is drained."""
        self.alive = False
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def leave(self) -> None:
        if self.alive:
            await self.die()
        await self._ledger.close()


class Devnet:
    """`async with` it: up to the end of the block. `hosts` are ready and `api_key` pays when the block begins."""

    def __init__(self, count: int, coordinators: int = 2, first_port: int = 0) -> None:
        self._count, self._coordinators, self._first_port = count, coordinators, first_port
        self.hosts: list[LightHost] = []
        self.coordinators: list[Coordinator] = []
        self.endpoints: tuple[str, ...] = ()
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        host, port = self.coordinators[0].http_address
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Devnet:
        try:
            await self._build()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def settled(self, seconds: float = 60.0) -> None:
        """Until every living host is known at every coordinator. Raises TimeoutError."""
        wanted = {host.key.address for host in self.hosts if host.alive}
        async with asyncio.timeout(seconds):
            while any(not wanted <= _present(each) for each in self.coordinators):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def ask(self, client: httpx.AsyncClient, question: str, tokens: int = 60) -> httpx.Response:
        """What a consumer with any OpenAI client would send."""
        messages = [{"role": "user", "content": question}]
        body = {"model": MANIFEST.name, "messages": messages, "max_tokens": tokens, "temperature": 0, "seed": 7}
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return await client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)

    async def churn(self, share: float, lasting: float, rng: random.Random) -> int:
        """So many hosts die one after the other, every second one amid a job, and come back a second later; how many
        deaths that were."""
        deaths = round(share * len(self.hosts))
        returning = []
        for nth in range(deaths):
            await asyncio.sleep(lasting / deaths)
            alive = [host for host in self.hosts if host.alive]
            host = await self._amid_a_job(alive, rng) if nth % 2 else rng.choice(alive)
            await host.die()
            returning.append(asyncio.create_task(self._back(host)))
        await asyncio.gather(*returning)
        return deaths

    async def _amid_a_job(self, alive: list[LightHost], rng: random.Random) -> LightHost:
        """One that has begun to answer; any, where nobody does for a second."""
        for _ in range(200):
            if busy := [host for host in alive if host.node.desk.answering]:
                return rng.choice(busy)
            await asyncio.sleep(0.005)
        return rng.choice(alive)

    async def _back(self, host: LightHost) -> None:
        await asyncio.sleep(1.0)
        await host.up()

    async def _build(self) -> None:
        chain = FakeChain(time.time)
        self.contracts = Contracts(chain, await deploy(chain, key("treasury"), Parameters.devnet()))
        publisher = key("publisher")
        await self.contracts.registry.register(publisher, AGENT)
        parties = [Party(publisher.address, Role.MAKER, 1000)]
        self.terms = TermsId(await self.contracts.registry.agree_terms(publisher, AGENT, parties))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lading-devnet-")))
        for nth in range(self._coordinators):
            await self._coordinator(nth, folder / f"coordinator{nth}")
        self.hosts = [LightHost(self, nth) for nth in range(self._count)]
        for host in self.hosts:
            self._stack.push_async_callback(host.leave)
            await host.up()
        await self.settled()
        await self._consumer(key("consumer"))

    async def _coordinator(self, nth: int, home: Path) -> None:
        who = key(f"coordinator {nth}")
        transport = DirectTransport(who)
        endpoint = await transport.listen(ANYWHERE)
        port = self._first_port + nth if self._first_port else 0
        settings = CoordinatorSettings(home=str(home), audits=False, require_stake=False, http_port=port, drain=0.0)
        made = Coordinator(settings, Outside(who, self.contracts, transport, None, (endpoint,)))
        task = asyncio.create_task(made.serve())

        async def end() -> None:
            made.stop.set()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        ready = asyncio.create_task(made.ready.wait())
        await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
        if not made.ready.is_set():
            ready.cancel()
            await task
        made.catalogue.add(entry_of(AGENT, MANIFEST, 0))
        self.coordinators.append(made)
        self.endpoints = (*self.endpoints, endpoint)

    async def _consumer(self, who: PrivateKey) -> None:
        contracts, settlement = self.contracts, self.contracts.settlement
        await contracts.coin.transfer(key("treasury"), who.address, DEPOSIT)
        await contracts.coin.allow(who, contracts.deployment.settlement, DEPOSIT)
        await settlement.deposit(who, DEPOSIT)
        made = self.coordinators[0].sessions.create(who.address)
        await settlement.authorize(who, made.session, DEPOSIT, int(time.time()) + 86_400, made.consent)
        self.api_key = made.api_key


class Outcome(msgspec.Struct, frozen=True):
    """Jobs that were asked, answered wholly, moved from a host that died, and refused by code; waits in seconds."""

    hosts: int
    deaths: int
    jobs: int
    answered: int
    moved: int
    refused: dict[str, int]
    p50: float
    p99: float


async def check(net: Devnet, jobs: int, share: float, lasting: float, seed: int) -> Outcome:
    """Jobs one after the other in a few lanes, while a share of the hosts dies and comes back. Every answer must be
    the one that an undisturbed network gives, or a clear refusal."""
    rng = random.Random(seed)
    answers: dict[str, str] = {}
    moved: list[str] = []
    refused: Counter[str] = Counter()
    waits: list[float] = []
    async with httpx.AsyncClient(timeout=60) as client:

        async def lane(number: int) -> None:
            for nth in range(jobs // LANES):
                # Each asks something else: a question under which hosts die is kept from others.
                question = f"Tell me of the sea, {number} {nth}."
                began = time.perf_counter()
                answer = await net.ask(client, question)
                waits.append(time.perf_counter() - began)
                if answer.status_code == 200:
                    body = answer.json()
                    answers[question] = body["choices"][0]["message"]["content"]
                    moved.extend([question] * (len(body["lading"]["parts"]) > 1))
                else:
                    refused[answer.json()["error"]["code"]] += 1
                await asyncio.sleep(rng.random() * LANES * lasting / jobs)

        churning = asyncio.create_task(net.churn(share, lasting, rng))
        await asyncio.gather(*map(lane, range(LANES)))
        deaths = await churning
        for question in (*moved, *rng.sample(sorted(answers), min(LANES, len(answers)))):
            again = (await net.ask(client, question)).json()["choices"][0]["message"]["content"]
            if again != answers[question]:
                raise AssertionError(f"the answer to {question!r} was not whole")
    p99 = sorted(waits)[min(len(waits) - 1, round(0.99 * len(waits)))]
    p50, asked = statistics.median(waits), len(waits)
    return Outcome(len(net.hosts), deaths, asked, len(answers), len(moved), dict(refused), p50, p99)


def _present(coordinator: Coordinator) -> set[bytes]:
    hosts = coordinator.directory.hosts()
    return {known.host for known in coordinator.directory.offers(AGENT) if hosts[known.host].beat_at is not None}


async def _serve(count: int) -> None:
    async with Devnet(count, first_port=FIRST_PORT) as net:
        print(f"{count} hosts serve the model {MANIFEST.name!r} at {net.url}/v1; its status page is {net.url}/")
        print(f"  export OPENAI_BASE_URL={net.url}/v1 OPENAI_API_KEY={net.api_key}")
        print("Ctrl-C ends it.", flush=True)
        await asyncio.Event().wait()


async def _check(count: int, jobs: int, share: float, lasting: float, seed: int) -> int:
    async with Devnet(count) as net:
        found = await check(net, jobs, share, lasting, seed)
    print(json.dumps(msgspec.to_builtins(found) | {"seed": seed}), flush=True)
    return 0 if found.answered >= ENOUGH * found.jobs else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lading_demo.devnet", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="how many hosts")
    parser.add_argument("--check", action="store_true", help="ask while hosts die, say how it went, and end")
    parser.add_argument("--jobs", type=int, default=160, help="what is asked meanwhile, in all")
    parser.add_argument("--churn", type=float, default=0.3, help="the share of hosts that dies meanwhile")
    parser.add_argument("--seconds", type=float, default=10.0, help="within which they die")
    any_seed = random.SystemRandom().randrange(1 << 32)
    parser.add_argument("--seed", type=int, default=any_seed, help="of who dies and when; any by default, and printed")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    work = _check(chosen.count, chosen.jobs, chosen.churn, chosen.seconds, chosen.seed) if chosen.check else None
    try:
        if work is not None:
            return asyncio.run(work)
        asyncio.run(_serve(chosen.count))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
