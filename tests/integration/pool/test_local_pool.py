"""A pool without Ray: placement, files, streams, and what happens when engines, machines and cables go."""

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from integration.engines import tiny_llama
from integration.engines.asking import Answer, ask, collect, whole
from lading_node.core.placing import Need
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means
from lading_node.engines.local_pool import LocalPool
from lading_node.engines.pool import Pool, granted_devices, room_of
from lading_node.engines.port import Embed, EngineSpec, Failed, Finished, Generate, Run, Score
from lading_node.hardware.devices import Device
from lading_node.hardware.discover import discover
from lading_protocol.messages import ChatRequest, EmbedRequest, Message, Sampler

TOY = EngineSpec("memory", context=4000)
ONE, TWO = {"a": {"CPU": 1.0}}, {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
replace = msgspec.structs.replace


async def quick(folder: Path) -> tuple[tuple[Device, ...], Means]:
    """What devices there are in earnest, with the tiers taken on trust: their self-test has tests of its own."""
    return (await discover(vendors=("cpu",))).devices, Means()


@asynccontextmanager
async def opened(folder: Path, machines: dict[str, dict[str, float]], silent: float = 4.0) -> AsyncIterator[Pool]:
    pool = Pool(LocalPool(folder, machines, quick), silent=silent)
    await pool.open()
    try:
        assert await pool.machines(len(machines), 10)
        yield pool
    finally:
        await pool.close()
        assert not list(folder.iterdir())


def cluster(pool: Pool) -> LocalPool:
    found = pool._cluster
    assert isinstance(found, LocalPool)
    return found


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what another machine measures is looked at, it rings no bell
        await asyncio.sleep(0.02)


def unshared(spec: EngineSpec) -> EngineSpec:
    """With paths that only this program understands, as on a machine that shares no folder."""
    return replace(spec, files=tuple(replace(file, path=os.path.relpath(file.path)) for file in spec.files))


async def until_it_ends(pool: Pool, spec: EngineSpec, end: object) -> tuple[Answer, float]:
    """A long answer during which `end` happens; how it ended, and how many seconds later."""
    engine = pool.engine(spec)
    await engine.start()
    answer, began = Answer(), 0.0
    order = Generate("long", ask(3000, temperature=0.0), ahead=4)
    async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
        async for event in events:
            answer.add(event)
            if isinstance(event, Run) and not began:
                began = time.monotonic()
                await end(engine)  # type: ignore[operator]
    return answer, time.monotonic() - began


def test_engines_go_where_room_is_and_the_sum_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, TWO) as pool:
            sum_ = pool.capacity()
            assert (sum_.machines, sum_.cores, len(sum_.devices), sum_.engines) == (2, 2.0, 2, 0)
            assert pool.fits(Need()) == 2
            one, two, three = (pool.engine(TOY) for _ in range(3))
            assert (await one.start()).pid != (await two.start()).pid
            assert {taken.machine for taken, _ in pool._seats.values()} == {"a", "b"}
            with pytest.raises(EngineError, match=r"a: 0 of 1 cores are free; b: 0 of 1") as refused:
                await three.start()
            assert refused.value.failure == "resource_exhausted"
            await one.stop()
            assert pool.fits(Need()) == 1
            again = pool.engine(TOY)
            await again.start()
            assert (await whole(again, ask(20))).ids == (await whole(two, ask(20))).ids

    uvloop.run(main())


