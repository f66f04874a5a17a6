"""A host dies, or falls silent, at every token of an answer: nobody notices, and everyone is paid for what they did."""

import asyncio
import random
from pathlib import Path

import pytest

from lading.errors import JobLost
from simulation.flow.answers import question, unbroken
from simulation.flow.books import check_settled
from simulation.flow.people import Answer, Host
from simulation.flow.world import Market, Setting, play

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)
LENGTH = len(WHOLE[1])
PROMPT = len(REQUEST.messages[0].content.encode()) + 2


async def settle(market: Market) -> None:
    """Long enough for links to come back, vouchers to be collected, and the oldest to be redeemed."""
    await asyncio.sleep(130)
    await check_settled(market)


def check_whole(answer: Answer) -> None:
    """Text, ids and usage are those of an answer that nothing befell."""
    assert answer.ended is not None, answer.error
    assert (answer.text, answer.ids, answer.ended.finish.name.lower()) == WHOLE
    assert (answer.ended.prompt_tokens, answer.ended.output_tokens) == (PROMPT, LENGTH)


class Reaper:
    """Kills whichever host is about to hand out one of these tokens; each index once."""

    def __init__(self, market: Market, *indexes: int, silently: bool = False, stalls: bool = False) -> None:
        self.dead: list[Host] = []
        self._left = set(indexes)
        self._silently = silently
        self._stalls = stalls
        market.traps.append(self._trap)

    async def _trap(self, host: Host, job: bytes, first: int) -> None:
        if first in self._left:
            self._left.remove(first)
            self.dead.append(host)
            if not self._stalls:
                host.kill(silently=self._silently)
            await asyncio.Event().wait()


@pytest.mark.parametrize("silently", [False, True], ids=["crash", "power loss"])
@pytest.mark.parametrize("index", range(LENGTH))
def test_a_death_at_any_token_changes_nothing(tmp_path: Path, index: int, silently: bool) -> None:
    async def story(market: Market) -> None:
        reaper = Reaper(market, index, silently=silently)
        answer = await market.consumers["carla"].ask(REQUEST)
        check_whole(answer)
        assert answer.ended is not None
        parts = answer.ended.parts
        (dead,) = reaper.dead
        assert parts[-1].host != dead.address
        if not silently:
            assert [part.tokens for part in parts] == ([index, LENGTH - index] if index else [LENGTH])
        await dead.up()
        await settle(market)

    play(story, tmp_path, seed=index)


@pytest.mark.parametrize("seed", range(12))
def test_two_deaths_in_one_answer_change_nothing(tmp_path: Path, seed: int) -> None:
    first, second = sorted(random.Random(seed).sample(range(LENGTH), 2))

    async def story(market: Market) -> None:
        reaper = Reaper(market, first, second, silently=bool(seed % 2))
        answer = await market.consumers["carla"].ask(REQUEST)
        check_whole(answer)
        assert answer.ended is not None
        assert len(answer.moves) == len(set(reaper.dead)) == 2
        for host in reaper.dead:
            await host.up()
        await settle(market)

    play(story, tmp_path, Setting(hosts=("amber", "birch", "cedar")), seed=seed)


@pytest.mark.parametrize("index", range(0, LENGTH, 6))
def test_a_host_that_stalls_is_left_and_paid(tmp_path: Path, index: int) -> None:
    async def story(market: Market) -> None:
        reaper = Reaper(market, index, stalls=True)
        answer = await market.consumers["carla"].ask(REQUEST)
        check_whole(answer)
        assert answer.ended is not None
        assert [part.tokens for part in answer.ended.parts] == ([index, LENGTH - index] if index else [LENGTH])
        assert answer.ended.parts[-1].host != reaper.dead[0].address
        await settle(market)
        assert all(host.node.desk.running == 0 for host in market.hosts.values())

    play(story, tmp_path, seed=index)


@pytest.mark.parametrize("index", [1, 31, 32, 33, 50])
def test_when_no_host_is_left_the_job_is_lost_in_words_and_its_work_is_paid(tmp_path: Path, index: int) -> None:
    async def story(market: Market) -> None:
        reaper = Reaper(market, index)
        answer = await market.consumers["carla"].ask(REQUEST)
        assert isinstance(answer.error, JobLost)
        assert f"after {index} tokens" in answer.error.message
        assert answer.ids == WHOLE[1][:index]
        await reaper.dead[0].up()
        await settle(market)

    play(story, tmp_path, Setting(hosts=("amber",)), seed=index)
