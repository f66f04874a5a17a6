"""The coordinator and real nodes together, on the in-memory network, the fake chain and a virtual clock.

Both sides of every stream are the real ones: heartbeats, jobs, vouchers, settling, audits, cases and the court.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import key
from lading.clockwatch import LOOK_SECONDS
from lading_coordinator.agents import entry_of
from lading_coordinator.gateway.connection import Connection, Limits
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.clock import run_virtual
from lading_net.speech import agreed_with
from lading_node.core import channel as core
from lading_node.doctor import of_running
from lading_node.node import Node
from lading_node.status import status
from lading_protocol.ids import Address, to_hex
from lading_protocol.receipts import StakeConsent
from simulation.node_world import AGENT, COIN, MANIFEST, Sea
from unit.coordinator.world import Answer, Wire, encode


class Port:
    """A sea with our coordinator in it."""

    def __init__(self, sea: Sea, coordinator: Coordinator, endpoint: str) -> None:
        self.sea = sea
        self.coordinator = coordinator
        self.endpoint = endpoint
        self.app = coordinator.application()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.nodes: dict[str, Node] = {}

    async def node(self, name: str, **habits: Any) -> Node:
        """A staked node that the coordinator can choose."""
        who, owner, staking = key(name), key(f"owner of {name}"), self.sea.contracts.staking
        await self.sea.contracts.coin.transfer(key("treasury"), owner.address, 3000 * COIN)
        await self.sea.contracts.coin.approve(owner, self.sea.record.staking, 3000 * COIN)
        consent = StakeConsent(owner.address).sign(self.sea.record.staking_domain, who).signature
        await staking.stake(owner, who.address, 3000 * COIN, consent)
        await self.sea.contracts.coin.transfer(key("treasury"), who.address, 50 * COIN)  # the surety of its votes
        node = self.sea.node(name, coordinators=(self.endpoint,), **habits)
        self.nodes[name] = node
        self.tasks[name] = asyncio.create_task(node.run())
        await self.until(lambda: who.address in {one.host for one in self.coordinator.gateway.models.live(AGENT)})
        return node

    async def until(self, happened: Callable[[], bool], seconds: int = 120) -> None:
        for _ in range(seconds * 4):
            if happened():
                return
            await asyncio.sleep(0.25)
        raise AssertionError("it did not happen")

    async def session(self) -> str:
        payer = key("payer")
        await self.sea.fund(payer)
        made = self.coordinator.sessions.create(payer.address)
        expiry = int(self.sea.now()) + 36_000
        await self.sea.contracts.settlement.authorize(payer, made.session, 500 * COIN, expiry, made.consent)
        return made.api_key

    async def ask(self, method: str, path: str, body: Any = None, api_key: str = "") -> Answer:
        wire = Wire(Connection(self.app, Limits(), set()))
        wire.send(encode(method, path, body, api_key))
        answer = await wire.answer()
        wire.hang_up()
        return answer

    async def chat(self, api_key: str, text: str = "hello", **changes: Any) -> Answer:
        body = {"model": "toy", "messages": [{"role": "user", "content": text}], "max_tokens": 40, "seed": 5}
        return await self.ask("POST", "/v1/chat/completions", body | changes, api_key)


@contextlib.asynccontextmanager
async def port(folder: Path, **settings: Any) -> AsyncIterator[Port]:
    sea = await Sea.create()
    me = key("coordinator")
    await sea.contracts.coin.transfer(key("treasury"), me.address, 1000 * COIN)
    transport = sea.network.transport(me)
    endpoint = await transport.listen("/ip4/10.9.9.9/tcp/4600")
    base = {"home": str(folder), "audit_period": 2.0, "audit_rate": 1.0}
    ahead, fresh = settings.pop("ahead", 0.0), random.Random(1).randbytes
    gossip = sea.network.gossip(me)
    outside = Outside(me, sea.contracts, transport, gossip, (endpoint,), lambda: sea.now() + ahead, fresh)
    coordinator = Coordinator(msgspec.convert(base | settings, CoordinatorSettings), outside)
    coordinator.catalogue.add(entry_of(AGENT, MANIFEST, 1))  # the sea's toy is registered by another key than it names
    made = Port(sea, coordinator, endpoint)
    try:
        async with coordinator.working():
            yield made
    finally:
        for node in made.nodes.values():
            node.stop()
        await asyncio.gather(*made.tasks.values(), return_exceptions=True)
        await coordinator.close()


def play(folder: Path, story: Callable[[Port], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with port(folder, **settings) as made:
            await story(made)

    run_virtual(main(), seed=3, limit=20_000)


def test_one_request_served_checked_and_paid(tmp_path: Path) -> None:
    async def story(made: Port) -> None:
        for name in ("one", "two", "three"):
            await made.node(name)
        api_key = await made.session()
        answer = await made.chat(api_key)
        assert answer.status == 200, answer.body
        cost = int(answer.headers["x-lading-cost"])
        stream = await made.chat(api_key, stream=True, stream_options={"include_usage": True})
        assert stream.text == answer.json["choices"][0]["message"]["content"]
        assert int(stream.events[-2]["lading"]["cost_wei"]) == cost
        vectors = await made.ask("POST", "/v1/embeddings", {"model": "toy", "input": ["a", "b"]}, api_key)
        assert len(vectors.json["data"]) == 2
        records = made.coordinator.records
        await made.until(lambda: len([one for one in records.audits() if one.state == "done"]) == 3)
        assert {one.verdict.name for one in records.audits()} == {"HONEST"}
        total = 2 * cost + int(vectors.headers["x-lading-cost"])
        await asyncio.sleep(65)  # a host that missed a voucher on its stream asks for it within 30 s
        for node in made.nodes.values():
            await node.settler.settle("test")
        settlement, paid = made.sea.contracts.settlement, 0
        for name in made.nodes:
            paid += await settlement.host_balance(key(name).address)
        assert paid + await settlement.earned(made.sea.terms) == total

    play(tmp_path, story)


def test_auditors_are_paid_a_tenth_of_what_they_check(tmp_path: Path) -> None:
    """From the coordinator's deposit over vouchers on its own channels to the auditors' balances on the chain."""

    async def story(made: Port) -> None:
        sea, me = made.sea, key("coordinator")
        await sea.contracts.coin.allow(me, sea.record.settlement, 100 * COIN)
        await sea.contracts.settlement.deposit(me, 100 * COIN)
        for name in ("one", "two", "three"):
            await made.node(name)
        api_key = await made.session()
        costs = [int((await made.chat(api_key, f"hello {n}")).headers["x-lading-cost"]) for n in range(4)]
        records, store = made.coordinator.records, made.coordinator.store
        await made.until(lambda: len([one for one in records.audits() if one.state == "done"]) == 4)
        await asyncio.sleep(5)
        rows = store.rows("select leaf, auditor, amount from audit_fees")
        found = {
            (one.leaf, who) for one in records.audits() for who, verdict, *_ in records.findings(one.leaf) if verdict
        }
        assert {(leaf, who) for leaf, who, _ in rows} == found, "every finding, and once"
        assert {int(amount) for _, _, amount in rows} <= {cost // 10 for cost in costs}
        paid = sum(int(amount) for _, _, amount in rows)
        assert paid == sum(node.takings.taken for node in made.nodes.values()) > 0
        assert made.coordinator.metrics.registry.get_sample_value("lading_audit_fees_wei_total") == paid
        await asyncio.sleep(65)
        for node in made.nodes.values():
            await node.settler.settle("test")
        settlement, brought = sea.contracts.settlement, 0
        for name in made.nodes:
            brought += await settlement.host_balance(key(name).address)
        assert brought + await settlement.earned(sea.terms) == sum(costs) + paid
        assert all(not core.outstanding(one) for node in made.nodes.values() for one in node.channels.all())

    play(tmp_path, story, audit_pay_most="1")


def test_an_asker_that_never_pays_gets_so_many_findings_and_no_more(tmp_path: Path) -> None:
    async def story(made: Port) -> None:
        for name in ("one", "two", "three"):
            await made.node(name, audit_credit=2)
        api_key = await made.session()
        for n in range(9):
            await made.chat(api_key, f"hello {n}")
        refusals = "select count(*) from findings where verdict=0 and code='unpaid'"
        await made.until(lambda: bool(made.coordinator.store.rows(refusals)[0][0]))
        await asyncio.sleep(20)
        checked = [node.auditor.checked for node in made.nodes.values()]
        assert max(checked) == 2
        figures = made.coordinator.metrics.registry
        assert figures.get_sample_value("lading_audit_fees_total", {"outcome": "unpaid"}) == sum(checked)

    play(tmp_path, story)


def test_a_node_killed_mid_stream_is_not_seen(tmp_path: Path) -> None:
    async def story(made: Port) -> None:
        await made.node("one")
        api_key = await made.session()
        unbroken = (await made.chat(api_key)).json["choices"][0]["message"]["content"]
        await made.node("two")
        body = {"model": "toy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 40, "seed": 5}
        wire = Wire(Connection(made.app, Limits(), set()))
        wire.send(encode("POST", "/v1/chat/completions", body | {"stream": True}, api_key))
        head = (await wire.until(b'"content":"')).decode()
        await asyncio.sleep(0.3)
        first = next(name for name in made.nodes if to_hex(key(name).address) in head)
        made.tasks[first].cancel()
        made.sea.network.kill(key(first).address)
        answer = await wire.answer()
        assert answer.text == unbroken
        parts = answer.events[-2]["lading"]["parts"]
        assert len(parts) == 2
        assert sum(part["tokens"] for part in parts) == made.coordinator.ledger.recent(1)[0].output_tokens
        del made.nodes[first]

    play(tmp_path, story)


def test_a_node_with_other_weights_is_slashed_and_honest_ones_are_not(tmp_path: Path) -> None:
    async def story(made: Port) -> None:
        from lading_node.agents import Serving
        from lading_protocol.ids import Wei
        from lading_protocol.pricing import Price

        cheap = (Serving(AGENT, made.sea.terms, Price(Wei(1), Wei(1))),)
        await made.node("cheat", seed="another model", agents=cheap)
        for name in ("one", "two", "three"):
            await made.node(name)
        api_key = await made.session()
        assert (await made.chat(api_key)).status == 200
        records = made.coordinator.records
        await made.until(lambda: any(row.state == "closed" for row in records.disputes()), 400)
        assert records.disputes()[0].note == "ruled guilty"
        staking = made.sea.contracts.staking
        cheat = await staking.operator(key("cheat").address)
        assert cheat is not None
        assert cheat.stake < 3000 * COIN
        for name in ("one", "two", "three"):
            honest = await staking.operator(key(name).address)
            assert honest is not None
            assert honest.stake == 3000 * COIN
        await made.until(lambda: bool(made.coordinator.directory.host(key("cheat").address).barred), 20)
        after = await made.chat(api_key)
        assert after.headers["x-lading-host"] != to_hex(key("cheat").address)

    play(tmp_path, story)


WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Zürich"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "rest"}},
]


def test_what_few_ask_for_goes_through_real_nodes_and_audits(tmp_path: Path) -> None:
    """A grammar makes a function's arguments valid, logprobs are the model's own, a bare prompt is billed by its
    tokens; and auditors find nothing wrong with any of it."""

    async def story(made: Port) -> None:
        for name in ("one", "two", "three"):
            await made.node(name)
        api_key = await made.session()
        seen = set()
        for seed in range(6):
            answer = await made.chat(api_key, tools=TOOLS, tool_choice="required", max_tokens=80, seed=seed)
            assert answer.status == 200, answer.body
            choice = answer.json["choices"][0]
            if choice["finish_reason"] != "tool_calls":
                continue
            (call,) = choice["message"]["tool_calls"]
            seen.add(call["function"]["name"])
            given = json.loads(call["function"]["arguments"])
            assert given == {} if call["function"]["name"] == "rest" else (given["city"], 1 <= given["days"] <= 9)
        assert seen
        plain = await made.chat(api_key)
        told = await made.chat(api_key, logprobs=True, top_logprobs=3)
        assert told.json["choices"][0]["message"] == plain.json["choices"][0]["message"]
        chances = told.json["choices"][0]["logprobs"]["content"]
        assert len(chances) == told.json["usage"]["completion_tokens"]
        bare = await made.ask("POST", "/v1/completions", {"model": "toy", "prompt": "fox", "max_tokens": 5}, api_key)
        assert bare.json["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        three = await made.chat(api_key, n=3)
        texts = [choice["message"]["content"] for choice in three.json["choices"]]
        assert texts[0] == plain.json["choices"][0]["message"]["content"]
        assert len(set(texts)) == 3
        auto = await made.chat(api_key, tools=TOOLS)
        assert auto.status == 400
        assert "knows no tools" in auto.error["message"]
        records = made.coordinator.records
        await made.until(lambda: len([one for one in records.audits() if one.state == "done"]) >= 10)
        assert {one.verdict.name for one in records.audits() if one.state == "done"} == {"HONEST"}

    play(tmp_path, story)


def test_logprobs_survive_the_death_of_a_node(tmp_path: Path) -> None:
    async def story(made: Port) -> None:
        await made.node("one")
        api_key = await made.session()
        more = {"logprobs": True, "top_logprobs": 2, "max_tokens": 40}
        unbroken = (await made.chat(api_key, **more)).json["choices"][0]
        await made.node("two")
        body = {"model": "toy", "messages": [{"role": "user", "content": "hello"}], "seed": 5, "stream": True}
        wire = Wire(Connection(made.app, Limits(), set()))
        wire.send(encode("POST", "/v1/chat/completions", body | more, api_key))
        head = (await wire.until(b'"content":"')).decode()
        await asyncio.sleep(0.3)
        first = next(name for name in made.nodes if to_hex(key(name).address) in head)
        made.tasks[first].cancel()
        made.sea.network.kill(key(first).address)
        answer = await wire.answer()
        assert answer.text == unbroken["message"]["content"]
        choices = [choice for event in answer.events[:-1] for choice in event["choices"]]
        told = [one for choice in choices if choice["logprobs"] for one in choice["logprobs"]["content"]]
        assert told == unbroken["logprobs"]["content"]
        assert len(answer.events[-2]["lading"]["parts"]) == 2
        del made.nodes[first]

    play(tmp_path, story)


@pytest.mark.parametrize(("ahead", "says"), [(-90.0, "it is 90 s later"), (400.0, "it is 400 s earlier"), (5.0, "")])
def test_a_coordinator_whose_clock_is_off_is_told_by_its_hosts(tmp_path: Path, ahead: float, says: str) -> None:
    async def story(made: Port) -> None:
        nodes = [await made.node(name) for name in ("one", "two", "three")]
        await asyncio.sleep(LOOK_SECONDS)
        health = (await made.ask("GET", "/healthz")).json
        page = (await made.ask("GET", "/")).body.decode()
        if not says:
            assert health == {"status": "ok"}
            assert not any(node.clockwatch.words for node in nodes)
            return
        words = f"By the clocks of 3 of 3 linked hosts with a stake {says} than by this machine's."
        assert health["clock"].startswith(words)
        assert says in page
        assert f"lading_clock_off_seconds {-ahead}" in (await made.ask("GET", "/metrics")).body.decode()
        for node in nodes:  # which cannot know who of the two is wrong
            told = status(node)
            assert told["clock"].startswith("By the clocks of 1 of 1 coordinators it is ")
            assert told["clock"] in told["why_not_earning"]
            assert of_running(told).clock == told["clock"]
        answer = await made.chat(await made.session())
        assert answer.status == (200 if abs(ahead) < 120 else 502), "what is signed is judged as ever"

    play(tmp_path, story, ahead=ahead)


def test_who_has_no_stake_has_no_say_about_the_time(tmp_path: Path) -> None:
    class Wrong:
        def now(self) -> float:
            return 5.0

        def heard(self, peer: Address, at: int) -> None: ...

    async def story(made: Port) -> None:
        for name in ("one", "two", "three"):
            await made.node(name)
        for n in range(20):
            stranger = made.sea.network.transport(key(f"stranger {n}"))
            await agreed_with(await stranger.dial(made.endpoint), clock=Wrong())
        assert (await made.ask("GET", "/healthz")).json == {"status": "ok"}

    play(tmp_path, story)
