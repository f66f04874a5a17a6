"""The network between coordinator and hosts breaks in the middle of streams, and heals, sooner or later."""

import asyncio
from pathlib import Path

import pytest

from lading.core.failover import Limits
from lading_net.memory import Conditions
from simulation.flow.answers import question, unbroken
from simulation.flow.books import check_settled
from simulation.flow.world import Market, Setting, play

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)


@pytest.mark.parametrize("lasting", [0.05, 3.0, 60.0])
@pytest.mark.parametrize("at", [0.01, 0.3, 0.66, 0.7, 1.3, 1.42])
def test_a_partition_amid_a_stream_heals_without_a_trace(tmp_path: Path, at: float, lasting: float) -> None:
    """Shorter than a payer's least patience it only delays; longer, the job may move, the lost host is paid after."""

    async def story(market: Market) -> None:
        amber = market.hosts["amber"]
        job = market.consumers["carla"].begin(REQUEST)
        await asyncio.sleep(at)
        market.network.partition([amber.address])
        await asyncio.sleep(lasting)
        market.network.heal()
        answer = await job
        assert answer.ended is not None, answer.error
        assert (answer.text, answer.ids) == WHOLE[:2]
        if lasting < Limits().least:
            assert not answer.moves
        await asyncio.sleep(130)
        assert amber.node.desk.running == 0
        await check_settled(market)
        again = await market.consumers["carla"].ask(REQUEST)
        assert again.ids == WHOLE[1]
        await asyncio.sleep(60)
        await check_settled(market)

    play(story, tmp_path, seed=int(at * 100))


@pytest.mark.parametrize("seed", range(6))
def test_links_that_break_at_random_cost_nobody_anything(tmp_path: Path, seed: int) -> None:
    async def story(market: Market) -> None:
        bad = Conditions(delay=0.01, jitter=0.02, loss=0.004, gossip_loss=0.2)
        for host in market.hosts.values():
            market.network.shape(market.coordinator.outside.key.address, host.address, bad)
        done = 0
        for turn in range(6):
            request = question(66, 72, 200 + turn)  # one that seems to break hosts is kept from the others for a while
            whole = unbroken(request)[1]
            for answer in await asyncio.gather(*(market.consumers["carla"].ask(request) for _ in range(3))):
                assert answer.ids == whole[: len(answer.ids)]
                done += answer.ended is not None
            await asyncio.sleep(20)
        assert done >= 9  # a break takes all three of a round with it
        for host in market.hosts.values():
            market.network.shape(market.coordinator.outside.key.address, host.address, Conditions(delay=0.01))
        await asyncio.sleep(130)
        await check_settled(market)

    play(story, tmp_path, Setting(hosts=("amber", "birch", "cedar"), fragments=bool(seed % 2)), seed=seed)
