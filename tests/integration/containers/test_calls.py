"""What an agent in a container does for its callers, and how the engine keeps them apart."""

import asyncio
import json
import math
import os
import signal
import struct
import time
from contextlib import aclosing, closing
from typing import Any

import pytest
import uvloop

from integration.containers.conftest import Quay, ask, order, value
from integration.engines.asking import Answer, collect
from lading_node.engines.container import ContainerEngine, reap
from lading_node.engines.dock import Dock
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Embed, Embedded, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_protocol.messages import CallRequest, ChatRequest, EmbedRequest, Message, Sampler
from lading_protocol.parts import Operation
from lading_protocol.transcript import prompt_hash
from lading_protocol.work import task_prompt, text_bytes, text_ids


def failed(end: Any, code: str, words: str = "") -> bool:
    return isinstance(end, Failed) and end.code == code and words in end.message


def left_over(quay: Quay, engine: ContainerEngine) -> int:
    with closing(Dock(quay.url)) as dock:
        return len(dock.left_over(engine._owner))


def test_calls_answer_in_values_and_in_streams_and_are_counted(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, ready):
            assert ready.tier == "C"
            assert {"seccomp", "network", "memory", "pids"} <= set(ready.confinement)
            odd = {"b": [1, 2.5, None, True], "a": "Füchse 🦊 \u0000", "": {}}
            answer = await ask(engine, "echo", odd)
            assert answer.text == json.dumps(odd, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert text_bytes(answer.ids).decode() == answer.text
            assert answer.end is not None
            assert (answer.end.finish, answer.end.output_tokens) == ("stop", len(answer.ids))  # type: ignore[union-attr]
            assert answer.started is not None
            request = CallRequest("echo", b'{"a": 1}', 100)
            again = await collect(engine, Generate("again", request))
            assert again.started is not None
            assert again.started.prompt_hash == prompt_hash(task_prompt(request))
            told = await ask(engine, "tell", {"pieces": 300})
            assert told.text == "".join(f"{i} " for i in range(300))
            assert told.ids == text_ids(told.text.encode()), "in whatever pieces it came"
            health = engine.health()
            assert (health.alive, health.running) == (True, 0)
            assert health.output_tokens == len(answer.ids) + len(again.ids) + len(told.ids)

    uvloop.run(main())


def test_a_stream_comes_as_it_is_made(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, _):
            began, heard = time.monotonic(), []
            async for event in engine.generate(order("tell", {"pieces": 5, "pause": 0.1})):
                if isinstance(event, Run):
                    heard.append(time.monotonic() - began)
            assert len(heard) >= 3
            assert heard[0] < 0.3 < heard[-1]

    asyncio.run(main())


def test_calls_run_side_by_side_and_those_over_the_slots_are_busy(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(slots=3) as (engine, _):
            slow = [asyncio.ensure_future(ask(engine, "tell", {"pieces": 4, "pause": 0.1})) for _ in range(2)]
            quick = [(await value(engine, "echo", i)) for i in range(50)]
            assert quick == list(range(50))
            assert not any(one.done() for one in slow)
            twice = await asyncio.gather(ask(engine, "echo", 1, id="same"), ask(engine, "echo", 2, id="same"))
            assert failed(twice[1].end, "busy") or failed(twice[1].end, "invalid_request", "already running")
            more = await asyncio.gather(*(ask(engine, "echo", 1) for _ in range(3)))
            assert sum(failed(one.end, "busy") for one in more) == 2
            assert [one.text for one in await asyncio.gather(*slow)] == ["0 1 2 3 "] * 2

    uvloop.run(main())


def test_a_chat_is_streamed_and_held_to_its_stop_strings_and_its_budget(quay: Quay) -> None:
    def chat(max_tokens: int, *stop: str) -> ChatRequest:
        return ChatRequest((Message("user", "Hi"),), max_tokens, Sampler(b"\0\0\0\0\0\0\x10\0" + bytes(24)), stop)

    async def main() -> None:
        async with quay.open() as (engine, _):
            whole = await collect(engine, Generate("a", chat(100)))
            assert whole.text == "Hi seed=2 one two three four"
            cut = await collect(engine, Generate("b", chat(100, "zebra", "three")))
            assert cut.text == "Hi seed=2 one two "
            assert text_bytes(cut.ids) == b"Hi seed=2 one two three"
            assert isinstance(cut.end, Finished)
            assert cut.end.finish == "stop"
            sampler = Sampler(bytes(32), top_k=5, bias=((1, 1.0),))
            refused = await collect(engine, Generate("r", ChatRequest((Message("user", "Hi"),), 9, sampler)))
            assert failed(refused.end, "invalid_request", "top_k, logit_bias")
            short = await collect(engine, Generate("c", chat(4)))
            assert (short.text, short.end) == ("Hi seed=2 on", Finished("c", "length", 4))
            assert short.ids == text_ids(b"Hi seed=2 on")

    uvloop.run(main())


def test_embeddings_keep_their_order_in_any_number(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, ready):
            assert ready.width == 3
            texts = tuple(f"{'a' * (i % 7)} word {i}" for i in range(100))
            found = await engine.embed(Embed("many", EmbedRequest(texts)))
            assert isinstance(found, Embedded)
            rows = [struct.unpack("<3f", row) for row in found.vectors]
            assert rows == [(len(text), text.count("a"), 0.5) for text in texts]
            assert found.tokens == tuple(len(text.split()) for text in texts)

    uvloop.run(main())


def test_what_cannot_be_served_is_refused_in_words(quay: Quay) -> None:
    async def main() -> None:
        echo = Operation("echo", max_input=64)
        async with quay.open(operations=(echo, Operation("tell"))) as (engine, _):
            call = CallRequest("echo", b"1", 10)
            cases = {
                "does not sing": Generate("a", CallRequest("sing", b"1", 10)),
                "does not embed": Generate("b", CallRequest("embed", b"1", 10)),
                "is no JSON": Generate("c", CallRequest("echo", b"{'a': 1}", 10)),
                "cannot be resumed": Generate("d", call, emitted=(16777265,)),
                "echo takes 64": Generate("e", CallRequest("echo", b'"' + b"a" * 100 + b'"', 10)),
                "nested too deep": Generate("f", CallRequest("tell", b"[" * 5000 + b"]" * 5000, 10)),
            }
            for words, asked in cases.items():
                answer = await collect(engine, asked)
                assert failed(answer.end, "invalid_request", words), (words, answer.end)
                assert answer.started is None
            large = await collect(engine, Generate("g", CallRequest("echo", b"1", 131_072)))
            assert isinstance(large.end, Finished)
            scored = await engine.score(Score("h", call, (1,)))
            assert failed(scored, "invalid_request", "cannot be checked")
            refused = await ask(engine, "refuse")
            assert failed(refused.end, "invalid_request", "Not on a Sunday.")
            broken = await ask(engine, "break-")
            assert failed(broken.end, "agent_error", "RuntimeError")
            assert "secret" not in str(broken.end)
            for _ in range(1_000):  # its standard error is a pipe of its own: its words may come later
                if "a secret of the agent" in engine.last_words():
                    break
                await asyncio.sleep(0.01)
            assert "a secret of the agent" in engine.last_words()
            assert await value(engine, "echo", 3) == 3
        async with quay.open(context=50) as (engine, _):
            over = await collect(engine, Generate("i", CallRequest("echo", b"1", 49)))
            assert failed(over.end, "context_exceeded", "50")

    uvloop.run(main())


def test_a_cancelled_call_ends_at_once_and_the_agent_hears_of_it(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(slots=1) as (engine, _):
            for leave in ("cancel", "close"):
                answer = Answer()
                asked = order("tell", {"pieces": 100, "pause": 0.02})
                async with aclosing(engine.generate(asked)) as events:  # type: ignore[type-var]
                    async for event in events:
                        answer.add(event)
                        if isinstance(event, Run) and leave == "close":
                            break
                        if isinstance(event, Run):
                            engine.cancel(asked.id)
                if leave == "cancel":
                    assert answer.end == Finished(asked.id, "cancelled", len(answer.ids))
                assert await value(engine, "echo", 1) == 1
            engine.cancel("never was")
            late = order("late", max_tokens=100_000, ahead=4)
            async for event in engine.generate(late):
                if isinstance(event, Run):
                    engine.cancel(late.id)
            await asyncio.sleep(1.2)
            assert engine.health().alive

    uvloop.run(main())


def test_a_caller_that_takes_nothing_makes_the_agent_wait(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open(slots=2) as (engine, _):
            asked = order("tell", {"pieces": 8_000}, max_tokens=131_072, ahead=32)
            events = engine.generate(asked)
            assert isinstance(await anext(events), Started)
            first = await anext(events)
            assert isinstance(first, Run)
            assert len(first.ids) <= 32
            await asyncio.sleep(0.5)
            text = first.text
            async for event in events:
                if isinstance(event, Run):
                    assert len(event.ids) <= 32
                    text += event.text
            assert text == "".join(f"{i} " for i in range(8_000))

    uvloop.run(main())


def test_a_container_that_ends_gives_every_call_a_reason_and_another_can_be_started(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, ready):
            dying = asyncio.ensure_future(ask(engine, "die", {"status": 3}))
            other = asyncio.ensure_future(ask(engine, "slow", {"seconds": 30}))
            answer = await dying
            assert answer.text == "half an ans"
            assert failed(answer.end, "engine_died", "status 3")
            assert failed((await other).end, "engine_died", "status 3")
            assert not engine.health().alive
            assert failed((await ask(engine, "echo", 1)).end, "engine_died")
            await engine.stop()
        async with quay.open() as (engine, ready):
            slow = asyncio.ensure_future(ask(engine, "slow", {"seconds": 30}))
            await asyncio.sleep(0.1)
            os.kill(ready.pid, signal.SIGKILL)
            assert failed((await slow).end, "engine_died", "137")
            await engine.stop()
            assert left_over(quay, engine) == 0

    uvloop.run(main())


def test_usage_is_what_the_kernel_counted(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, _):
            await ask(engine, "tell", {"pieces": 5_000}, max_tokens=100_000)
            engine.health()
            for _ in range(100):
                await asyncio.sleep(0.02)
                if engine.health().cpu_s:
                    break
            health = engine.health()
            assert health.cpu_s > 0.02
            assert 1 << 20 < health.memory <= 96 << 20

    uvloop.run(main())


def test_stopping_leaves_nothing_and_a_restarted_node_reaps_what_was_left(quay: Quay) -> None:
    async def main() -> None:
        async with quay.open() as (engine, _):
            running = asyncio.ensure_future(ask(engine, "slow", {"seconds": 30}))
            await asyncio.sleep(0.05)
            await engine.stop(0)
            assert failed((await running).end, "engine_died", "stopped")
            await engine.stop()
        stuck = quay.engine()
        await stuck.start()
        assert left_over(quay, stuck) == 1
        (quay.folder / "another node").mkdir()
        assert reap(quay.url, quay.folder / "another node") == 0
        assert reap(quay.url, quay.folder) == 1
        assert reap(quay.url, quay.folder) == 0
        assert failed((await ask(stuck, "echo", 1)).end, "engine_died")
        await stuck.stop()

    uvloop.run(main())


def test_an_agent_that_does_not_begin_well_says_why(quay: Quay) -> None:
    cases = {
        "broken": ("engine_died", "no model here"),
        "silent": ("timeout", "was not ready within 1.5 s"),
        "garbage": ("agent_error", "not a frame"),
        "liar": ("agent_error", "does not do tell"),
        "early": ("agent_error", "before it said that it is ready"),
    }

    async def one(mode: str) -> EngineError:
        deadline = 1.5 if mode == "silent" else 30
        engine: ContainerEngine = quay.engine(mode, load_deadline=deadline, operations=(Operation("tell"),))
        with pytest.raises(EngineError) as caught:
            await engine.start()
        assert not engine.health().alive
        return caught.value

    async def main() -> None:
        for mode, error in zip(cases, await asyncio.gather(*map(one, cases)), strict=True):
            code, words = cases[mode]
            assert (error.failure, words in error.message) == (code, True), (mode, error)
        assert reap(quay.url, quay.folder) == 0

    uvloop.run(main())


def test_engines_that_cannot_be_reached_say_so(quay: Quay) -> None:
    async def main() -> None:
        for url, words in (("unix:///nowhere.sock", "does not answer"), ("tcp://127.0.0.1:1", "own socket")):
            engine = ContainerEngine(quay.engine()._spec, quay.folder, url)
            with pytest.raises(EngineError, match=words) as caught:
                await engine.start()
            assert caught.value.failure == "engine_error"

    uvloop.run(main())


def test_an_agent_that_promises_to_repeat_itself_can_be_checked(quay: Quay) -> None:
    """Equal answers score nothing, changed and random ones infinitely; one that goes on or stops short is seen."""

    async def main() -> None:
        async with quay.open(repeats=True) as (engine, _):
            asked = order("tell", {"pieces": 5})
            answer = await collect(engine, asked)
            ids = tuple(answer.ids)
            scored = await engine.score(Score("s", asked.request, ids))
            assert isinstance(scored, Scored)
            assert (set(scored.margins), scored.finish, scored.ended) == ({0.0}, "stop", len(ids))
            assert answer.started is not None
            assert scored.prompt_hash == answer.started.prompt_hash
            changed = (*ids[:2], ids[2] ^ 1, *ids[3:])
            other = await engine.score(Score("c", asked.request, changed, 1))
            assert isinstance(other, Scored)
            assert other.margins == (0.0, math.inf, *[0.0] * (len(ids) - 3))
            short = await engine.score(Score("h", asked.request, ids[:-1]))
            assert isinstance(short, Scored)
            assert (short.finish, short.ended) == ("", 0)
            long = await engine.score(Score("l", asked.request, (*ids, ids[0])))
            assert isinstance(long, Scored)
            assert (long.margins[-1], long.finish, long.ended) == (math.inf, "stop", len(ids))
            failed_again = await engine.score(Score("f", CallRequest("refuse", b"null", 10), ids))
            assert failed(failed_again, "invalid_request", "Not on a Sunday.")

    uvloop.run(main())
