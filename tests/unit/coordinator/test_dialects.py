"""Whole requests in every dialect: one core, one bill, the same refusals; hosts that lie are never paid for it."""

import asyncio
import json
import re
from typing import Any

import pytest

from factories import key
from lading_protocol.ids import to_hex
from lading_protocol.messages import Refuse
from lading_protocol.pricing import Price, attempt_amount
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import COIN, World, encode

PRICE = Price(1_000_000, 2_000_000)  # type: ignore[arg-type]
STORY = "tell me a story"
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "storyteller", "messages": [{"role": "user", "content": STORY}]},
    "/v1/completions": {"model": "storyteller", "prompt": STORY},
    "/v1/responses": {"model": "storyteller", "input": STORY},
}
PATHS = list(ASKS)


def text_of(path: str, tree: Any) -> str:
    if path == "/v1/responses":
        return "".join(part["text"] for item in tree["output"] for part in item["content"])
    choice = tree["choices"][0]
    return str(choice["text"] if path == "/v1/completions" else choice["message"]["content"])


def streamed(body: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("path", PATHS)
def test_every_dialect_says_the_same_and_costs_the_same(play: Play, path: str) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        api_key = await world.session()
        whole = await world.ask("POST", path, ASKS[path], api_key)
        assert whole.status == 200, whole.body
        assert len(text_of(path, whole.json).split()) == 11
        cost = str(attempt_amount(PRICE, 4, 0, 12))
        assert whole.headers["x-lading-cost"] == cost == whole.json["lading"]["cost_wei"]
        assert whole.headers["x-lading-host"] == to_hex(host.key.address)
        prices = whole.headers["x-lading-price-input"], whole.headers["x-lading-price-output"]
        assert prices == ("1000000", "2000000")
        receipts = await world.ask("GET", whole.headers["x-lading-receipt"])
        assert len(receipts.json["receipts"]) == 1
        stream = await world.ask("POST", path, ASKS[path] | {"stream": True}, api_key)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-lading-host"] == to_hex(host.key.address)
        assert stream.headers["x-lading-price-output"] == "2000000"
        assert "x-lading-cost" not in stream.headers
        later = await world.ask("GET", stream.headers["x-lading-receipt"])
        assert len(later.json["receipts"]) == 1
        last = streamed(stream.body)[-1]
        assert (last.get("response") or last)["lading"]["cost_wei"] == cost

    play(story)


@pytest.mark.parametrize("path", PATHS)
def test_every_dialect_refuses_alike(play: Play, path: str) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(refuses=Refuse("busy", "All slots are taken.", 500)))
        await world.host("two", Habits(refuses=Refuse("busy", "All slots are taken.", 500)))
        api_key = await world.session()
        for stream in (False, True):
            ask = ASKS[path] | {"stream": stream}
            busy = await world.ask("POST", path, ask, api_key)
            assert (busy.status, busy.error["code"], busy.headers["retry-after"]) == (429, "overloaded", "1")
            unknown = await world.ask("POST", path, ask | {"model": "nope"}, api_key)
            assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
            assert (await world.ask("POST", path, ask, "")).status == 401
            assert (await world.ask("POST", path, ask | {"surprise": 1}, api_key)).error["param"] == "surprise"
        assert (await world.ask("GET", path)).status == 405

    play(story)


