"""The engine of an OpenAI-compatible server: a real one over HTTP, and what enemies send instead of answers."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from integration.engines.asking import HELLO, ask, collect, whole
from integration.engines.openai_server import NAME, Answer, Toy, chunk, enemy, serving, whole_answer
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, open_engine
from lading_node.engines.openai_http import Deadlines, OpenAiEngine
from lading_node.engines.openai_wire import Endpoint
from lading_node.engines.port import Embed, Embedded, EngineSpec, Failed, Finished, Generate, Run, Score, Started
from lading_protocol.messages import CallRequest, ChatRequest, EmbedRequest, Message, RichChat, Sampler
from lading_protocol.parts import Operation
from lading_protocol.schema import ANY_OBJECT
from lading_protocol.work import text_bytes, text_ids

SPEC = EngineSpec("openai-http", context=4096, operations=(Operation("chat"), Operation("embed")))
CHAT = msgspec.structs.replace(SPEC, operations=(Operation("chat"),))
HASTY = Deadlines(connect=1.0, first=0.3, stall=0.3)


@asynccontextmanager
async def running(toy: Toy, spec: EngineSpec = SPEC, **endpoint: Any) -> AsyncIterator[OpenAiEngine]:
    async with serving(toy) as url:
        engine = OpenAiEngine(spec, Endpoint(url, NAME, **endpoint))
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


def test_an_answer_streams_in_work_tokens_that_spell_it() -> None:
    async def main() -> None:
        toy = Toy()
        async with running(toy) as engine:
            answer = await whole(engine, ask(60, seed=2, temperature=0.7, top_p=0.9))
            again = await whole(engine, ask(60, seed=2, temperature=0.7, top_p=0.9), "again")
            other = await whole(engine, ask(60, seed=3, temperature=0.7), "other")
            assert text_bytes(answer.ids).decode() == answer.text == again.text != other.text
            assert isinstance(answer.end, Finished)
            assert answer.end.output_tokens == len(answer.ids) <= 60
            assert answer.started is not None
            assert answer.started.prompt_tokens > 10
            health = engine.health()
            assert (health.alive, health.running) == (True, 0)
            assert health.output_tokens == len(answer.ids) * 2 + len(other.ids)
        asked = toy.asked[0]
        assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["stream"]) == (NAME, 60, 0.7, True)
        assert asked["messages"] == [{"role": one.role, "content": one.content} for one in HELLO]
        assert asked["seed"] == int.from_bytes(bytes([2]) * 8, "big") >> 11

    asyncio.run(main())


def test_stop_strings_and_the_budget_hold_whatever_the_server_does() -> None:
    async def main() -> None:
        async with running(Toy()) as engine:
            free = await whole(engine, ask(200, seed=1), "free")
            stop = free.text[5:8]
            stopped = await whole(engine, ask(200, seed=1, stop=(stop,)), "stopped")
            assert stopped.text == free.text[: free.text.index(stop)]
            assert isinstance(stopped.end, Finished)
            assert stopped.end.finish == "stop"
            short = await whole(engine, ask(3, seed=1, temperature=0.0), "short")
            assert len(short.ids) <= 3
            assert isinstance(short.end, Finished)
            assert short.end.finish == "length"

    asyncio.run(main())


def test_vectors_come_in_the_order_of_their_inputs() -> None:
    async def main() -> None:
        async with running(Toy()) as engine:
            texts = tuple(f"text {i} é" for i in range(40))
            found = await engine.embed(Embed("e", EmbedRequest(texts)))
            assert isinstance(found, Embedded)
            assert (found.width, len(set(found.vectors))) == (8, 40)
            alone = await engine.embed(Embed("one", EmbedRequest(texts[7:8])))
            assert isinstance(alone, Embedded)
            assert alone.vectors[0] == found.vectors[7]
            assert np.isfinite(np.frombuffer(found.vectors[0], "<f4")).all()
            assert found.tokens == tuple(-(-len(text.encode()) // 3) for text in texts)

    asyncio.run(main())


def test_a_cancel_and_a_reader_who_leaves_end_the_servers_work() -> None:
    async def main() -> None:
        toy = Toy(pause=0.01)
        async with running(toy, msgspec.structs.replace(SPEC, slots=1)) as engine:
            got = []
            async with aclosing(engine.generate(Generate("a", ask(2000)))) as events:
                async for event in events:
                    got.append(event)
                    if isinstance(event, Run):
                        engine.cancel("a")
            assert isinstance(got[-1], Finished)
            assert got[-1].finish == "cancelled"
            assert got[-1].output_tokens == sum(len(event.ids) for event in got if isinstance(event, Run))
            async with aclosing(engine.generate(Generate("b", ask(2000)))) as events:
                async for event in events:
                    if isinstance(event, Run):
                        break
                busy = await collect(engine, Generate("c", ask(5)))
                assert isinstance(busy.end, Failed)
                assert busy.end.code == "busy"
            assert engine.health().running == 0
            assert (await whole(engine, ask(5), "next")).ids
            for _ in range(100):
                await asyncio.sleep(0.01)
                if toy.left == 2:
                    break
            assert toy.left == 2

    asyncio.run(main())


def test_a_resume_is_refused_unless_the_server_can_continue_a_text() -> None:
    async def main() -> None:
        request = ChatRequest((Message("user", "the fox"),), 60, Sampler(bytes([5]) * 32, 0.0))
        async with running(Toy()) as engine:
            answer = await whole(engine, request)
            refused = await collect(engine, Generate("r", request, tuple(answer.ids[:4])))
            assert isinstance(refused.end, Failed)
            assert refused.end.code == "invalid_request"
        toy = Toy()
        async with running(toy, continues=True) as engine:
            for cut in range(1, len(answer.ids), 3):
                emitted = tuple(answer.ids[:cut])
                rest = await collect(engine, Generate(f"cut {cut}", request, emitted))
                if isinstance(rest.end, Failed):
                    assert "within a character" in rest.end.message
                    assert "\ufffd" in text_bytes(emitted).decode(errors="replace")[-1:]
                    continue
                assert isinstance(rest.end, Finished)
                assert text_bytes([*emitted, *rest.ids]).decode() == answer.text
                assert rest.end.output_tokens == cut + len(rest.ids)
            assert toy.asked[0]["continue_final_message"] is True
            within = await collect(engine, Generate("w", request, (1 << 24 | 0xC3,)))
            assert isinstance(within.end, Failed)
            assert "within a character" in within.end.message

    asyncio.run(main())


SCHEMA = b'{"type":"object","properties":{"a":{"type":"integer"}}}'


def test_what_the_server_honours_is_passed_on_and_all_else_refused() -> None:
    async def refused(engine: OpenAiEngine, word: str, emitted: tuple[int, ...] = (), **how: Any) -> None:
        answer = await collect(engine, Generate(word, ask(5, **how), emitted))
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "invalid_request"
        assert word in answer.end.message

    async def main() -> None:
        toy = Toy()
        async with running(toy, continues=True) as engine:
            await whole(engine, ask(5, presence=0.5, frequency=-1.0, grammar=SCHEMA))
            await whole(engine, ask(5, grammar=ANY_OBJECT), "b")
            strict = {"name": "answer", "strict": True, "schema": json.loads(SCHEMA)}
            assert (toy.asked[0]["presence_penalty"], toy.asked[0]["frequency_penalty"]) == (0.5, -1.0)
            assert toy.asked[0]["response_format"] == {"type": "json_schema", "json_schema": strict}
            assert toy.asked[1]["response_format"] == {"type": "json_object"}
            assert "min_p" not in toy.asked[0]
            await refused(engine, "top_k", top_k=5)
            await refused(engine, "min_p, repetition_penalty", min_p=0.1, repetition=1.1)
            await refused(engine, "logit_bias", bias=((1, 1.0),))
            await refused(engine, "schema", grammar=b"{")
            await refused(engine, "presence_penalty cannot be resumed", (text_ids(b"a")), presence=0.5)
            tools = b'[{"type":"function","function":{"name":"f","parameters":{}}}]'
            plain = ask(5)
            for word, more in (
                ("tools", {"tools": tools}),
                ("logprobs", {"logprobs": 1}),
                ("prompt", {"prompt": (1,)}),
            ):
                rich = RichChat(plain.messages, 5, plain.sampler, **more)  # type: ignore[arg-type]
                answer = await collect(engine, Generate(word, rich))
                assert isinstance(answer.end, Failed)
                assert word in answer.end.message
            assert len(toy.asked) == 2
            held = RichChat(plain.messages, 5, ask(5, grammar=SCHEMA).sampler, tools=tools)
            await whole(engine, held, "held")
            assert '"name": "f"' in toy.asked[2]["messages"][0]["content"]
        toy = Toy()
        async with running(toy, takes=("top_k", "min_p", "repetition_penalty")) as engine:
            await whole(engine, ask(5, top_k=7, min_p=0.1, repetition=1.5))
            asked = toy.asked[0]
            assert (asked["top_k"], asked["min_p"], asked["repetition_penalty"]) == (7, 0.1, 1.5)
            await refused(engine, "response_format", grammar=ANY_OBJECT)

    asyncio.run(main())


def test_what_it_does_not_do_is_refused() -> None:
    async def main() -> None:
        async with running(Toy(), CHAT) as engine:
            embedded = await engine.embed(Embed("e", EmbedRequest(("a",))))
            scored = await engine.score(Score("s", ask(5), (1,)))
            called = await collect(engine, Generate("c", CallRequest("sum", b"{}", 5)))
            long = await collect(engine, Generate("l", ask(4096)))
            for failed, code in (
                (embedded, "invalid_request"),
                (scored, "invalid_request"),
                (called.end, "invalid_request"),
            ):
                assert isinstance(failed, Failed)
                assert failed.code == code
            assert isinstance(long.end, Failed)
            assert long.end.code == "context_exceeded"
            await engine.stop()
            late = await collect(engine, Generate("late", ask(5)))
            assert isinstance(late.end, Failed)
            assert late.end.code == "engine_died"

    asyncio.run(main())


def test_the_operators_key_is_sent_and_not_shown() -> None:
    async def main() -> None:
        async with running(Toy(key="secret"), key="secret") as engine:
            assert (await whole(engine, ask(5))).ids
        assert "secret" not in repr(Endpoint("http://a", NAME, "secret"))
        async with serving(Toy(key="secret")) as url:
            with pytest.raises(EngineError, match="does not accept this node's key"):
                await OpenAiEngine(CHAT, Endpoint(url, NAME, "wrong")).start()
            with pytest.raises(EngineError, match="does not list the model 'other'"):
                await OpenAiEngine(CHAT, Endpoint(url, "other", "secret")).start()

    asyncio.run(main())


def test_the_factory_opens_only_what_the_operator_named() -> None:
    from pathlib import Path

    named = Means(endpoints={"mine": Endpoint("http://127.0.0.1:1/v1", NAME)})
    with pytest.raises(EngineError, match="named no model server 'theirs'"):
        open_engine(msgspec.structs.replace(CHAT, endpoint="theirs"), Path(), named)

    async def main() -> None:
        engine = open_engine(msgspec.structs.replace(CHAT, endpoint="mine"), Path(), named)
        with pytest.raises(EngineError) as caught:
            await engine.start()
        assert caught.value.failure == "engine_died"
        assert not engine.health().alive

    asyncio.run(main())


def test_another_way_in_can_be_given() -> None:
    """As a container's is: nothing here opens a socket."""

    async def main() -> None:
        toy = Toy()
        await toy.start()
        transport = httpx.ASGITransport(app=toy.app())
        engine = OpenAiEngine(CHAT, Endpoint("http://agent/v1", NAME), transport)
        await engine.start()
        assert (await whole(engine, ask(5))).ids
        await engine.stop()

    asyncio.run(main())


HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n%s\r\n"
GOOD = f"data: {json.dumps(chunk({'content': 'hi'}))}\n\n".encode()


def says(*parts: bytes, headers: bytes = b"", head: bytes = b"") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in ((head or HEAD % headers), *parts):
            writer.write(part)
            await writer.drain()

    return answer


def forever(part: bytes, pause: float = 0.0) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD % b"")
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 20)
    await reader.read()


def event(tree: Any) -> bytes:
    return b"data: " + json.dumps(tree).encode() + b"\n\n"


TWO = chunk({"content": "a"}) | {"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {}}]}
HOSTILE: dict[str, tuple[Answer, str, str]] = {
    "never answers": (silent, "timeout", "did not answer"),
    "drips comments": (forever(b": wait\n\n", 0.02), "timeout", "sent no text"),
    "drips a byte": (forever(b"d", 0.02), "timeout", "sent no text"),
    "stops after a word": (says(GOOD, b"data: "), "engine_error", "breaks off"),
    "floods with comments": (forever(b": " + b"x" * 60_000 + b"\n"), "engine_error", "far more"),
    "one endless line": (forever(b"x" * 60_000), "engine_error", "more than"),
    "one endless event": (forever(b"data: " + b"x" * 60_000 + b"\n"), "engine_error", "more than"),
    "bad JSON": (says(b"data: {'a': 1}\n\n"), "engine_error", "no answer"),
    "deep JSON": (says(b"data: " + b"[" * 100_000 + b"\n\n"), "engine_error", "no answer"),
    "bytes that are no text": (says(b'data: {"model": "\xff\xfe"}\n\n'), "engine_error", "no answer"),
    "another model": (says(event(chunk({"content": "a"}, model="cheap"))), "engine_error", "answers as 'cheap'"),
    "no model": (says(event({"choices": []})), "engine_error", "no answer"),
    "an error inside": (says(GOOD, event({"error": {"message": "boom"}})), "engine_error", "no answer"),
    "two answers": (says(event(TWO)), "engine_error", "several answers"),
    "not a stream": (says(b"{}", head=b"HTTP/1.1 200 OK\r\n\r\n"), "engine_error", "does not stream"),
    "no HTTP": (says(head=b"SSH-2.0-evil\r\n\r\n"), "engine_error", "breaks off"),
    "a header without end": (says(b"x: y\r\n" * 50_000, headers=b"a: b\r\n"), "engine_error", ""),
    "status 500": (says(head=b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), "engine_error", "status 500"),
    "status 429": (says(head=b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n"), "busy", "busy (429)"),
    "status 400": (says(head=b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"), "invalid_request", "(400)"),
    "status 404": (says(head=b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"), "engine_error", "does not have"),
    "a redirect": (
        says(head=b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"),
        "engine_error",
        "to go elsewhere",
    ),
    "a compressed bomb": (
        says(gzip.compress(b"data: " + bytes(50 << 20)), headers=b"content-encoding: gzip\r\n"),
        "engine_error",
        "compresses",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_written_by_an_enemy_ends_in_one_line(name: str) -> None:
    answer, code, words = HOSTILE[name]

    async def main() -> None:
        async with enemy(answer) as url:
            engine = OpenAiEngine(CHAT, Endpoint(url, NAME), deadlines=HASTY)
            await engine.start()
            got = await collect(engine, Generate("a", ask(20)))
            assert isinstance(got.end, Failed)
            assert got.end.code == code, got.end
            assert words in got.end.message, got.end
            assert "\n" not in got.end.message
            assert engine.health().running == 0
            await engine.stop()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_long_answer_stops_being_read_at_its_budget() -> None:
    """The server never ends; what is over the budget is neither shown nor counted."""

    async def main() -> None:
        async with enemy(forever(GOOD)) as url:
            engine = OpenAiEngine(CHAT, Endpoint(url, NAME), deadlines=HASTY)
            await engine.start()
            got = await whole(engine, ask(20))
            assert len(got.ids) == 20
            assert isinstance(got.end, Finished)
            assert got.end.finish == "length"
            await engine.stop()

    asyncio.run(main())


ROWS: dict[str, tuple[Callable[[], Any], str]] = {
    "too few": (lambda: {"model": NAME, "data": []}, "0 vectors for 1"),
    "another width": (lambda: {"model": NAME, "data": [{"index": 0, "embedding": [1.0] * 9}]}, "one width"),
    "no number": (lambda: {"model": NAME, "data": [{"index": 0, "embedding": [1e300] * 8}]}, "number"),
    "words": (lambda: {"model": NAME, "data": [{"index": 0, "embedding": ["a"] * 8}]}, "no answer"),
    "another model": (lambda: {"model": "cheap", "data": []}, "answers as 'cheap'"),
}


@pytest.mark.parametrize("name", ROWS)
def test_vectors_that_are_none_are_refused(name: str) -> None:
    made, words = ROWS[name]
    bodies = [{"model": NAME, "data": [{"index": 0, "embedding": [0.5] * 8}]}, made()]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole_answer(json.dumps(bodies.pop(0)).encode()))

    async def main() -> None:
        async with enemy(answer) as url:
            engine = OpenAiEngine(SPEC, Endpoint(url, NAME), deadlines=HASTY)
            assert (await engine.start()).width == 8
            found = await engine.embed(Embed("e", EmbedRequest(("a",))))
            assert isinstance(found, Failed)
            assert (found.code, words in found.message) == ("engine_error", True), found
            await engine.stop()

    asyncio.run(main())


def test_started_comes_before_the_server_is_asked() -> None:
    """So that a payer knows the prompt's price before it waits."""

    async def main() -> None:
        async with enemy(silent) as url:
            engine = OpenAiEngine(CHAT, Endpoint(url, NAME), deadlines=HASTY)
            await engine.start()
            async with aclosing(engine.generate(Generate("a", ask(20)))) as events:
                assert isinstance(await anext(events), Started)
            await engine.stop()

    asyncio.run(main())
