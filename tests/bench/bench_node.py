"""What a node costs: tokens per second that reach a payer, against the bare engine loop in one process.

The node is `lading node up` on an embedded EVM, with its ledger on disk and its engine in a child; the payer is the
real dispatcher, over a direct link on loopback, and pays each chunk with a voucher. Bare is model, sampler and append,
no text, no pipe, nobody listening. Both answer the same questions with the same seeds; their tokens must be equal.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from factories import key
from lading import publisher, release
from lading.blobs import BlobStore, serve_blobs
from lading.dispatch import Ask, Piece
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import faucet_key
from lading_contracts.port import Chain
from lading_contracts.rpc import open_chain
from lading_net.direct import DirectTransport
from lading_node.core.sampler import choose
from lading_node.engines.load import language_model
from lading_node.engines.port import EngineSpec
from lading_node.engines.spec import engine_spec
from lading_protocol.ids import AgentId, address, to_hex
from lading_protocol.messages import BLOB, ChatRequest, Message, Sampler
from simulation.node_world import COIN, Gateway

from . import ROOT
from .processes import Program, child_of, cpu_seconds, program, say_ready
from .report import say

CHAIN_ID = 31_340
AGENT = ROOT / "agents" / "chat"
STREAMS = (1, 2, 4)
QUESTIONS = (
    "Tell me a story about a fox and a lantern.",
    "Tell me a story about a bear and a kite.",
    "Tell me a story about an owl and a boat.",
    "Tell me a story about a mouse and a bell.",
)
MAX_TOKENS = 400
BAR = ">= 0.95 of the reference"


def order(stream: int, at: int) -> ChatRequest:
    seed = hashlib.sha256(b"%d:%d" % (stream, at)).digest()
    question = QUESTIONS[(stream + at) % len(QUESTIONS)]
    return ChatRequest((Message("user", question),), MAX_TOKENS, Sampler(seed, 0.8))


def fingerprint(answers: Iterable[Iterable[int]]) -> str:
    return hashlib.sha256(json.dumps([list(ids) for ids in answers]).encode()).hexdigest()


class Round(msgspec.Struct, frozen=True):
    """One round by one way: seconds by the wall, CPU seconds of the engine's process and of the node's other one."""

    tokens: int
    wall: float
    engine: float
    node: float
    fingerprint: str


# The bare loop --------------------------------------------------------------------------------------------------------


def bare(spec: EngineSpec) -> None:
    """Hears [streams, jobs] a line; each stream answers its jobs one after the other, all streams take turns."""
    with tempfile.TemporaryDirectory() as scratch:
        model = language_model(spec, Path(scratch))
        say_ready({})
        for told in sys.stdin:
            streams, jobs = json.loads(told)
            wall, busy = time.perf_counter(), time.process_time()
            answers = _loop(model, streams, jobs)
            spent = time.perf_counter() - wall, time.process_time() - busy
            say_ready(msgspec.to_builtins(Round(sum(map(len, answers)), *spent, 0.0, fingerprint(answers))))


def _loop(model: Any, streams: int, jobs: int) -> list[list[int]]:
    answers: list[list[int]] = []

    def begin(stream: int, at: int) -> list[Any]:
        asked = order(stream, at)
        ids: list[int] = []
        return [stream, at, asked.sampler, ids, model.open(model.prompt(asked.messages), MAX_TOKENS)]

    running = [begin(stream, 0) for stream in range(streams)]
    ends = frozenset(model.ends)
    made: dict[tuple[int, int], list[int]] = {}
    while running:
        for turn in list(running):
            stream, at, sampler, ids, state = turn
            token = choose(state.logits(), len(ids), sampler)
            ids.append(token)
            if token not in ends and len(ids) < MAX_TOKENS:
                state.append(token)
                continue
            made[stream, at] = ids
            if at + 1 < jobs:
                turn[:] = begin(stream, at + 1)
            else:
                running.remove(turn)
    answers += [made[place] for place in sorted(made)]
    return answers


# The node -------------------------------------------------------------------------------------------------------------


class Shore:
    """What the payer knows of its surroundings."""

    def __init__(self, record: Deployment) -> None:
        self.record = record

    def now(self) -> float:
        return time.time()


class Quay:
    """A paying gateway and the node that it is linked to."""

    def __init__(self, gateway: Gateway, node: Program, spec: EngineSpec) -> None:
        self.gateway = gateway
        self.spec = spec
        self._node = node.process.pid
        self._engine = child_of(self._node)

    async def round(self, streams: int, jobs: int) -> Round:
        before = cpu_seconds(self._engine), cpu_seconds(self._node)
        began = time.perf_counter()
        asked = await asyncio.gather(*(self._stream(stream, jobs) for stream in range(streams)))
        wall = time.perf_counter() - began
        busy = cpu_seconds(self._engine) - before[0], cpu_seconds(self._node) - before[1]
        answers = [answer for stream in asked for answer in stream]
        return Round(sum(map(len, answers)), wall, *busy, fingerprint(answers))

    async def _stream(self, stream: int, jobs: int) -> list[list[int]]:
        return [await self._answer(order(stream, at)) for at in range(jobs)]

    async def _answer(self, asked: ChatRequest) -> list[int]:
        gateway, ids = self.gateway, list[int]()
        async for event in gateway.dispatcher.run(gateway.payer, Ask(gateway.agent, asked)):
            if isinstance(event, Piece):
                ids += event.ids
        return ids


@contextlib.asynccontextmanager
async def quay(folder: Path, chain_url: str) -> AsyncIterator[Quay]:
    """The contracts, the published agent, the node that serves it, and a payer with a deposit."""
    chain, payer = open_chain(chain_url, CHAIN_ID), key("gateway")
    record = await deploy(chain, faucet_key("lading"), Parameters.devnet())
    record.save(folder / "deployment.json")
    store = BlobStore(folder / "published")
    agent, spec = await _publish(chain, Contracts(chain, record), store, folder)
    transport = DirectTransport(payer)
    transport.handle(BLOB, serve_blobs(store))
    gateway = Gateway(Shore(record), "gateway", transport=transport, agent=agent)
    endpoint = await gateway.start("/ip4/127.0.0.1/tcp/0")
    arguments = (
        *("-c", "import sys; from lading.cli.main import main; sys.exit(main())", "node", "up", "--json"),
        *("--data", str(folder / "node"), "--deployment", str(folder / "deployment.json"), "--chain-url", chain_url),
        *("--listen", "/ip4/127.0.0.1/tcp/0", "--gossip-listen", "", "--http", "-1"),
        # More slots than streams: a job keeps its slot until its last voucher is durable, when the next one is here.
        *("--agent", to_hex(agent), "--coordinator", endpoint, "--slots", "16"),
    )
    with program(*arguments, environment=_environment()) as node:
        await chain.send(faucet_key("lading"), address(node.facts["operator"]), b"", COIN)
        await asyncio.wait_for(gateway.offers(1), 60)
        yield Quay(gateway, node, spec)
        await transport.close()
        await chain.close()


async def _publish(chain: Chain, contracts: Contracts, store: BlobStore, folder: Path) -> tuple[AgentId, EngineSpec]:
    faucet, maker, payer = faucet_key("lading"), key("maker"), key("gateway")
    for who in (maker, payer):
        await chain.send(faucet, who.address, b"", COIN)
    await contracts.coin.transfer(faucet, payer.address, 100 * COIN)
    await contracts.coin.allow(payer, contracts.deployment.settlement, 100 * COIN)
    await contracts.settlement.deposit(payer, 100 * COIN)
    project = publisher.load_project(AGENT)
    agent, manifest = publisher.pack(project, AGENT, maker.address, store)
    table = publisher.parties(project, maker.address)
    await release.publish(contracts, maker, release.Release(agent, table), time.time())
    store.materialise(agent, folder / "agent")
    return agent, engine_spec(manifest, manifest.runtimes[0], folder / "agent")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LADING_")}


# The comparison -------------------------------------------------------------------------------------------------------


async def compare(folder: Path, chain_url: str, rounds: int, answers: int) -> None:
    async with quay(folder, chain_url) as place:
        spec = msgspec.json.encode(place.spec).decode()
        with program("-m", __spec__.name, "--bare", spec) as loop:

            async def alone(streams: int, jobs: int) -> Round:
                loop.tell([streams, jobs])
                return msgspec.convert(await asyncio.to_thread(loop.hear), Round)

            for streams in STREAMS:
                report(streams, answers, await _rounds(alone, place.round, streams, answers // streams, rounds))


Way = Callable[[int, int], Awaitable[Round]]


async def _rounds(alone: Way, through: Way, streams: int, jobs: int, rounds: int) -> list[tuple[Round, Round]]:
    """Rounds alternate, so that noise of the machine meets both; the first of each only warms up."""
    pairs = []
    for at in range(rounds + 1):
        ways = (alone, through) if at % 2 else (through, alone)
        found = {way: await way(streams, jobs) for way in ways}
        pair = found[alone], found[through]
        if pair[0].fingerprint != pair[1].fingerprint:
            raise SystemExit("the node's tokens are not those of the bare loop")
        pairs.append(pair)
    return pairs[1:]


def report(streams: int, answers: int, pairs: list[tuple[Round, Round]]) -> None:
    """Ratios are medians over pairs of rounds, for both of a pair ran at nearly the same time."""

    def median(value: Callable[[Round], float], side: int) -> float:
        return statistics.median(value(pair[side]) for pair in pairs)

    def ratio(value: Callable[[Round], float]) -> float:
        return statistics.median(value(through) / value(alone) for alone, through in pairs)

    def wall(one: Round) -> float:
        return one.tokens / one.wall

    def engine(one: Round) -> float:
        return one.tokens / one.engine

    def whole(one: Round) -> float:
        return (one.engine + one.node) / one.tokens * 1e6

    def each(one: Round) -> float:
        return one.wall * 1e3 / answers

    n, tokens = len(pairs), pairs[0][0].tokens
    for name, unit, value, bar, note in (
        ("node_tokens", "token/s", wall, BAR, f"wall clock; {tokens} tokens a round, a new job as soon as one ends"),
        ("node_engine", "token/s", engine, None, "per CPU second of the engine's process alone"),
        ("node_cpu", "us/token", whole, None, "CPU time of engine and node together"),
        ("node_answer", "ms/answer", each, None, f"wall clock; {tokens / answers:.0f} tokens an answer on average"),
    ):
        say(
            f"{name}_{streams}",
            median(value, 1),
            unit,
            reference=("bare engine loop", median(value, 0)),
            ratio=ratio(value),
            bar=bar,
            n=n,
            note=f"streams: {streams}; {note}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a check that it runs")
    parser.add_argument("--bare", metavar="SPEC", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.bare:
        bare(msgspec.json.decode(chosen.bare, type=EngineSpec))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        chain = ("-m", "lading_contracts.embedded", "--folder", str(folder / "chain"), "--port", "0")
        with program(*chain, "--chain-id", str(CHAIN_ID), "--block-time", "1") as evm:
            uvloop.run(compare(folder, evm.facts["url"], *((3, 8) if chosen.quick else (15, 24))))


if __name__ == "__main__":
    main()