def test_a_placed_engine_is_the_engine_of_a_lone_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that mean nothing on the machine, as anywhere else: its files are pulled, in parts, and checked."""
    monkeypatch.chdir(tmp_path)
    for name in ("agent", "alone", "pool"):
        (tmp_path / name).mkdir()
    spec = tiny_llama.write_chat(tmp_path / "agent", size=tiny_llama.CHAT)
    assert (tmp_path / "agent/model.onnx").stat().st_size > 3 * (512 << 10)
    request = ask(30, seed=3)

    async def main() -> None:
        alone = ChildEngine(spec, tmp_path / "alone")
        ready = await alone.start()
        async with opened(tmp_path / "pool", ONE) as pool:
            engine = pool.engine(unshared(spec))
            placed = await engine.start()
            assert replace(placed, pid=0, load_ms=0) == replace(ready, pid=0, load_ms=0)
            kept = {path.name for path in (tmp_path / "pool/a/files").iterdir()}
            assert kept == {f"{file.digest.hex()}{Path(file.path).suffix}" for file in spec.files}
            mine, theirs = await whole(alone, request), await whole(engine, request)
            assert (theirs.ids, theirs.text, theirs.end) == (mine.ids, mine.text, mine.end)
            ids = tuple(mine.ids)
            assert await engine.score(Score("s", request, ids)) == await alone.score(Score("s", request, ids))
            refused = await engine.embed(Embed("e", EmbedRequest(("a",))))
            assert refused == await alone.embed(Embed("e", EmbedRequest(("a",))))
            await engine.stop()
            began = time.monotonic()
            again = pool.engine(unshared(spec))
            await again.start()
            assert (await whole(again, request)).ids == mine.ids
            assert time.monotonic() - began < 60
        await alone.stop()

    uvloop.run(main())


def test_files_that_are_not_what_the_manifest_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    spec = unshared(tiny_llama.write_chat(tmp_path))
    model, *rest = spec.files
    cases = {
        "not the file that the manifest names": replace(model, digest=hashlib.sha256(b"other").digest()),
        "cannot be read on the node": replace(model, path="nowhere.onnx"),
    }

    async def main() -> None:
        async with opened(tmp_path / "pool", ONE) as pool:
            for words, file in cases.items():
                engine = pool.engine(replace(spec, files=(file, *rest)))
                with pytest.raises(EngineError, match=words) as refused:
                    await engine.start()
                assert refused.value.failure == "invalid_package"
                assert pool.capacity().engines == 0
            assert not list((tmp_path / "pool/a/files").glob("*.part"))

    uvloop.run(main())


def test_a_machine_reads_no_file_of_the_node_but_the_agents(tmp_path: Path) -> None:
    """A machine that asks for other bytes gets none, whatever it names and however often."""
    from lading_node.engines import pool_engine

    secret = tmp_path / "key"
    secret.write_text("secret")
    spec = tiny_llama.write_chat(tmp_path)
    other = hashlib.sha256(b"secret").digest()
    assert pool_engine._part(spec, other, 0) is None
    assert pool_engine._part(spec, spec.files[0].digest, 1 << 70) is None
    assert pool_engine._part(spec, spec.files[0].digest, -1) is None
    assert len(pool_engine._part(spec, spec.files[0].digest, 0) or b"") > 0


def test_streams_have_back_pressure_cancel_and_slots(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, ONE) as pool:
            engine = pool.engine(replace(TOY, slots=2))
            await engine.start()
            long = engine.generate(Generate("long", ask(3000, temperature=0.0), ahead=8))
            async with aclosing(long) as events:  # type: ignore[type-var]
                await anext(events)
                await whole(engine, ask(50), "meanwhile")
                await asyncio.sleep(0.3)
                made = engine.health().output_tokens
                await asyncio.sleep(0.3)
                assert engine.health().output_tokens == made <= 58
                other = aiter(engine.generate(Generate("other", ask(3000, temperature=0.0), ahead=8)))
                await anext(other)
                third = await collect(engine, Generate("third", ask(5)))
                assert isinstance(third.end, Failed)
                assert third.end.code == "busy"
                engine.cancel("other")
                *_, last = [event async for event in other]
                assert isinstance(last, Finished)
                assert last.finish == "cancelled"
            assert (await whole(engine, ask(5), "after")).ids
            big = ChatRequest((Message("user", "fox " * 300_000),), 5, Sampler(bytes(32)))
            refused = await collect(engine, Generate("big", big))
            assert isinstance(refused.end, Failed)
            assert refused.end.code in ("invalid_request", "context_exceeded")
            assert (await whole(engine, ask(5), "still")).ids

    uvloop.run(main())


def test_a_killed_engine_is_told_at_once_and_its_room_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, ONE) as pool:
            engine = pool.engine(TOY)
            ready = await engine.start()
            answer, began = Answer(), 0.0
            order = Generate("a", ask(3000, temperature=0.0), ahead=4)
            async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
                async for event in events:
                    answer.add(event)
                    if isinstance(event, Run) and not began:
                        began = time.monotonic()
                        os.kill(ready.pid, signal.SIGKILL)
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "engine_died"
            assert time.monotonic() - began < 60
            idle = pool.engine(TOY)
            async with asyncio.timeout(3):
                await until(lambda: not pool.capacity().engines)
            assert not engine.health().alive
            pid = (await idle.start()).pid
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(3):
                await until(lambda: not idle.health().alive)
            assert pool.fits(Need()) == 1

    uvloop.run(main())


def test_a_machine_that_starts_anew_fails_its_requests_and_serves_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, ONE) as pool:
            answer, took = await until_it_ends(pool, TOY, lambda engine: cluster(pool).restart("a"))
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "engine_died"
            assert took < 2
            assert await pool.machines(1, 5)
            again = pool.engine(TOY)
            await again.start()
            assert (await whole(again, ask(10))).ids

    uvloop.run(main())


def test_a_cut_cable_is_noticed_by_silence_and_mended_without_leftovers(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, TWO, silent=2.5) as pool:
            machine = ""

            async def cut(engine: object) -> None:
                nonlocal machine
                ((taken, _),) = pool._seats.values()
                machine = taken.machine
                cluster(pool).cut(machine)

            answer, took = await until_it_ends(pool, TOY, cut)
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "engine_died"
            assert "silent" in answer.end.message
            assert took < 3.5
            assert pool.capacity().machines == 1
            elsewhere = pool.engine(TOY)
            await elsewhere.start()
            assert (await whole(elsewhere, ask(10))).ids
            cluster(pool).mend(machine)
            assert await pool.machines(2, 8)
            assert not list((tmp_path / machine).glob("engine-*")), "the engine of before must have ended"

    uvloop.run(main())


def test_what_an_operator_grants_limits_what_is_measured() -> None:
    processor = Device("cpu", 0, "EPYC", memory=64 << 30, cores=16)
    cards = tuple(Device("nvidia", i, "NVIDIA L4", uuid=f"GPU-{i}", memory=24 << 30) for i in range(3))
    lost = Device("nvidia", 3, "NVIDIA L4", uuid="GPU-3", usable=False)
    found = (processor, *cards, lost)

    def granted(**resources: float) -> tuple[float, int, tuple[str, ...]]:
        named = {name.replace("_", ":").replace("GPU:", "GPU-"): amount for name, amount in resources.items()}
        room = room_of("a", granted_devices(found, named), named)
        return room.cores, room.memory, room.cards

    assert granted() == (16, 64 << 30, ("GPU-0", "GPU-1", "GPU-2"))
    assert granted(CPU=4, memory=1 << 30, GPU=2) == (4, 1 << 30, ("GPU-0", "GPU-1"))
    assert granted(CPU=32) == (16, 64 << 30, ())
    assert granted(CPU=4, GPU=2, gpu_GPU_1=1, gpu_GPU_3=1) == (4, 64 << 30, ("GPU-1",))
