"""One agent on many machines: its members come and go with them, and take with them only what is their own."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from integration.engines.asking import Answer, ask, collect, whole
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means
from lading_node.engines.local_pool import LocalPool
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.pool import Pool
from lading_node.engines.port import Embed, EngineSpec, Failed, Finished, Generate, Health, Run, Scored
from lading_node.engines.port import Score as Check
from lading_node.engines.ray_actor import Study
from lading_node.engines.spread import SpreadEngine
from lading_node.hardware.devices import Device
from lading_protocol.messages import EmbedRequest

TOY = EngineSpec("memory", context=4000, slots=2)
CORE = {"CPU": 1.0}
replace = msgspec.structs.replace


def machine(**features: str) -> Study:
    async def study(folder: Path) -> tuple[tuple[Device, ...], Means]:
        wide = (features.get(folder.name, "avx2"),)
        return (Device("cpu", 0, "Known", memory=1 << 40, cores=64, features=wide),), Means()

    return study


@asynccontextmanager
async def opened(
    folder: Path, names: str, study: Study | None = None, silent: float = 4.0
) -> AsyncIterator[tuple[Pool, LocalPool]]:
    """Machines of one core each, by letters."""
    cluster = LocalPool(folder, dict.fromkeys(names, CORE), study or machine())
    pool = Pool(cluster, silent=silent)
    await pool.open()
    try:
        assert await pool.machines(len(names), 10)
        yield pool, cluster
    finally:
        await pool.close()


@asynccontextmanager
async def started(pool: Pool, spec: EngineSpec = TOY, most: int = 0) -> AsyncIterator[SpreadEngine]:
    engine = pool.spread(spec, most)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what another machine does is looked at, it rings no bell
            await asyncio.sleep(0.02)


def on(engine: SpreadEngine) -> list[str]:
    return sorted(member.machine for member in engine.members)


class Long:
    """A long answer that is taken one event at a time, from the second on only when `rest` is asked for."""

    def __init__(self, engine: SpreadEngine, id: str, tokens: int = 300) -> None:
        self.order = Generate(id, ask(tokens, temperature=0.0), ahead=4)
        self.answer = Answer()
        self.machine = ""
        self._engine = engine
        self._events = engine.generate(self.order)

    async def begin(self) -> "Long":
        async for event in self._events:
            self.answer.add(event)
            if isinstance(event, Run):
                break
        self.machine = self._engine._where[self.order.id].machine
        return self

    async def rest(self) -> Answer:
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            async for event in events:
                self.answer.add(event)
        return self.answer


def test_an_agent_fills_its_cluster_and_is_one_engine(tmp_path: Path) -> None:
    async def main() -> None:
        alone = MemoryEngine(TOY)
        await alone.start()
        async with opened(tmp_path, "abc") as (pool, _), started(pool) as engine:
            await until(lambda: on(engine) == ["a", "b", "c"])
            assert engine.health().slots == 6
            longs = [await Long(engine, f"{number}").begin() for number in range(6)]
            assert sorted(long.machine for long in longs) == ["a", "a", "b", "b", "c", "c"]
            full = await collect(engine, Generate("seventh", ask(5)))
            assert isinstance(full.end, Failed)
            assert full.end.code == "busy"
            twice = await collect(engine, Generate("0", ask(5)))
            assert isinstance(twice.end, Failed)
            assert twice.end.code == "invalid_request"
            engine.cancel("3")
            answers = await asyncio.gather(*(long.rest() for long in longs))
            mine = await whole(alone, ask(300, temperature=0.0))
            for number, answer in enumerate(answers):
                assert isinstance(answer.end, Finished)
                if number == 3:
                    assert answer.end.finish == "cancelled"
                else:
                    assert answer.ids == mine.ids
            health = engine.health()
            assert (health.alive, health.running) == (True, 0)
            assert health.output_tokens == sum(len(answer.ids) for answer in answers)
            request = ask(20)
            ids = tuple((await whole(engine, request)).ids)
            scored = await engine.score(Check("s", request, ids))
            assert isinstance(scored, Scored)
            assert set(scored.margins) == {0.0}
            order = Embed("e", EmbedRequest(("a", "b")))
            assert await engine.embed(order) == await alone.embed(order)
        assert engine.health() == replace(engine.health(), alive=False, running=0, slots=0)

    uvloop.run(main())


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_member_that_dies_takes_only_its_own_requests_and_is_replaced(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with opened(tmp_path, "ab") as (pool, cluster), started(pool, replace(TOY, slots=3)) as engine:
            await until(lambda: on(engine) == ["a", "b"])
            longs = [await Long(engine, f"{number}").begin() for number in range(4)]
            lost = longs[0].machine
            if how == "restarted":
                await cluster.restart(lost)
            else:
                (gone,) = [member for member in engine.members if member.machine == lost]
                assert gone._ready is not None
                os.kill(gone._ready.result().pid, signal.SIGKILL)
            await until(lambda: engine.health().slots == 3)
            assert (await whole(engine, ask(5), "meanwhile")).ids
            answers = await asyncio.gather(*(long.rest() for long in longs))
            for long, answer in zip(longs, answers, strict=True):
                if long.machine == lost:
                    assert isinstance(answer.end, Failed)
                    assert answer.end.code == "engine_died"
                    rest = Generate("on", long.order.request, tuple(answer.ids))
                    resumed = await collect(engine, rest)
                    assert isinstance(resumed.end, Finished), resumed.end
                    answer.ids += resumed.ids
                else:
                    assert isinstance(answer.end, Finished)
            assert answers[0].ids == answers[1].ids == answers[2].ids == answers[3].ids
            await until(lambda: engine.health().slots == 6)
            assert on(engine) == ["a", "b"]
            assert engine.health().output_tokens >= 4 * 300, "what the lost ones made still counts"

    uvloop.run(main())


def test_machines_that_join_are_used_and_those_that_go_silent_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a", silent=2.5) as (pool, cluster), started(pool) as engine:
            assert engine.health().slots == 2
            cluster.join("b", CORE)
            await until(lambda: engine.health().slots == 4)
            cluster.cut("a")
            await until(lambda: engine.health().slots == 2)
            assert on(engine) == ["b"]
            assert (await whole(engine, ask(10))).ids
            cluster.cut("b")
            await until(lambda: not engine.health().alive)
            none = await collect(engine, Generate("none", ask(5)))
            assert isinstance(none.end, Failed)
            assert none.end.code == "engine_died"

    uvloop.run(main())


def test_the_operator_says_how_many_at_most(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "abc") as (pool, _), started(pool, most=2) as engine:
            await until(lambda: engine.health().slots == 4)
            await asyncio.sleep(1.5)
            assert len(engine.members) == 2

    uvloop.run(main())


def test_a_second_agent_gets_its_place_and_no_request_is_broken_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "ab") as (pool, _), started(pool) as first:
            await until(lambda: len(first.members) == 2)
            longs = [await Long(first, f"{number}").begin() for number in range(2)]
            second = pool.spread(replace(TOY, seed="other"))
            starting = asyncio.ensure_future(second.start())
            await until(lambda: len(first.members) == 1)
            await asyncio.sleep(0.5)
            assert not starting.done(), "the place is free when the running request has ended"
            assert first.health().slots == 2
            for long in longs:
                assert isinstance((await long.rest()).end, Finished)
            await asyncio.wait_for(starting, 10)
            assert sorted(on(first) + on(second)) == ["a", "b"]
            third = SpreadEngine(replace(TOY, seed="third"), pool, room_s=1.5)
            with pytest.raises(EngineError, match="0 of 1 cores are free") as refused:
                await third.start()
            assert refused.value.failure == "resource_exhausted"
            assert (len(first.members), len(second.members)) == (1, 1), "nobody gives up its only one"
            await second.stop()
            await until(lambda: len(first.members) == 2)

    uvloop.run(main())


def test_an_agent_waits_for_a_machine_with_room(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a") as (pool, cluster):
            engine = pool.spread(replace(TOY, threads=2))
            starting = asyncio.ensure_future(engine.start())
            await asyncio.sleep(0.3)
            assert not starting.done()
            cluster.join("big", {"CPU": 2.0})
            await asyncio.wait_for(starting, 10)
            assert on(engine) == ["big"]
            await engine.stop()
            assert pool.capacity().engines == 0

    uvloop.run(main())


def test_one_class_of_device_only_and_it_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "ab", machine(b="avx512f")) as (pool, cluster), started(pool) as engine:
            kind = engine.health().device
            assert kind == pool.kind_of(engine.members[0].machine, False) != ""
            cluster.join("c", CORE)
            await until(lambda: engine.health().slots == 4 or pool.capacity().machines == 3)
            await asyncio.sleep(1.5)
            assert {pool.kind_of(name, False) for name in on(engine)} == {kind}

    uvloop.run(main())


def test_a_machine_without_the_tier_that_is_offered_is_not_used(tmp_path: Path) -> None:
    async def study(folder: Path) -> tuple[tuple[Device, ...], Means]:
        tiers = Means(("P",) if folder.name == "a" else (), required=False)
        return (Device("cpu", 0, "Known", memory=1 << 40, cores=64),), tiers

    async def main() -> None:
        async with opened(tmp_path, "a", study) as (pool, cluster), started(pool) as engine:
            offered = engine._ready
            assert offered is not None
            if not offered.tier:
                (pytest.fail if os.environ.get("CI") else pytest.skip)("no tier holds here")
            cluster.join("b", CORE)
            await until(lambda: bool(engine._rests))
            assert on(engine) == ["a"]
            assert engine._rests["b"][1] == 600.0, "its tiers are what they are"

    uvloop.run(main())


def test_a_machine_on_which_members_die_is_left_alone_longer_each_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "ab") as (pool, _), started(pool) as engine:
            await until(lambda: len(engine.members) == 2)
            rests = []
            for _ in range(2):
                victim = next(member for member in engine.members if member.machine == "b")
                assert victim._ready is not None
                began = time.monotonic()
                os.kill(victim._ready.result().pid, signal.SIGKILL)
                await until(lambda: len(engine.members) == 1)
                await until(lambda: len(engine.members) == 2)
                rests.append(time.monotonic() - began)
            assert engine._rests["b"][1] == 2.0
            assert rests[1] > 1.9
            assert engine.health().alive

    uvloop.run(main())


def test_health_of_an_engine_that_is_not_started(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a") as (pool, _):
            engine = pool.spread(TOY)
            assert engine.health() == Health(False, 0, 0.0, 0, 0, 0)
            await engine.stop()
            async with started(pool) as other:
                with pytest.raises(EngineError, match="started before"):
                    await other.start()

    uvloop.run(main())
