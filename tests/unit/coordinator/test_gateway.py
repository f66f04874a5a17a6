"""Whole requests through the gateway, the real dispatcher and in-memory hosts: answers, bills, failover, refusals."""

import asyncio
import base64
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest

from factories import key
from lading_coordinator.core.ask import chat_request, parse_chat
from lading_protocol.eip712 import unpack
from lading_protocol.ids import to_hex
from lading_protocol.manifest import agent_id, dump
from lading_protocol.messages import Refuse
from lading_protocol.parts import Operation
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Receipt
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits, answer_of, text_of
from unit.coordinator.world import COIN, World, encode, manifest

PRICE = Price(1_000_000, 2_000_000)  # type: ignore[arg-type]


def expected(world: World, length: int = 12, **changes: Any) -> str:
    import json

    body = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}]} | changes
    request = chat_request(parse_chat(json.dumps(body).encode()), world.agent, bytes(32), 512)
    return "".join(map(text_of, answer_of(request, length)))


def test_a_whole_answer_and_its_bill(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        answer = await world.chat(await world.session())
        assert answer.status == 200
        tree = answer.json
        assert tree["choices"][0]["message"]["content"] == expected(world)
        assert tree["choices"][0]["finish_reason"] == "stop"
        assert tree["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
        cost = attempt_amount(PRICE, 4, 0, 12)
        assert answer.headers["x-lading-cost"] == str(cost) == tree["lading"]["cost_wei"]
        assert answer.headers["x-lading-host"] == to_hex(host.key.address)
        row = await world.ask("GET", f"/lading/v1/jobs/{answer.headers['x-lading-job']}")
        assert row.json["cost"]["wei"] == str(cost)
        assert row.json["output_tokens"] == 12
        receipts = (await world.ask("GET", f"/lading/v1/receipts/{row.json['job']}")).json["receipts"]
        signed = unpack(Receipt, bytes.fromhex(receipts[0][2:]))
        signed.check(world.record.court_domain, host.key.address)
        assert signed.value.amount == cost

    play(story)


def test_a_stream_has_openais_shape(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(burst=3))
        answer = await world.chat(await world.session(), stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        *chunks, done = answer.events
        assert done == "[DONE]"
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        assert answer.text == expected(world)
        assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
        assert all("usage" not in chunk for chunk in chunks)
        assert chunks[-1]["lading"]["cost_wei"] == str(attempt_amount(PRICE, 4, 0, 12))
        assert "x-lading-job" in answer.headers
        assert "x-lading-host" in answer.headers

    play(story)


def test_usage_comes_in_the_last_chunk_when_asked_for(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        answer = await world.chat(
            await world.session(), stream=True, stream_options={"include_usage": True}, max_tokens=5
        )
        *chunks, last, done = answer.events
        assert done == "[DONE]"
        assert last["choices"] == []
        assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
        assert all(chunk["usage"] is None for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert last["lading"]["parts"][0]["tokens"] == 5

    play(story)


@pytest.mark.parametrize("dies_after", [0, 1, 7, 11])
def test_a_host_dies_and_nobody_notices(play: Play, dies_after: int) -> None:
    """The text is that of an unbroken run, usage is right, and each host is paid exactly for its tokens."""

    async def story(world: World) -> None:
        await world.host("cheap", Habits(price_out=1_000_000, dies_after=dies_after))
        await world.host("dear")
        answer = await world.chat(await world.session(), stream=True, stream_options={"include_usage": True})
        assert answer.text == expected(world)
        last = answer.events[-2]
        assert last["usage"]["completion_tokens"] == 12
        parts = last["lading"]["parts"]
        assert sum(part["tokens"] for part in parts) == 12
        if dies_after:
            assert [part["tokens"] for part in parts] == [dies_after, 12 - dies_after]
            first = attempt_amount(Price(1_000_000, 1_000_000), 4, 0, dies_after)  # type: ignore[arg-type]
            second = attempt_amount(PRICE, 4, dies_after, 12 - dies_after)
            assert [part["amount_wei"] for part in parts] == [str(first), str(second)]
        else:
            assert last["lading"]["hosts"] == [to_hex(key("dear").address)]

    play(story)


def test_an_answer_that_nobody_can_finish_ends_in_an_error_event(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(fails_after=4))
        api_key = await world.session()
        answer = await world.chat(api_key, stream=True)
        assert answer.status == 200
        assert answer.events[-1]["error"]["code"] == "job_lost"
        whole = await world.chat(api_key)
        assert (whole.status, whole.error["code"]) == (502, "job_lost")

    play(story)


def test_a_client_that_leaves_cancels_its_job_at_once(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(length=1000, pause=0.05))
        body = {"model": "storyteller", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        wire = world.connect()
        wire.send(encode("POST", "/v1/chat/completions", body, await world.session()))
        await wire.until(b"fox")
        left_at = world.loop.time()
        wire.hang_up()
        await host.stopped.wait()
        assert world.loop.time() - left_at <= 0.05
        await asyncio.sleep(3)
        row = (await world.ask("GET", "/")).body
        assert b"cancelled" in row
        job = world.coordinator.ledger.recent(1)[0]
        assert 0 < job.output_tokens < 100
        assert world.coordinator.ledger.earned()[host.key.address][0] == job.output_tokens

    play(story)


def test_a_slow_reader_slows_the_host(play: Play) -> None:
    """With a full buffer the gateway takes no further piece; nothing is lost when the reader catches up."""

    async def story(world: World) -> None:
        await world.host("one", Habits(length=400))
        body = {"model": "storyteller", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        wire = world.connect()
        wire._limit = 2000
        wire.send(encode("POST", "/v1/chat/completions", body, await world.session()))
        seen = bytearray()
        while b"[DONE]" not in seen:
            await asyncio.sleep(0.2)
            got = wire.read()
            assert len(got) < 60_000
            assert got
            seen += got
        text = b"".join(re.findall(rb'"content":"([^"]*)"', seen))
        assert text.decode() == expected(world, 400, messages=body["messages"])

    play(story)


def test_embeddings_both_ways(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        api_key = await world.session()
        body = {"model": "storyteller", "input": ["a b", "c"]}
        plain = await world.ask("POST", "/v1/embeddings", body, api_key)
        assert [row["embedding"] for row in plain.json["data"]] == [[3.0, 1.0, 0.5, -1.25], [1.0, 0.0, 0.5, -1.25]]
        assert plain.json["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
        packed = await world.ask("POST", "/v1/embeddings", body | {"encoding_format": "base64"}, api_key)
        rows = [struct.unpack("<4f", base64.b64decode(row["embedding"])) for row in packed.json["data"]]
        assert rows == [(3.0, 1.0, 0.5, -1.25), (1.0, 0.0, 0.5, -1.25)]
        assert packed.headers["x-lading-cost"] == str(attempt_amount(PRICE, 3, 0, 0))
        wrong = await world.ask("POST", "/v1/embeddings", body | {"dimensions": 3}, api_key)
        assert (wrong.status, wrong.error["param"]) == (400, "dimensions")

    play(story)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("how", ["dies_after", "fails_after"])
def test_an_embedding_whose_host_is_lost_is_made_by_another_and_paid_once(play: Play, how: str, at: int) -> None:
    async def story(world: World) -> None:
        await world.host("cheap", Habits(price_in=500_000, **{how: at}))  # type: ignore[arg-type]
        dear = await world.host("dear")
        body = {"model": "storyteller", "input": ["a b", "c"]}
        answer = await world.ask("POST", "/v1/embeddings", body, await world.session())
        assert [row["embedding"] for row in answer.json["data"]] == [[3.0, 1.0, 0.5, -1.25], [1.0, 0.0, 0.5, -1.25]]
        assert answer.headers["x-lading-cost"] == str(attempt_amount(PRICE, 3, 0, 0))
        world.coordinator.dispatcher.funds.tab.sign_all()
        held = world.coordinator.purse.channels(dear.served[-1].signer)  # type: ignore[arg-type]
        promised = {one.host: channel.cumulative for one, channel in held}
        assert promised.pop(dear.key.address) == attempt_amount(PRICE, 3, 0, 0)
        assert not any(promised.values())

    play(story)


def test_models_with_prices(play: Play) -> None:
    async def story(world: World) -> None:
        assert (await world.ask("GET", "/v1/models")).json == {"object": "list", "data": []}
        await world.host("one")
        await world.host("two", Habits(price_in=500_000))
        (model,) = (await world.ask("GET", "/v1/models")).json["data"]
        assert (model["id"], model["hosts"], model["agent"]) == ("storyteller", 2, to_hex(world.agent))
        assert model["price"]["input_wei"] == "500000"
        for name in ("storyteller", "storyteller@1", to_hex(world.agent)):
            assert (await world.ask("GET", f"/v1/models/{name}")).json["id"] == name
        missing = await world.ask("GET", "/v1/models/nothing")
        assert (missing.status, missing.error["code"]) == (404, "model_not_found")

    play(story)


REFUSALS: list[tuple[str, Habits | None, dict[str, Any], int, str, Callable[[Any], bool]]] = [
    ("unknown model", Habits(), {"model": "nope"}, 404, "model_not_found", lambda e: e["param"] == "model"),
    ("no host", None, {"model": "storyteller"}, 404, "model_not_found", lambda e: True),
    (
        "all busy",
        Habits(refuses=Refuse("busy", "All slots are taken.", 500)),
        {},
        429,
        "overloaded",
        lambda e: e["type"] == "rate_limit_error",
    ),
    (
        "too long",
        Habits(refuses=Refuse("too_long", "The prompt has 5000 tokens, the context holds 4096.")),
        {},
        400,
        "context_length_exceeded",
        lambda e: "5000" in e["message"] and "4096" in e["message"] and e["param"] == "messages",
    ),
    ("refused", Habits(refuses=Refuse("unpaid", "You owe.")), {}, 503, "no_host", lambda e: "You owe" in e["message"]),
    ("unsupported", Habits(), {"audio": {}}, 400, "unsupported_parameter", lambda e: e["param"] == "audio"),
]


@pytest.mark.parametrize(
    ("name", "habits", "change", "status", "code", "check"), REFUSALS, ids=[r[0] for r in REFUSALS]
)
def test_refusals_in_openais_shape(
    play: Play,
    name: str,
    habits: Habits | None,
    change: dict[str, Any],
    status: int,
    code: str,
    check: Callable[[Any], bool],
) -> None:
    async def story(world: World) -> None:
        if habits is not None:
            await world.host("one", habits)
        api_key = await world.session()
        for stream in (False, True):
            answer = await world.chat(api_key, stream=stream, **change)
            assert (answer.status, answer.error["code"]) == (status, code)
            assert set(answer.error) == {"message", "type", "param", "code"}
            assert check(answer.error)
            assert ("retry-after" in answer.headers) == (status in (429, 503))

    play(story)


def test_no_host_gives_every_reason(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        await world.host("poor", staked=False)
        api_key = await world.session()
        world.net.kill(key("one").address, silently=True)
        await asyncio.sleep(7)
        answer = await world.chat(api_key)
        assert (answer.status, answer.error["code"]) == (503, "no_host")
        assert "was last heard of" in answer.error["message"]
        assert "has no stake" in answer.error["message"]

    play(story)


def test_an_exhausted_deposit_names_the_missing_amount(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(price_in=COIN, price_out=COIN))
        api_key = await world.session(cap=COIN // 100)
        answer = await world.chat(api_key, max_tokens=100)
        assert (answer.status, answer.error["code"]) == (402, "insufficient_funds")
        assert "LADE" in answer.error["message"]
        assert "wei" in answer.error["message"]

    play(story)


def test_an_agent_that_does_not_serve_the_call(play: Play) -> None:
    async def story(world: World) -> None:
        import msgspec

        only = msgspec.structs.replace(manifest("vectors"), api=(Operation("embed"),))
        agent, terms = await world.register(only)
        blobs = {agent_id(dump(only)): dump(only)}
        await world.host("one", agents=[(agent, terms, "vectors")], blobs=blobs)
        answer = await world.chat(await world.session(), model="vectors")
        assert (answer.status, answer.error["code"]) == (400, "unsupported_operation")

    play(story)


def test_too_many_at_once_is_429(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", Habits(length=50, pause=0.1))
        api_key = await world.session()
        await world.chat(api_key, max_tokens=1)
        answers = await asyncio.gather(*(world.chat(api_key) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [200, 200, 429]
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "1"

    play(story, jobs_per_key=2)


def test_a_call_whole_and_streamed(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("cheap", Habits(price_out=1_000_000, dies_after=4))
        await world.host("dear")
        api_key = await world.session()
        ask = {"model": "storyteller", "operation": "echo", "input": {"text": "Grüße"}}
        whole = await world.ask("POST", "/lading/v1/call", ask, api_key)
        assert whole.status == 200
        tree = whole.json
        assert tree["output"] == {"echo": {"text": "Grüße"}}
        assert (tree["object"], tree["operation"], tree["finish_reason"]) == ("lading.call", "echo", "stop")
        assert [part["tokens"] for part in tree["lading"]["parts"]] == [4, tree["usage"]["completion_tokens"] - 4]
        assert tree["usage"]["prompt_tokens"] == -(-len('echo\0{"text":"Grüße"}'.encode()) // 3)
        streamed = await world.ask("POST", "/lading/v1/call", ask | {"stream": True}, api_key)
        assert streamed.text == '{"echo":{"text":"Grüße"}}'
        cut = await world.ask("POST", "/lading/v1/call", ask | {"max_tokens": 2}, api_key)
        assert (cut.json["output"], cut.json["finish_reason"]) == ('{"echo', "length")

    play(story)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"operation": "fly"}, 400, "It does chat at /v1/chat/completions"),
        ({"operation": "chat"}, 400, "Use /v1/chat/completions"),
        ({"operation": 7}, 400, "operation"),
        ({"input": "x" * 600_000}, 400, "over the limit"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"temperature": 1}, 400, "temperature"),
    ],
)
def test_calls_that_cannot_be(play: Play, change: dict[str, Any], status: int, words: str) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        ask = {"model": "storyteller", "operation": "echo", "input": {}} | change
        answer = await world.ask("POST", "/lading/v1/call", ask, await world.session())
        assert answer.status == status
        assert words in answer.json["error"]["message"]

    play(story)
