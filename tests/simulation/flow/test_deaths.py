"""A host dies, or falls silent, at every token of an answer: nobody notices, and everyone is paid for what they did."""

import asyncio
from pathlib import Path

import pytest

from simulation.flow.books import check_settled
from simulation.flow.people import Host, question, unbroken
from simulation.flow.world import Market, play

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)
LENGTH = len(WHOLE[1])


async def settle(market: Market) -> None:
    """Long enough for links to come back, vouchers to be collected, and the oldest to be redeemed."""
    await asyncio.sleep(150)
    await check_settled(market)


@pytest.mark.parametrize("silently", [False, True], ids=["crash", "power loss"])
@pytest.mark.parametrize("index", range(LENGTH))
def test_a_death_at_any_token_changes_nothing(tmp_path: Path, index: int, silently: bool) -> None:
    async def story(market: Market) -> None:
        dead: list[Host] = []

        async def trap(host: Host, job: bytes, first: int) -> None:
            if first == index and not dead:
                dead.append(host)
                host.kill(silently=silently)
                await asyncio.Event().wait()

        market.traps.append(trap)
        answer = await market.consumers["carla"].ask(REQUEST)
        assert answer.ended is not None, answer.error
        assert (answer.text, answer.ids, answer.ended.finish.name.lower()) == WHOLE
        prompt = len(REQUEST.messages[0].content.encode()) + 2
        assert (answer.ended.prompt_tokens, answer.ended.output_tokens) == (prompt, LENGTH)
        parts = answer.ended.parts
        assert sum(part.tokens for part in parts) == LENGTH
        if not silently:
            assert [part.tokens for part in parts] == ([index, LENGTH - index] if index else [LENGTH])
        assert parts[-1].host != dead[0].address
        await dead[0].up()
        await settle(market)

    play(story, tmp_path, seed=index)
