"""Calls of wasm agents: streamed, billed by fuel, cut at the budget, resumed anywhere, scored, cancelled, isolated."""

import asyncio
import os
import signal
import time
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from integration.engines.asking import Answer, collect
from integration.engines.wasm_guests import ECHO, FOREVER, answered, ask_for, finished, module, refused, running, write
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Embed, EngineSpec, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_protocol.messages import ChatRequest, EmbedRequest, Message, Sampler
from lading_protocol.parts import Capabilities, Operation
from lading_protocol.work import FUEL, text_bytes

TEXT = '"the fox carries a lantern 🦊"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wasm")


@pytest.fixture(scope="module")
def echo(folder: Path) -> EngineSpec:
    return write(folder, module(ECHO), cache=str(folder / "cache"))


def test_an_answer_streams_and_its_ids_are_text_and_fuel(echo: EngineSpec, tmp_path: Path) -> None:
    first, again, longer = answered(echo, tmp_path, ask_for(TEXT), ask_for(TEXT), ask_for(TEXT + TEXT))
    assert finished(first) == Finished("0", "stop", len(first.ids))
    assert first.text == TEXT
    assert text_bytes(first.ids).decode() == TEXT
    assert first.ids == again.ids
    # A million turns of the loop a byte, of some units of fuel each: several tokens of fuel, and twice for twice.
    assert first.ids.count(FUEL) >= 10
    assert longer.ids.count(FUEL) == pytest.approx(2 * first.ids.count(FUEL), abs=2)
    # The text costs the same in however small parts it was said.
    assert len(first.ids) - first.ids.count(FUEL) == -(-len(TEXT.encode()) // 3)


def test_text_arrives_while_the_guest_works(echo: EngineSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(echo, tmp_path) as engine:
            runs = [event async for event in engine.generate(Generate("a", ask_for(TEXT))) if isinstance(event, Run)]
            assert len([run for run in runs if run.text]) > 3

    asyncio.run(main())


def test_fuel_is_identical_in_other_processes_and_from_fresh_code(folder: Path, tmp_path: Path) -> None:
    """Compiled again, loaded from the cache, alone and beside others that interrupt it."""
    code = module(ECHO)
    uncached = answered(write(folder, code), tmp_path, ask_for(TEXT))[0].ids
    cached = [answered(write(folder, code, cache=str(folder / "cache")), tmp_path, ask_for(TEXT))[0].ids for _ in "ab"]
    assert cached == [uncached, uncached]

    async def main() -> None:
        async with running(write(folder, code, cache=str(folder / "cache")), tmp_path) as engine:
            asked = [collect(engine, Generate(str(at), ask_for(TEXT), ahead=4)) for at in range(4)]
            assert [answer.ids for answer in await asyncio.gather(*asked)] == [uncached] * 4

    asyncio.run(main())


def test_a_call_resumes_at_every_index(echo: EngineSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(echo, tmp_path) as engine:
            request = ask_for('"ab🦊"')
            answer = await collect(engine, Generate("whole", request))
            for cut in range(len(answer.ids) + 1):
                emitted = tuple(answer.ids[:cut])
                rest = await collect(engine, Generate(f"cut {cut}", request, emitted))
                assert [*emitted, *rest.ids] == answer.ids
                assert finished(rest).output_tokens == len(answer.ids)
                assert answer.text.endswith(rest.text)
            wrong = await collect(engine, Generate("wrong", request, (answer.ids[0] ^ 1,)))
            assert isinstance(wrong.end, Failed)
            assert wrong.end.code == "invalid_request"

    asyncio.run(main())


def test_an_honest_answer_scores_nothing_and_a_changed_one_infinitely(echo: EngineSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(echo, tmp_path) as engine:
            request = ask_for(TEXT)
            ids = (await collect(engine, Generate("a", request))).ids
            honest = await engine.score(Score("s", request, tuple(ids)))
            assert isinstance(honest, Scored)
            assert set(honest.margins) == {0.0}
            assert (honest.finish, honest.ended) == ("stop", len(ids))
            padded = await engine.score(Score("p", request, (*ids, FUEL)))
            assert isinstance(padded, Scored)
            assert padded.margins[-1] == float("inf")

    asyncio.run(main())


@pytest.mark.parametrize("tokens", [1, 2, 7, 30])
def test_the_budget_cuts_the_answer_at_the_same_place(echo: EngineSpec, tmp_path: Path, tokens: int) -> None:
    whole, cut = answered(echo, tmp_path, ask_for(TEXT), ask_for(TEXT, tokens))
    assert finished(cut) == Finished("1", "length" if tokens < len(whole.ids) else "stop", len(cut.ids))
    assert cut.ids == whole.ids[:tokens]


def test_endless_work_ends_with_the_fuel_that_was_paid_for(folder: Path, tmp_path: Path) -> None:
    (answer,) = answered(write(folder, module(FOREVER)), tmp_path, ask_for(tokens=50))
    assert finished(answer).finish == "length"
    assert answer.ids == [FUEL] * 50


def test_a_silent_guest_is_billed_as_it_works(folder: Path, tmp_path: Path) -> None:
    """Or a host would work unpaid until the end."""

    async def main() -> None:
        async with running(write(folder, module(FOREVER)), tmp_path) as engine:
            got = 0
            async with aclosing(engine.generate(Generate("a", ask_for(tokens=100_000), ahead=20))) as events:  # type: ignore[type-var]
                async for event in events:
                    got += len(event.ids) if isinstance(event, Run) else 0
                    if got > 100:
                        break

    asyncio.run(main())


def test_a_cancel_in_the_middle_of_work_is_obeyed_at_once(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(write(folder, module(FOREVER)), tmp_path) as engine:
            answer, asked = Answer(), 0.0
            async with aclosing(engine.generate(Generate("a", ask_for(tokens=100_000)))) as events:  # type: ignore[type-var]
                async for event in events:
                    answer.add(event)
                    if isinstance(event, Started):
                        asked = time.perf_counter()
                        engine.cancel("a")
            assert finished(answer).finish == "cancelled"
            assert time.perf_counter() - asked < 1.0

    asyncio.run(main())


def test_others_are_served_while_one_works(folder: Path, tmp_path: Path) -> None:
    forever = f"(drop (block (result i32) {FOREVER}))"
    body = f"(if (i32.gt_u (local.get $in_length) (i32.const 2)) (then {forever})) (i32.const 0)"

    async def main() -> None:
        async with running(write(folder, module(body)), tmp_path) as engine:
            long = asyncio.create_task(collect(engine, Generate("long", ask_for(tokens=100_000))))
            await asyncio.sleep(0.05)
            short = await collect(engine, Generate("short", ask_for("1")))
            assert finished(short).finish == "stop"
            assert not long.done()
            engine.cancel("long")
            assert finished(await long).finish == "cancelled"

    asyncio.run(main())


def test_nothing_of_a_call_is_left_for_the_next(folder: Path, tmp_path: Path) -> None:
    """It says what stands at an address, then keeps its input there."""
    body = """(call $emit (i32.const 64) (i32.const 8))
      (i32.store (i32.const 64) (i32.load (local.get $in))) (i32.const 0)"""
    for answer in answered(write(folder, module(body)), tmp_path, *[ask_for('"secret"')] * 3):
        assert answer.text == "\0" * 8


def test_a_refusal_is_told_in_the_agents_words(folder: Path, tmp_path: Path) -> None:
    body = "(call $fail (i32.const 8) (i32.const 16)) (i32.const 0)"
    failed = refused(write(folder, module(body, more='(data (i32.const 8) "no such\\0ainvoice\\1b")')), tmp_path)
    assert failed.code == "invalid_request"
    assert failed.message == "The agent refuses the request: no such invoice\N{REPLACEMENT CHARACTER}"
    failed = refused(write(folder, module("(i32.const 7)")), tmp_path)
    assert (failed.code, failed.message) == ("invalid_request", "The agent refuses the request: code 7")


def test_operations_and_their_input_are_held_to_the_manifest(echo: EngineSpec, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(echo, operations=(Operation("do", max_input=4), Operation("chat")))
    ok, large, unknown = answered(spec, tmp_path, ask_for('"a"'), ask_for('"abc"'), ask_for("1", operation="other"))
    assert ok.text == '"a"'
    assert isinstance(large.end, Failed)
    assert "takes 4" in large.end.message
    assert isinstance(unknown.end, Failed)
    assert "does not 'other'" in unknown.end.message


def test_a_chat_is_a_call_and_an_embedding_is_refused(echo: EngineSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(echo, tmp_path) as engine:
            chat = ChatRequest((Message("user", "Hi"),), 1000, Sampler(bytes(32), 0.5))
            answer = await collect(engine, Generate("chat", chat))
            assert answer.text.startswith('{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1000')
            held = msgspec.structs.replace(chat, sampler=Sampler(bytes(32), 0.5, grammar=b"{}"))
            barred = await collect(engine, Generate("held", held))
            assert isinstance(barred.end, Failed)
            assert "response_format" in barred.end.message
            embedded = await engine.embed(Embed("e", EmbedRequest(("a",))))
            assert isinstance(embedded, Failed)

    asyncio.run(main())


def test_an_engine_starts_again_after_a_kill(echo: EngineSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(echo, tmp_path) as engine:
            pid = engine._process.pid  # type: ignore[union-attr]
            answer = Answer()
            async with aclosing(engine.generate(Generate("a", ask_for(TEXT), ahead=2))) as events:  # type: ignore[type-var]
                async for event in events:
                    answer.add(event)
                    if isinstance(event, Run):
                        os.kill(pid, signal.SIGKILL)
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "engine_died"
        async with running(echo, tmp_path) as engine:
            rest = await collect(engine, Generate("a", ask_for(TEXT), tuple(answer.ids)))
            assert text_bytes([*answer.ids, *rest.ids]).decode() == TEXT

    asyncio.run(main())


def test_clock_and_chance_exist_only_when_granted(folder: Path, tmp_path: Path) -> None:
    body = """(call $random (i32.const 64) (i32.const 8)) (i64.store (i32.const 72) (call $now))
      (call $emit (i32.const 64) (i32.const 16)) (i32.const 0)"""
    code = module(body, imports=("emit", "now", "random"))
    granted = write(folder, code, capabilities=Capabilities(clock=True, randomness=True))
    one, two = answered(granted, tmp_path, ask_for(), ask_for())
    a, b = text_bytes(one.ids), text_bytes(two.ids)
    assert a[:8] != b[:8]
    assert abs(int.from_bytes(b[8:], "little") / 1000 - time.time()) < 60
    for missing in (Capabilities(), Capabilities(clock=True), Capabilities(randomness=True)):
        with pytest.raises(EngineError) as refusal:
            answered(write(folder, code, capabilities=missing), tmp_path)
        assert refusal.value.failure == "invalid_package"