@pytest.mark.parametrize(("path", "param"), list(zip(PATHS, ("messages", "prompt", "input"), strict=True)))
def test_a_prompt_that_is_too_long_is_named_as_the_dialect_has_it(play: Play, path: str, param: str) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(refuses=Refuse("too_long", "The prompt has 5000 tokens.")))
        answer = await world.ask("POST", path, ASKS[path], await world.session())
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert answer.error["param"] == param

    play(story)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_missing_is_named_before_any_work(play: Play, path: str) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(price_in=COIN, price_out=COIN))
        api_key = await world.session(cap=COIN // 100)
        for stream in (False, True):
            answer = await world.ask("POST", path, ASKS[path] | {"stream": stream}, api_key)
            assert (answer.status, answer.error["code"]) == (402, "insufficient_funds")
            missing = answer.headers["x-lading-missing"]
            assert int(missing) > 0
            assert f"{missing} wei" in answer.error["message"]
        assert host.served == []

    play(story)


@pytest.mark.parametrize("path", PATHS)
def test_a_host_dies_in_any_dialect(play: Play, path: str) -> None:
    async def story(world: World) -> None:
        await world.host("dear")
        api_key = await world.session()
        unbroken = text_of(path, (await world.ask("POST", path, ASKS[path], api_key)).json)
        await world.host("cheap", Habits(price_out=1_000_000, dies_after=5))
        answer = await world.ask("POST", path, ASKS[path], api_key)
        assert text_of(path, answer.json) == unbroken
        assert [part["tokens"] for part in answer.json["lading"]["parts"]] == [5, 7]

    play(story)


LIARS = {
    "a character is cut through": (Habits(price_out=1, halves=True), 0),
    "another agent is signed for": (Habits(price_out=1, signs_for=b"\x09" * 32), 12),
}


@pytest.mark.parametrize("lie", LIARS)
@pytest.mark.parametrize("path", PATHS)
def test_what_a_liar_sends_is_not_the_answer(play: Play, path: str, lie: str) -> None:
    """Another host goes on; nothing beyond what came is billed, and what was no frame is not billed at all."""
    habits, delivered = LIARS[lie]

    async def story(world: World) -> None:
        await world.host("liar", habits)
        await world.host("honest")
        answer = await world.ask("POST", path, ASKS[path], await world.session())
        assert answer.status == 200, answer.body
        assert len(text_of(path, answer.json).split()) == 11
        parts = {part["host"]: part["tokens"] for part in answer.json["lading"]["parts"]}
        assert parts.get(to_hex(key("liar").address), 0) <= delivered
        assert sum(parts.values()) == 12

    play(story)


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_without_a_token_costs_nothing(play: Play, path: str) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(mute=True))
        for stream in (False, True):
            answer = await world.ask("POST", path, ASKS[path] | {"stream": stream}, await world.session())
            assert answer.status == 200, answer.body
            tree = streamed(answer.body)[-1] if stream else answer.json
            assert (tree.get("response") or tree)["lading"]["cost_wei"] == "0"
            if not stream:
                assert text_of(path, tree) == ""
                assert answer.headers["x-lading-cost"] == "0"

    play(story)


def test_a_host_that_tells_no_logprobs_where_they_are_asked_for_is_left(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("silent", Habits(price_out=1, untold=True))
        await world.host("honest")
        answer = await world.chat(await world.session(), logprobs=True)
        content = answer.json["choices"][0]["logprobs"]["content"]
        assert len(content) == answer.json["usage"]["completion_tokens"] == 12
        assert answer.json["lading"]["hosts"] == [to_hex(key("honest").address)]

    play(story)


# Several choices


def test_a_client_that_leaves_cancels_every_choice(play: Play) -> None:
    async def story(world: World) -> None:
        hosts = [await world.host(label, Habits(length=1000, pause=0.05)) for label in ("one", "two")]
        wire = world.connect()
        body = ASKS["/v1/chat/completions"] | {"stream": True, "n": 4}
        wire.send(encode("POST", "/v1/chat/completions", body, await world.session()))
        await wire.until(b"fox")
        await asyncio.sleep(0.5)
        wire.hang_up()
        await asyncio.sleep(3)
        assert sum(host.cancelled for host in hosts) == 4
        assert sum(len(host.served) for host in hosts) == 4

    play(story)


def test_one_choice_that_fails_ends_them_all(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(length=300, pause=0.01, fails_after=20))
        answer = await world.chat(await world.session(), n=3)
        assert (answer.status, answer.error["code"]) == (502, "job_lost")
        stream = await world.chat(await world.session(), n=3, stream=True)
        assert stream.events[-1]["error"]["code"] == "job_lost"
        await asyncio.sleep(3)
        delivered = sum(row.output_tokens for row in world.coordinator.ledger.recent(10))
        assert world.coordinator.ledger.earned()[host.key.address][0] == delivered <= 6 * 20

    play(story)


def test_choices_count_as_jobs_of_their_key(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        api_key = await world.session()
        answer = await world.chat(api_key, n=3)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert (await world.chat(api_key, n=2)).status == 200

    play(story, jobs_per_key=2)


def test_a_slow_reader_holds_all_choices_back(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(length=300))
        wire = world.connect()
        wire._limit = 2000
        body = ASKS["/v1/chat/completions"] | {"stream": True, "n": 3}
        wire.send(encode("POST", "/v1/chat/completions", body, await world.session()))
        seen = bytearray()
        while b"[DONE]" not in seen:
            await asyncio.sleep(0.2)
            got = wire.read()
            assert 0 < len(got) < 60_000
            seen += got
        words = b"".join(re.findall(rb'"content":"([^"]*)"', seen)).split()
        assert len(words) == 3 * 299  # and three ends; in fewer events: what came together is told together

    play(story)
