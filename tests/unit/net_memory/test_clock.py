"""The virtual clock: ordinary asyncio code, no waiting, every run the same, and no silent hang."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import pytest

from lading_net.clock import Overrun, Stalled, Unhandled, VirtualLoop, run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_day_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return now()

    began = time.perf_counter()
    assert run_virtual(main()) == 86_400
    assert time.perf_counter() - began < 5


def test_timeouts_queues_and_task_groups_work_on_it() -> None:
    async def main() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def produce(name: str, every: float) -> None:
            for _ in range(3):
                await asyncio.sleep(every)
                await queue.put(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce("slow", 2))
            group.create_task(produce("fast", 0.75))
            for _ in range(6):
                log.append((await queue.get(), now()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 10)
        log.append(("end", now()))
        return log

    assert run_virtual(main()) == [
        ("fast", 0.75),
        ("fast", 1.5),
        ("slow", 2.0),
        ("fast", 2.25),
        ("slow", 4.0),
        ("slow", 6.0),
        ("end", 16.0),
    ]


def test_threads_run_in_place_and_take_no_time() -> None:
    def broken() -> None:
        raise ValueError("inside")

    async def main() -> tuple[int, float]:
        with pytest.raises(ValueError, match="inside"):
            await asyncio.to_thread(broken)
        return await asyncio.to_thread(sum, [1, 2, 3]), now()

    assert run_virtual(main()) == (6, 0.0)


def test_waiting_for_nothing_is_an_error() -> None:
    async def main() -> None:
        await asyncio.sleep(3)
        await asyncio.Event().wait()

    with pytest.raises(Stalled, match=r"at 3\.0"):
        run_virtual(main())


def test_an_endless_simulation_is_cut_off() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(Overrun):
        run_virtual(main(), limit=100)


def test_a_failure_that_nobody_saw_fails_the_run() -> None:
    async def fail() -> None:
        raise ValueError("in the background")

    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        del task

    with pytest.raises(Unhandled) as caught:
        run_virtual(main())
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_seed_decides_and_leaves_no_trace() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.rng.random(), random.random()

    before = random.getstate()
    assert run_virtual(main(), 1) == run_virtual(main(), 1) != run_virtual(main(), 2)
    assert random.getstate() == before


def test_what_main_raises_comes_out_and_its_tasks_are_ended() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            ended.append(now())

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main())
    assert ended == [1.0]


def test_no_socket_can_be_opened() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(NotImplementedError):
        run_virtual(main())
