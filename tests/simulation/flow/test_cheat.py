"""A host serves other weights under the agent's name: audits find it, the court slashes it, nobody else is touched."""

import asyncio
from pathlib import Path

import pytest

from lading_coordinator.core.audits import OPENING_TRIES
from lading_net.ports import Stream
from lading_protocol.audit import Verdict
from lading_protocol.ids import Wei
from lading_protocol.messages import OPENING
from lading_protocol.pricing import Price
from simulation.flow.answers import question, unbroken
from simulation.flow.books import check_always
from simulation.flow.people import STAKE
from simulation.flow.world import COORDINATOR, Market, Setting, play
from simulation.node_world import COIN

HONEST = ("amber", "birch", "cedar", "dogwood")
REQUEST = question(30, 60)


async def stakes(market: Market) -> dict[str, int]:
    found = {name: await market.contracts.staking.operator(host.address) for name, host in market.hosts.items()}
    return {name: operator.stake for name, operator in found.items() if operator is not None}


@pytest.mark.parametrize("dies", [False, True], ids=["all stay", "a juror dies and returns"])
def test_a_cheat_is_found_slashed_and_left(tmp_path: Path, dies: bool) -> None:
    async def story(market: Market) -> None:
        cheat = await market.join("cheat", price=Price(Wei(1), Wei(1)), seed="cheaper weights")
        await market.open_for_business()
        carla = market.consumers["carla"]
        assert (await carla.ask(REQUEST)).ids == unbroken(REQUEST, "cheaper weights")[1]
        records = market.coordinator.records
        await market.until(lambda: bool(records.disputes()))
        if dies:
            await asyncio.sleep(3)
            market.hosts["birch"].kill()
            await asyncio.sleep(6)
            await market.hosts["birch"].up()
        await market.until(lambda: records.disputes()[0].state == "closed", 600)
        assert records.disputes()[0].note == "ruled guilty"
        left = await stakes(market)
        assert left.pop("cheat") < STAKE
        assert set(left.values()) == {STAKE}
        await market.until(lambda: cheat.address not in market.choosable(), 30)
        assert (await carla.ask(REQUEST)).ids == unbroken(REQUEST)[1]
        assert await market.contracts.coin.balance(COORDINATOR.address) > 1000 * COIN, "bond back and a finder's fee"
        await check_always(market)

    play(story, tmp_path, Setting(hosts=HONEST, audit_rate=1.0))


@pytest.mark.parametrize("seed", range(3))
def test_honest_hosts_are_never_accused_whatever_befalls_them(tmp_path: Path, seed: int) -> None:
    """Deaths split answers between hosts, consumers leave early: every part of every answer is found right."""

    async def story(market: Market) -> None:
        carla = market.consumers["carla"]
        for turn in range(8):
            host = market.hosts[market.rng.choice(HONEST)]
            leaves = market.rng.randrange(30) if turn % 3 == 2 else None
            job = carla.begin(REQUEST, leaves)
            await asyncio.sleep(market.rng.uniform(0.1, 0.9))
            host.kill(silently=bool(turn % 2))
            await job
            await host.up()
            await market.open_for_business()
        records = market.coordinator.records
        await market.until(lambda: records.audits() != [] and all(one.state == "done" for one in records.audits()))
        assert {one.verdict for one in records.audits()} == {Verdict.HONEST}
        assert records.disputes() == []
        assert market.coordinator.conduct.suspects() == {}
        assert set((await stakes(market)).values()) == {STAKE}
        await check_always(market)

    play(story, tmp_path, Setting(hosts=HONEST, audit_rate=1.0), seed=seed)


def test_a_host_that_never_opens_is_suspect_and_comes_last_but_is_not_accused(tmp_path: Path) -> None:
    asked: list[str] = []

    async def deaf(stream: Stream) -> None:
        asked.append("opening")
        stream.reset()

    async def story(market: Market) -> None:
        silent = await market.join("silent", price=Price(Wei(1), Wei(1)))
        await market.open_for_business()
        silent.node.doors.transport.handle(OPENING, deaf)
        carla, coordinator = market.consumers["carla"], market.coordinator
        assert (await carla.ask(REQUEST)).ids == unbroken(REQUEST)[1]
        await market.until(lambda: {one.state for one in coordinator.records.audits()} == {"done"})
        assert len(asked) == OPENING_TRIES
        (audit,) = coordinator.records.audits()
        assert audit.verdict is Verdict.HONEST, "its tokens are right, and silence proves nothing"
        assert "did not open" in coordinator.conduct.suspect(silent.address)
        assert coordinator.records.disputes() == []
        await asyncio.sleep(3)
        assert (await carla.ask(REQUEST)).ids == unbroken(REQUEST)[1]
        assert len(silent.made) == 1, "though it is the cheapest by far"

    play(story, tmp_path, Setting(hosts=HONEST, audit_rate=1.0))
