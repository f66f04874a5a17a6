"""Receipts come on the chain as fast as a busy gateway collects them."""

import asyncio

import pytest

from lading_coordinator.audits import records, rounds
from unit.coordinator.conftest import Play
from unit.coordinator.world import World

PERIOD = 600.0


@pytest.mark.parametrize(("jobs", "leaves", "left"), [(2, [3], 0), (7, [4, 4, 2], 0), (14, [4, 4, 4, 4], 2)])
def test_a_full_round_is_followed_by_the_next_at_once(
    jobs: int, leaves: list[int], left: int, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_LEAVES", 3)
    monkeypatch.setattr(rounds, "ROUNDS_A_STEP", 4)

    async def story(world: World) -> None:
        kept = world.coordinator.records
        await world.host("host")
        api_key = await world.session()
        for _ in range(jobs):
            assert (await world.chat(api_key, max_tokens=16)).status == 200
        await world.coordinator.ledger.flush()
        assert sum(count for _, count in kept.waiting()) == jobs
        await asyncio.sleep(PERIOD)
        assert [round_.leaves for round_ in reversed(kept.recent_rounds(9))] == leaves
        assert not kept.rounds("sealed")
        assert sum(count for _, count in kept.waiting()) == left
        await asyncio.sleep(PERIOD)
        assert kept.waiting() == []

    play(story, audit_period=PERIOD)
