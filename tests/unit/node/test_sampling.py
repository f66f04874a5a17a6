"""A small network is heard whole; of a large one no more than the budget, and never nothing for long."""

from __future__ import annotations

import asyncio

import pytest

from factories import key
from lading_net.clock import run_virtual
from lading_net.memory import MemoryNetwork
from lading_node.sampling import BURST, sample

TOPIC = "/t/1"


def heard(size: int, every: float, seconds: float, budget: float) -> tuple[int, int]:
    """Bytes that were published within so many seconds, and those that were heard."""

    async def main() -> tuple[int, int]:
        network = MemoryNetwork()
        speaker, listener = network.gossip(key("speaker")), network.gossip(key("listener"))
        found = 0

        async def listen() -> None:
            nonlocal found
            async for data in sample(listener, TOPIC, budget):
                found += len(data)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        said = 0
        while asyncio.get_running_loop().time() < seconds:
            await speaker.publish(TOPIC, bytes(size))
            said += size
            await asyncio.sleep(every)
        await listener.close()
        await listening
        return said, found

    return run_virtual(main())


def test_a_small_network_is_heard_whole() -> None:
    said, found = heard(600, 60.0, 86_400, 15.0)
    assert found == said


@pytest.mark.parametrize("every", [0.5, 2.0, 20.0])
def test_a_large_one_within_the_budget(every: float) -> None:
    seconds = 8_000.0
    said, found = heard(600, every, seconds, 15.0)
    assert said > found
    assert found <= 15.0 * seconds + BURST + 600
    assert found >= 15.0 * seconds * 0.8  # the budget is used


def test_it_ends_with_the_port() -> None:
    assert heard(600, 1.0, 10.0, 15.0)[1] > 0
