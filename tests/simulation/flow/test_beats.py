"""A host that fills up, or has room again, says so at once: its next heartbeat could be a second away."""

import asyncio
from pathlib import Path

from simulation.flow.answers import question
from simulation.flow.world import PRICE, Market, Setting, play


def test_the_last_slot_and_the_first_free_one_are_reported_at_once(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        host = await market.join("amber", price=PRICE, slots=1)
        await market.open_for_business()
        state = market.coordinator.directory.host(host.address)
        for pause in (0.13, 0.41, 0.77):
            await asyncio.sleep(pause)  # anywhere between two heartbeats
            asking = asyncio.ensure_future(market.consumers["carla"].ask(question(40, 60)))
            await market.until(lambda: host.node.desk.running == 1)
            taken = market.now()
            await market.until(lambda: state.free == 0, 2)
            assert market.now() - taken < 0.5
            answer = await asking
            assert answer.ended is not None, answer.error
            done = market.now()
            await market.until(lambda: state.free == 1, 2)
            assert market.now() - done < 0.5

    play(story, tmp_path, Setting(hosts=()))
