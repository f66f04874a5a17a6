"""Gateways are processes that get SIGKILL in the middle of answers of every form; OpenAI's own package goes on.

The answer is the undisturbed one, so is its usage, and what it cost is the price of each token once: what the dead
gateway had signed by then is never more than what the consumer was told, and less by no more than hosts let run ahead.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from factories import key
from integration.coordinator.town import ANY_PORT
from lading import Client
from lading.answers import Bill, Delta, Notice
from lading.core.options import Options
from lading.dispatch import Purse
from lading.openai import async_http_client, http_client
from lading.routes import passage
from lading_contracts.deployment import decode
from lading_net.direct import DirectTransport
from lading_protocol.ids import Wei, from_hex
from lading_protocol.manifest import dump
from lading_protocol.pricing import Price, attempt_amount
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import manifest

SEED, ANSWERS = int(os.environ.get("LADING_SEED", "1")), 4
CAP = 10**18
LENGTH = 60
PRICE = Price(Wei(Habits().price_in), Wei(Habits().price_out))
PROMPT = "tell me a story"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
TOOL: Any = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CHAT: dict[str, Any] = {"messages": MESSAGES}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat", CHAT | {"stream_options": {"include_usage": True}}),
    "choices with logprobs": ("chat", CHAT | {"n": 2, "logprobs": True, "top_logprobs": 2}),
    "tools": ("chat", CHAT | {"tools": [{"type": "function", "function": TOOL}]}),
    "completions": ("completions", {"prompt": "once upon a time", "logprobs": 1}),
    "responses": ("responses", {"input": PROMPT}),
}


class Gate:
    """One coordinator in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, told: dict[str, Any]) -> None:
        self.process, self.folder, self.told = process, folder, told
        self.url, self.api_key = told["http"], told["api_key"]

    def kill(self, how: int = signal.SIGKILL) -> None:
        self.process.send_signal(how)

    def dies_after(self, events: int) -> Callable[[], None]:
        """Calling what this returns so many times kills it."""
        left = itertools.count(events - 1, -1)

        def heard() -> None:
            if next(left) == 0:
                self.kill()

        return heard

    def promised(self) -> int:
        """All that was ever signed here."""
        record = decode(self.told["record"].encode())
        purse = Purse(self.folder / "purse.sqlite", record.settlement_domain)
        total = sum(held.cumulative for _, held in purse.channels(from_hex(self.told["signer"], 20)))  # type: ignore[arg-type]
        purse.close()
        return total


