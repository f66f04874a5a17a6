"""The chain is away, slow, or short of money: serving goes on, settling waits, and nothing is lost."""

import asyncio
from pathlib import Path

import pytest

from lading.errors import OutOfFunds
from lading_coordinator.errors import ApiError
from lading_protocol.pricing import attempt_amount
from simulation.flow.answers import question, unbroken
from simulation.flow.books import channels, check_settled, owed
from simulation.flow.people import Consumer
from simulation.flow.world import PRICE, Market, Setting, play

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)
COST = attempt_amount(PRICE, len(REQUEST.messages[0].content.encode()) + 2, 0, len(WHOLE[1]))


@pytest.mark.parametrize("at", [0.0, 0.7, 1.4, 3.0])
def test_an_outage_stops_no_job_and_everything_settles_after_it(tmp_path: Path, at: float) -> None:
    async def story(market: Market) -> None:
        carla = market.consumers["carla"]
        assert (await carla.ask(REQUEST)).ids == WHOLE[1]  # the lock of the first job covers a few more
        await asyncio.sleep(10)
        jobs = [carla.begin(REQUEST) for _ in range(2)]
        await asyncio.sleep(at)
        market.chain.down = True
        for answer in await asyncio.gather(*jobs):
            assert (answer.text, answer.ids) == WHOLE[:2], answer.error
        await asyncio.sleep(120)
        answer = await carla.ask(REQUEST)
        assert (answer.text, answer.ids) == WHOLE[:2], answer.error
        assert any(host.node.settler.status for host in market.hosts.values()), "a host says what it waits for"
        market.chain.down = False
        await asyncio.sleep(200)
        assert not any(host.node.settler.status for host in market.hosts.values())
        assert sum(owed(market).values()) == 4 * COST
        await check_settled(market)

    play(story, tmp_path, seed=int(at * 10))


def test_a_host_that_restarts_in_an_outage_serves_on_and_settles_later(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        carla, amber = market.consumers["carla"], market.hosts["amber"]
        await carla.ask(REQUEST)
        await asyncio.sleep(10)
        market.chain.down = True
        amber.kill()
        await asyncio.sleep(5)
        await amber.up()
        await market.open_for_business()
        answer = await carla.ask(REQUEST)
        assert (answer.text, answer.ids) == WHOLE[:2], answer.error
        await asyncio.sleep(60)
        market.chain.down = False
        await asyncio.sleep(200)
        await check_settled(market)

    play(story, tmp_path, Setting(hosts=("amber",)))


@pytest.mark.parametrize("delay", [0.0, 12.0, 90.0])
def test_slow_inclusion_delays_money_and_nothing_else(tmp_path: Path, delay: float) -> None:
    async def story(market: Market) -> None:
        market.chain.inclusion_delay = delay
        carla = market.consumers["carla"]
        for answer in await asyncio.gather(*(carla.ask(REQUEST) for _ in range(6))):
            assert (answer.text, answer.ids) == WHOLE[:2], answer.error
        for host in market.hosts.values():
            host.kill()  # whatever transaction is under way, the next life finds it
        await asyncio.sleep(1)
        for host in market.hosts.values():
            await host.up()
        await asyncio.sleep(60 + 6 * delay)
        market.chain.inclusion_delay = 1.0
        await asyncio.sleep(60)
        assert sum(owed(market).values()) >= 6 * COST
        await check_settled(market)

    play(story, tmp_path)


@pytest.mark.parametrize("jobs", [1, 3, 8])
@pytest.mark.parametrize("short_of", ["cap", "deposit"])
def test_money_that_ends_amid_several_jobs_ends_them_in_words(tmp_path: Path, jobs: int, short_of: str) -> None:
    """Some jobs are told that funds are missing; those that were taken are whole, and paid to the wei."""
    money = 5 * COST

    async def story(market: Market) -> None:
        carla = market.consumers["carla"]
        whole, refused = 0, 0
        for _ in range(12 // jobs):
            for answer in await asyncio.gather(*(carla.ask(REQUEST) for _ in range(jobs))):
                if answer.ended is not None:
                    assert (answer.text, answer.ids) == WHOLE[:2]
                    whole += 1
                else:
                    assert isinstance(answer.error, OutOfFunds), answer.error
                    assert not answer.ids
                    refused += 1
            await asyncio.sleep(5)
        assert whole >= 1
        assert refused >= 1
        await asyncio.sleep(60)
        await check_settled(market)
        assert sum(one.redeemed for one in (await channels(market)).values()) <= money

    setting = Setting(cap=money) if short_of == "cap" else Setting(deposit=money)
    play(story, tmp_path, setting, seed=jobs)


def test_a_new_session_is_not_called_unauthorized_while_the_chain_is_away(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        newcomer = Consumer(market, "newcomer")
        await newcomer.settle_in(seen=False)
        market.chain.down = True
        await asyncio.sleep(5)
        answer = await newcomer.ask(REQUEST)
        assert isinstance(answer.error, ApiError)
        assert answer.error.status == 503

    play(story, tmp_path)
