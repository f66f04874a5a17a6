"""The paying side goes away: consumers at any token, the coordinator between a voucher's storing and its delivery."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lading_protocol.receipts import Finish
from simulation.flow.answers import question, unbroken
from simulation.flow.books import channels, check_settled
from simulation.flow.world import Market, Setting, play

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)
LENGTH = len(WHOLE[1])


@pytest.mark.parametrize("index", range(0, LENGTH, 3))
def test_a_consumer_that_leaves_at_any_token_pays_for_what_was_delivered(tmp_path: Path, index: int) -> None:
    async def story(market: Market) -> None:
        answer = await market.consumers["carla"].ask(REQUEST, cancel_at=index)
        assert answer.ids == WHOLE[1][: len(answer.ids)]
        await asyncio.sleep(10)
        if market.ended:
            (ended,) = market.ended
            assert ended.finish in (Finish.CANCELLED, Finish.STOP)
            assert len(answer.ids) <= ended.output_tokens <= len(answer.ids) + 8
        else:
            assert not answer.ids
        assert market.hosts["amber"].node.desk.running == 0
        assert market.hosts["amber"].node.agents[0].active == 0
        await asyncio.sleep(60)
        await check_settled(market)

    play(story, tmp_path, seed=index)


@pytest.mark.parametrize("payment", [1, 2, 3])
def test_a_voucher_that_was_stored_and_never_sent_is_collected(tmp_path: Path, payment: int) -> None:
    async def story(market: Market) -> None:
        purse, made = market.coordinator.purse, 0
        pay = purse.pay_all

        def pay_and_die(what: Any) -> list[bytes]:
            nonlocal made
            made += 1
            packed = pay(what)
            if made == payment:
                market.crash_coordinator(silently=True)
            return packed

        purse.pay_all = pay_and_die  # type: ignore[method-assign]
        answer = await market.consumers["carla"].ask(REQUEST)
        assert answer.ended is None or payment == 3, "only the last payment comes when all is said"
        host = market.hosts["amber"]
        await asyncio.sleep(1)
        (channel,) = host.node.channels.all()
        before = channel.signed
        await market.restart_coordinator()
        await asyncio.sleep(150)
        (account,) = (await channels(market)).values()
        assert account.promised > before, "the voucher that died under way was the point of this"
        assert account.redeemed == account.promised
        (channel,) = host.node.channels.all()
        assert channel.signed == account.promised
        await check_settled(market, exact=False)
        again = await market.consumers["carla"].ask(REQUEST)
        assert (again.text, again.ids) == WHOLE[:2]
        await asyncio.sleep(60)
        await check_settled(market, exact=False)

    play(story, tmp_path, Setting(hosts=("amber",)), seed=payment)


@pytest.mark.parametrize("step", range(12))
def test_a_coordinator_that_dies_at_any_moment_leaves_the_books_right(tmp_path: Path, step: int) -> None:
    async def story(market: Market) -> None:
        jobs = [market.consumers["carla"].begin(REQUEST) for _ in range(3)]
        await asyncio.sleep(0.05 + 0.137 * step)
        market.crash_coordinator(silently=bool(step % 2))
        for answer in await asyncio.gather(*jobs):
            assert answer.ids == WHOLE[1][: len(answer.ids)]
        await asyncio.sleep(3)
        await market.restart_coordinator()
        await market.open_for_business()
        after = await market.consumers["carla"].ask(REQUEST)
        assert (after.text, after.ids) == WHOLE[:2], after.error
        await asyncio.sleep(150)
        assert all(host.node.desk.running == 0 for host in market.hosts.values())
        await check_settled(market, exact=False)

    play(story, tmp_path, seed=step)