class Two:
    """Two hosts, a gateway that stays, and one after the other that does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.gates: list[Gate] = []

    async def open(self, count: int) -> list[Gate]:
        return [await self.gate("0"), *await asyncio.gather(*(self.gate(str(n)) for n in range(1, count)))]

    async def gate(self, name: str) -> Gate:
        folder = self.folder / name
        command = [sys.executable, "-m", "integration.coordinator.doomed", str(folder), str(CAP), "", name]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        made = Gate(process, folder, json.loads(await asyncio.wait_for(process.stdout.readline(), 30)))
        self.gates.append(made)
        for host in self.hosts or await self._hosts(made.told):
            self.tasks.append(asyncio.create_task(host.join(made.told["endpoint"], 0.2)))
        async with AsyncOpenAI(base_url=made.url + "/v1", api_key=made.api_key) as client:
            for _ in range(200):
                if (await client.models.list()).data:
                    return made
                await asyncio.sleep(0.02)
        raise AssertionError("no host came")

    async def _hosts(self, told: dict[str, Any]) -> list[Host]:
        agent = from_hex(told["agent"], 32)
        for nth in range(2):
            who = key(f"host {nth}")
            transport = DirectTransport(who)
            await transport.listen(ANY_PORT)
            habits = Habits(length=LENGTH, pause=0.004, takes_fees=True)
            agents, record = [(agent, from_hex(told["terms"], 32), "storyteller")], decode(told["record"].encode())
            blobs = {agent: dump(manifest())}
            self.hosts.append(Host(transport, who, record, agents, time.time, habits, blobs))  # type: ignore[arg-type]
        return self.hosts


@contextlib.asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Two]:
    made = Two(folder)
    try:
        yield made
    finally:
        for gate in made.gates:
            if gate.process.returncode is None:
                gate.kill()
            await gate.process.wait()
        for task in made.tasks:
            task.cancel()
        for host in made.hosts:
            await host.transport.close()


def client(first: Gate, second: Gate) -> AsyncOpenAI:
    through = async_http_client(first.url, first.api_key, [(second.url, second.api_key)])
    return AsyncOpenAI(base_url=first.url + "/v1", api_key="no key of any", http_client=through, max_retries=0)


async def ask(asked: AsyncOpenAI, form: str, stream: bool, heard: Callable[[], None]) -> list[dict[str, Any]]:
    """The events of an answer as the package gives them, or the one that it is; `heard` at each of a stream."""
    where, body = FORMS[form]
    create: Any = {
        "chat": asked.chat.completions.create,
        "completions": asked.completions.create,
        "responses": asked.responses.create,
    }[where]
    body = {"model": "storyteller", "extra_body": {"seed": 7}, **body}
    if not stream:
        body.pop("stream_options", None)
        return [(await create(**body)).to_dict()]
    found = []
    async for event in await create(**body, stream=True):
        found.append(event.to_dict())
        heard()
    return found


def plain(events: list[dict[str, Any]]) -> Any:
    """What an answer says, however a busy gateway cuts it: without names, times, and who did which part."""
    said: dict[str, Any] = defaultdict(str)
    for event in events:
        for choice in event.get("choices", ()):
            at, delta = choice["index"], choice.get("delta") or choice.get("message") or {}
            said[f"text {at}"] += (delta.get("content") or "") + choice.get("text", "")
            for call in delta.get("tool_calls") or ():
                said[f"call {at}"] += (call["function"].get("name") or "") + call["function"]["arguments"]
            told = choice.get("logprobs") or {}
            said.setdefault(f"logprobs {at}", []).extend(told.get("content") or told.get("tokens") or [])
            said[f"finish {at}"] += choice["finish_reason"] or ""
        said["delta"] += event.get("delta", "")
        said["usage"] = event.get("usage") or said["usage"]
        response = event.get("response") or event
        if response.get("status") == "completed":
            said["output"] = [_nameless(item) for item in response["output"]]
            said["used"] = response["usage"]
    if "sequence_number" in events[-1]:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return dict(said)


def _nameless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _nameless(value) for name, value in tree.items() if name not in ("id", "item_id", "call_id")}
    return [_nameless(one) for one in tree] if isinstance(tree, list) else tree


def facts(events: list[dict[str, Any]]) -> dict[str, Any]:
    last = events[-1]
    found: dict[str, Any] = last.get("lading") or last["response"]["lading"]
    return found


def test_the_package_goes_on_at_another_gateway(tmp_path: Path) -> None:
    """Many answers at once, and one kill somewhere in the middle of them."""
    rng = random.Random(SEED)
    asked = [(form, rng.random() < 0.6) for form in sorted(FORMS) * ANSWERS]
    events = rng.randrange(1, 20 * len(asked))

    async def story() -> None:
        async with two(tmp_path) as made:
            last, first = await made.open(2)
            async with client(last, first) as alone:
                whole = {one: await ask(alone, *one, lambda: None) for one in sorted(set(asked))}
            await asyncio.sleep(0.2)  # its last vouchers are on the disk
            before, heard = last.promised(), first.dies_after(events)
            async with client(first, last) as both:
                found = await asyncio.gather(*(ask(both, *one, heard) for one in asked))
            await asyncio.wait_for(first.process.wait(), 5)
            for one, answer in zip(asked, found, strict=True):
                assert plain(answer) == plain(whole[one]), (one, events)
                assert facts(answer)["cost_wei"] == facts(whole[one])["cost_wei"], (one, events)
            await asyncio.sleep(0.2)
            told = sum(int(facts(answer)["cost_wei"]) for answer in found)
            check_paid(first, told, last.promised() - before, 2 * len(asked))

    asyncio.run(story())


def check_paid(first: Gate, told: int, second: int, choices: int) -> None:
    """Of what the consumer was told, the second gateway signed its part, and the first one no more than the rest; nor
    less than that by more than a prompt, and what came since the last receipt, of each choice."""
    rest = told - second
    assert rest > 0, "the first one had begun"
    assert 0 <= rest - first.promised() <= choices * attempt_amount(PRICE, 8, 0, 32)


def test_embeddings_are_made_elsewhere_and_paid_once(tmp_path: Path) -> None:
    """A gateway writes an answer before it signs for it, so what has not come is not paid."""
    texts = [f"{'fox ' * n}" for n in range(1, 9)]
    rows = [(float(len(text)), float(text.count(" ")), 0.5, -1.25) for text in texts]
    kills = random.Random(SEED).randrange(1, 12)

    async def story() -> None:
        async with two(tmp_path) as made:
            last, first = await made.open(2)
            heard = first.dies_after(kills)
            async with Client.through(first.url, first.api_key, [(last.url, last.api_key)]) as asked:

                async def embed() -> Wei:
                    for _ in range(4):
                        found = await asked.embed("storyteller", texts)
                        assert list(found.vectors) == rows
                        heard()
                    return found.bill.cost

                costs = await asyncio.gather(*(embed() for _ in range(4)))
            await asyncio.wait_for(first.process.wait(), 5)
            await asyncio.sleep(0.2)
            [cost] = set(costs)
            there, here = first.promised(), last.promised()
            assert (there % cost, here % cost) == (0, 0)
            assert here > 0
            # What it had handed out and not yet signed for is the hosts' loss: a moment's work of those four.
            assert 12 * cost <= there + here <= 16 * cost

    asyncio.run(story())


def test_a_program_without_an_event_loop_goes_on_too(tmp_path: Path) -> None:
    def read(first: Gate, last: Gate) -> tuple[str, str]:
        through = http_client(first.url, first.api_key, [(last.url, last.api_key)])
        with OpenAI(base_url=first.url + "/v1", api_key="none", http_client=through, max_retries=0) as asked:
            assert asked.models.list().data
            body: Any = {"model": "storyteller", "messages": MESSAGES, "seed": 7}
            raw = asked.chat.completions.with_raw_response.create(**body)
            whole, text = raw.parse(), ""
            assert raw.headers["x-lading-cost"] == facts([whole.to_dict()])["cost_wei"]
            for event in asked.chat.completions.create(**body, stream=True):
                text += event.choices[0].delta.content or ""
                if len(text) > 100 and first.process.returncode is None:
                    first.kill()
            with pytest.raises(openai.NotFoundError):
                asked.chat.completions.create(model="nobody", messages=MESSAGES)
            return text, whole.choices[0].message.content or ""

    async def story() -> None:
        async with two(tmp_path) as made:
            first, last = await made.open(2)
            text, whole = await asyncio.to_thread(read, first, last)
            assert text == whole

    asyncio.run(story())


def test_a_gateway_that_stands_still_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP breaks no connection: it would be waited for until a timeout of minutes."""
    monkeypatch.setattr(passage, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(passage, "PROBE_SECONDS", 0.5)

    async def story() -> None:
        async with two(tmp_path) as made:
            first, last = await made.open(2)
            async with Client.through(first.url, first.api_key, [(last.url, last.api_key)]) as asked:
                texts, notices = [""], 0
                for at in (-1, 20):
                    text = ""
                    async for piece in asked.chat("storyteller", PROMPT, Options(seed=7)):
                        match piece:
                            case Delta(more):
                                text += more
                            case Notice():
                                notices += 1
                            case Bill():
                                bill = piece
                        if text.count(" ") == at and notices == 0:
                            first.kill(signal.SIGSTOP)
                    texts.append(text)
            assert texts[1] == texts[2]
            assert notices == 1
            assert bill.output_tokens == LENGTH
            assert bill.cost == attempt_amount(PRICE, bill.prompt_tokens, 0, LENGTH)

    asyncio.run(story())
