"""The torch engine's confined process on a card: its answers stand up to an audit, its memory is what it says."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from integration.engines.asking import Answer, ask, collect
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Ready, Score, Scored
from lading_node.hardware.discover import discover
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.calibration import LEAST_CHUNK
from lading_protocol.sketches import chunk_means, errors

JOB = bytes(range(32))
LENGTH = 60
# Of half precision, as in test_audits_on_gpu.
WIDE_MARGIN, WIDE_CHUNK = 0.3, 0.05
# What a CUDA context and the libraries' own buffers take; the model is of 4 MB.
MOST_ON_CARD = 1536 << 20


@asynccontextmanager
async def serving(spec: EngineSpec, scratch: Path) -> AsyncIterator[tuple[ChildEngine, Ready]]:
    engine = ChildEngine(spec, scratch, load_deadline=100)
    try:
        yield engine, await engine.start()
    finally:
        await engine.stop()


def order(number: int, emitted: tuple[int, ...] = ()) -> Generate:
    request = ask(LENGTH, seed=number, temperature=(1.0, 0.7, 0.0)[number % 3])
    return Generate(f"{number}:{len(emitted)}", request, emitted, job=JOB)


def whole(answer: Answer) -> tuple[list[int], bytes, bytes]:
    assert isinstance(answer.end, Finished), answer.end
    return answer.ids, answer.prompt_sketch, answer.sketch


def same(one: tuple[list[int], bytes, bytes], other: tuple[list[int], bytes, bytes]) -> bool:
    apart = errors(one[1], other[1]) + errors(one[2], other[2])
    return one[0] == other[0] and max(apart) < LEAST_CHUNK


def test_a_confined_process_computes_on_the_card(precise: EngineSpec, device: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(precise, tmp_path) as (engine, ready):
            assert ready.version.endswith(f" torch-{precise.precision}-{device}")
            assert {"rlimits", "network", "memory", "syscalls", "no-new-privileges"} <= set(ready.confinement)
            answer = await collect(engine, order(0))
            ids, prompt, sketch = whole(answer)
            assert prompt
            assert len(sketch) == 32 * len(ids)
            assert engine.health().alive

    asyncio.run(run())


def test_an_answer_is_as_good_whoever_is_served_beside_it(precise: EngineSpec, tmp_path: Path) -> None:
    """In f32 the same tokens alone, sixteen at once (by one pass for all), and by another process. Half precision
    rounds otherwise in a pass of another shape, as it does in an auditor's: each answer stands by itself there."""

    async def run() -> None:
        async with serving(precise, tmp_path) as (engine, _):
            alone = [whole(await collect(engine, order(number))) for number in range(16)]
            beside = [
                whole(one) for one in await asyncio.gather(*(collect(engine, order(number)) for number in range(16)))
            ]
            if precise.precision == "f32":
                assert all(map(same, alone, beside))
            worst = [max([await off(engine, number, one[number]) for number in range(16)]) for one in (alone, beside)]
            print(f"{precise.precision}: margins {worst[0]:.3g} alone, {worst[1]:.3g} beside others")
            assert max(worst) < (EXACT_MARGIN if precise.precision == "f32" else WIDE_MARGIN)
        async with serving(precise, tmp_path) as (engine, _):
            assert same(whole(await collect(engine, order(3))), alone[3])

    async def off(engine: ChildEngine, number: int, told: tuple[list[int], bytes, bytes]) -> float:
        scored = await engine.score(Score("s", order(number).request, tuple(told[0]), job=JOB))
        assert isinstance(scored, Scored), scored
        apart = errors(scored.sketch, told[1] + told[2])
        assert max(chunk_means(apart)) < (LEAST_CHUNK if precise.precision == "f32" else WIDE_CHUNK)
        return max(scored.margins)

    asyncio.run(run())


def test_an_answer_that_is_taken_over_goes_on_as_it_would_have(precise: EngineSpec, tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(precise, tmp_path) as (engine, _):
            for number in range(6):
                ids, _, _ = whole(await collect(engine, order(number)))
                rest, _, _ = whole(await collect(engine, order(number, tuple(ids[: len(ids) // 2]))))
                scored = await engine.score(Score("s", order(number).request, (*ids[: len(ids) // 2], *rest), job=JOB))
                assert isinstance(scored, Scored), scored
                # Prefill and decoding differ in their last bits, which in half precision may decide a near-tie.
                assert rest == ids[len(ids) // 2 :] or (precise.precision != "f32" and max(scored.margins) < 0.5)

    asyncio.run(run())


def test_the_class_that_is_offered_is_the_one_that_computes(card: str, chat: EngineSpec, tmp_path: Path) -> None:
    """A card that takes over what was offered for the processor would be audited as a processor."""
    named = msgspec.structs.replace(chat, numeric="torch-f32-cpu")

    async def run() -> None:
        with pytest.raises(EngineError, match="torch-f32-cpu, and here it computes in torch-f32-cuda"):
            async with serving(named, tmp_path):
                pass
        async with serving(msgspec.structs.replace(chat, numeric="torch-f32-cuda"), tmp_path):
            pass

    asyncio.run(run())


def test_the_card_s_memory_is_bounded_and_comes_back(card: str, chat: EngineSpec, tmp_path: Path) -> None:
    async def used() -> int:
        return sum(device.memory_used for device in (await discover(vendors=("nvidia",))).devices)

    async def run() -> None:
        before = await used()
        async with serving(chat, tmp_path) as (engine, _):
            await asyncio.gather(*(collect(engine, order(number)) for number in range(16)))
            taken = await used() - before
            print(f"the engine takes {taken / 2**20:.0f} MiB of the card")
            assert 0 < taken < MOST_ON_CARD
        for _ in range(50):
            if (left := await used() - before) < 64 << 20:
                break
            await asyncio.sleep(0.1)
        assert left < 64 << 20

    asyncio.run(run())


def test_a_killed_engine_leaves_nothing_on_the_card(card: str, chat: EngineSpec, tmp_path: Path) -> None:
    """As a node does with one that hangs, in the middle of its work."""

    async def run() -> None:
        async with serving(chat, tmp_path) as (engine, ready):
            working = asyncio.gather(*(collect(engine, order(number)) for number in range(16)))
            await asyncio.sleep(0.1)
            os.kill(ready.pid, 9)
            ends = [answer.end for answer in await working]
            assert any(isinstance(end, Failed) and end.code == "engine_died" for end in ends), ends
        async with serving(chat, tmp_path) as (engine, _):
            whole(await collect(engine, order(1)))

    asyncio.run(run())
