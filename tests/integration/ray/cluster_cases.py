"""A pool on a real Ray cluster of two nodes; run by test_ray.py in namespaces of its own. The last cases break it."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from integration.engines import tiny_llama
from integration.engines.asking import Answer, ask, whole
from integration.engines.test_child import gone
from integration.engines.test_conformance import (
    test_an_answer_streams_and_its_usage_is_right,
    test_an_engine_runs_no_further_ahead_than_it_may,
    test_an_honest_answer_scores_nothing_and_a_changed_one_much,
    test_cancel_ends_a_stream_at_once_and_frees_its_slot,
    test_concurrent_requests_equal_their_solo_runs,
    test_more_requests_than_slots_are_refused_as_busy,
    test_stopping_ends_running_requests_with_a_reason,
    test_the_wrong_operation_and_the_wrong_index_are_refused,
)
from integration.ray import cluster
from lading_node.core.placing import Need
from lading_node.engines.errors import EngineError
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.pool import Pool
from lading_node.engines.port import Engine, EngineSpec, Failed, Finished, Generate, Run
from lading_node.engines.ray_pool import RayPool
from lading_node.engines.spread import SpreadEngine

__all__ = [
    "test_an_answer_streams_and_its_usage_is_right",
    "test_an_engine_runs_no_further_ahead_than_it_may",
    "test_an_honest_answer_scores_nothing_and_a_changed_one_much",
    "test_cancel_ends_a_stream_at_once_and_frees_its_slot",
    "test_concurrent_requests_equal_their_solo_runs",
    "test_more_requests_than_slots_are_refused_as_busy",
    "test_stopping_ends_running_requests_with_a_reason",
    "test_the_wrong_operation_and_the_wrong_index_are_refused",
]

CLOSED, OPEN = 26379, 27379
TOY = EngineSpec("memory", context=100_000)
Runs = Callable[[Coroutine[Any, Any, None]], None]


class World:
    """The cluster, a pool on it, and the one event loop that the pool lives in."""

    def __init__(self, env: dict[str, str], pool: Pool, runner: asyncio.Runner) -> None:
        self.env = env
        self.pool = pool
        self.runner = runner

    async def refusal(self, port: int, **changes: str) -> EngineError:
        with pytest.raises(EngineError) as refused:
            await RayPool(f"127.0.0.1:{port}", {**self.env, **changes}).open()
        return refused.value

    async def broken(self, engine: Engine, deed: Callable[[], None]) -> tuple[Answer, float]:
        """A long answer during which the deed is done; how it ended, and how many seconds later."""
        answer, began = Answer(), 0.0
        order = Generate("long", ask(50_000, temperature=0.0), ahead=4)
        async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
            async for event in events:
                answer.add(event)
                if isinstance(event, Run) and not began:
                    began = time.monotonic()
                    deed()
        return answer, time.monotonic() - began


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    cluster.raise_loopback()
    folder = Path(tempfile.mkdtemp(prefix="lr-"))  # short: Ray's sockets are in it
    try:
        env = cluster.environment(folder)
        closed = cluster.head(env, folder / "c", CLOSED)
        careless = cluster.head({**env, "RAY_AUTH_MODE": "disabled"}, folder / "o", OPEN)
        cluster.started(closed)
        cluster.started(cluster.start(env, f"--address=127.0.0.1:{CLOSED}", '--resources={"gpu:GPU-none":1}'))
        cluster.started(careless)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            pool = Pool(RayPool(f"127.0.0.1:{CLOSED}", env))
            runner.run(pool.open())
            assert runner.run(pool.machines(2, 30))
            yield World(env, pool, runner)
            runner.run(pool.close())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class PlacedBench:
    """As the conformance suite wants it: engines of one kind, each on a machine of the cluster."""

    def __init__(self, kind: str, spec: EngineSpec, pool: Pool) -> None:
        self.kind = kind
        self.spec = spec
        self._pool = pool

    @asynccontextmanager
    async def engine(self, **changes: Any) -> AsyncIterator[Engine]:
        placed = self._pool.engine(msgspec.structs.replace(self.spec, **changes))
        await placed.start()
        try:
            yield placed
        finally:
            await placed.stop()


@pytest.fixture(params=["llm-onnx", "toy"])
def bench(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> PlacedBench:
    if request.param == "toy":
        return PlacedBench("toy", EngineSpec("memory", context=256), world.pool)
    spec = tiny_llama.write_chat(tmp_path)
    # Paths that no machine understands: the files are pulled.
    apart = tuple(msgspec.structs.replace(file, path=os.path.relpath(file.path)) for file in spec.files)
    return PlacedBench("llm-onnx", msgspec.structs.replace(spec, files=apart), world.pool)


@pytest.fixture
def run(world: World) -> Runs:
    return world.runner.run


def test_two_machines_answer_and_their_sum_is_told(world: World) -> None:
    sum_ = world.pool.capacity()
    assert (sum_.machines, sum_.cores, len(sum_.devices)) == (2, 2.0, 2)
    assert world.pool.fits(Need()) == 2
    assert world.pool.fits(Need(card=True)) == 0, "a card that is granted and not there is not offered"


def test_a_cluster_without_tokens_and_a_wrong_token_are_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("f" * 64)

    async def main() -> None:
        unsafe, careless, stranger = await asyncio.gather(
            world.refusal(CLOSED, RAY_AUTH_MODE="disabled"),
            world.refusal(OPEN),
            world.refusal(CLOSED, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")),
        )
        assert "authentication is not on" in unsafe.message
        assert "lets in whoever asks" in careless.message
        assert "RAY_AUTH_MODE=token" in careless.hint
        assert "cannot be joined" in stranger.message
        assert "the same token" in stranger.hint

    world.runner.run(main())


def test_an_engine_knows_nothing_of_the_cluster_that_it_runs_in(world: World) -> None:
    async def main() -> None:
        engine = world.pool.engine(TOY)
        ready = await engine.start()
        environment = Path(f"/proc/{ready.pid}/environ").read_bytes()
        assert b"RAY_AUTH" not in environment
        assert {"rlimits", "no-new-privileges"} <= set(ready.confinement)
        alone = MemoryEngine(TOY)
        await alone.start()
        assert (await whole(engine, ask(40))).ids == (await whole(alone, ask(40))).ids
        await engine.stop()
        assert gone(ready.pid)

    world.runner.run(main())


def test_a_killed_worker_fails_its_requests_and_serves_again(world: World) -> None:
    async def main() -> None:
        engine = world.pool.engine(TOY)
        ready = await engine.start()
        worker = cluster.worker_of(ready.pid)
        answer, took = await world.broken(engine, lambda: os.kill(worker, signal.SIGKILL))
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "engine_died"
        assert took < 5
        assert gone(ready.pid)
        assert await world.pool.machines(2, 20)
        again = world.pool.engine(TOY)
        await again.start()
        assert (await whole(again, ask(10))).ids
        await again.stop()

    world.runner.run(main())


def test_a_node_that_loses_its_place_in_the_cluster_takes_another(world: World) -> None:
    async def main() -> None:
        engine = world.pool.engine(TOY)
        ready = await engine.start()
        driver = next(
            one for one in cluster.family(os.getpid()) if "lading_node.engines.ray_driver" in cluster.command(one)
        )
        answer, took = await world.broken(engine, lambda: os.kill(driver, signal.SIGKILL))
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "engine_died"
        assert took < 1
        assert await world.pool.machines(2, 30)
        assert gone(ready.pid, 10), "the actors of a node that is gone must end"

    world.runner.run(main())


def test_a_frozen_node_is_noticed_by_its_silence_and_comes_back(world: World) -> None:
    async def main() -> None:
        engine = world.pool.engine(TOY)
        ready = await engine.start()
        frozen = cluster.family(cluster.parent(cluster.worker_of(ready.pid)))
        answer, took = await world.broken(engine, lambda: cluster.signal_all(frozen, signal.SIGSTOP))
        assert isinstance(answer.end, Failed)
        assert (answer.end.code, "silent" in answer.end.message) == ("engine_died", True)
        assert took < 5
        assert world.pool.capacity().machines == 1
        cluster.signal_all(frozen, signal.SIGCONT)
        assert await world.pool.machines(2, 20)
        assert gone(ready.pid), "the engine that was given up must not run on"

    world.runner.run(main())


async def slots(engine: SpreadEngine, count: int, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while engine.health().slots != count:  # noqa: ASYNC110 - another process rings no bell
            await asyncio.sleep(0.05)


async def end_of(engine: SpreadEngine, order: Generate, taken: "asyncio.Event | None" = None) -> Answer:
    """All of an answer; `taken` is set with its first tokens."""
    answer = Answer(len(order.emitted))
    async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
        async for event in events:
            answer.add(event)
            if isinstance(event, Run) and taken is not None:
                taken.set()
    return answer


def test_one_agent_is_served_by_both_machines_and_by_one_that_joins_when_one_has_died(world: World) -> None:
    """The node with the head is spared: without it there is no cluster. What died on the other one goes on here."""

    async def main() -> None:
        engine = world.pool.spread(msgspec.structs.replace(TOY, slots=2))
        await engine.start()
        await slots(engine, 4)
        orders = [Generate(f"{number}", ask(3000, temperature=0.0), ahead=8) for number in range(2)]
        begun = [asyncio.Event() for _ in orders]
        jobs = [asyncio.ensure_future(end_of(engine, *one)) for one in zip(orders, begun, strict=True)]
        await asyncio.gather(*(one.wait() for one in begun))
        by_member = {member: member._ready.result().pid for member in engine.members if member._ready is not None}
        assert {engine._where[order.id] for order in orders} == set(by_member), "one on each machine"
        raylets = {member: cluster.parent(cluster.worker_of(pid)) for member, pid in by_member.items()}
        lost = max(raylets, key=lambda member: raylets[member])
        which = next(at for at, order in enumerate(orders) if engine._where[order.id] is lost)
        cluster.signal_all(cluster.family(raylets[lost]), signal.SIGKILL)
        died = await jobs[which]
        assert isinstance(died.end, Failed)
        assert died.end.code == "engine_died"
        assert engine.health().slots == 2
        rest = await end_of(engine, Generate("on", orders[which].request, tuple(died.ids)))
        other = await jobs[1 - which]
        assert isinstance(other.end, Finished), "its job is none of the lost machine's"
        assert isinstance(rest.end, Finished), rest.end
        assert died.ids + rest.ids == other.ids
        cluster.started(cluster.start(world.env, f"--address=127.0.0.1:{CLOSED}", '--resources={"gpu:GPU-none":1}'))
        await slots(engine, 4)
        assert {member.machine for member in engine.members} != {member.machine for member in by_member}
        await engine.stop()
        assert world.pool.fits(Need()) == 2

    world.runner.run(main())


def test_a_lost_node_leaves_the_other_one_serving(world: World) -> None:
    """The node with the head is spared: without it there is no cluster."""

    async def main() -> None:
        engines = [world.pool.engine(TOY) for _ in range(2)]
        pids = [(await engine.start()).pid for engine in engines]
        raylets = [cluster.parent(cluster.worker_of(pid)) for pid in pids]
        lost = raylets.index(max(raylets))
        nodes = cluster.family(raylets[lost])
        answer, took = await world.broken(engines[lost], lambda: cluster.signal_all(nodes, signal.SIGKILL))
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "engine_died"
        assert took < 5
        assert world.pool.capacity().machines == 1
        assert (await whole(engines[1 - lost], ask(20))).ids
        with pytest.raises(EngineError, match="No machine of the pool has room"):
            await world.pool.engine(TOY).start()

    world.runner.run(main())
