"""Calls go the whole road too: streamed, resumed after a death, paid to the wei, audited by running again."""

import asyncio
from pathlib import Path

import pytest

from lading_protocol.messages import CallRequest
from lading_protocol.work import FUEL, task_prompt, text_bytes
from simulation.flow.answers import unbroken
from simulation.flow.books import check_settled
from simulation.flow.test_deaths import Reaper
from simulation.flow.world import Market, Setting, play

INPUT = '{"text": "Grüße aus dem Hafen: 日本語"}'.encode()
REQUEST = CallRequest("echo", INPUT, 500)
TEXT, IDS, _ = unbroken(REQUEST)
# Where the engine hands out its next piece: text and fuel take turns.
EDGES = [0, *(at for at in range(1, len(IDS)) if (IDS[at] == FUEL) != (IDS[at - 1] == FUEL))]


def test_what_a_call_says_and_costs_can_be_read_off_its_ids() -> None:
    assert text_bytes(IDS) == INPUT == TEXT.encode()
    assert 0 < IDS.count(FUEL) < len(IDS)


@pytest.mark.parametrize("index", EDGES)
def test_a_death_in_a_call_changes_nothing(tmp_path: Path, index: int) -> None:
    """The text is that of the ids, also where a character was cut in two by the death."""

    async def story(market: Market) -> None:
        reaper = Reaper(market, index)
        answer = await market.consumers["carla"].ask(REQUEST)
        assert answer.ended is not None, answer.error
        assert (answer.text, answer.ids) == (TEXT, IDS)
        assert answer.ended.prompt_tokens == len(task_prompt(REQUEST))
        assert sum(part.tokens for part in answer.ended.parts) == len(IDS)
        await reaper.dead[0].up()
        await asyncio.sleep(130)
        await check_settled(market)

    play(story, tmp_path, seed=index)


def test_a_budget_cuts_a_call_off_and_is_all_that_is_paid(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        answer = await market.consumers["carla"].ask(CallRequest("echo", INPUT, 5))
        assert answer.ended is not None, answer.error
        assert answer.ids == IDS[:5]
        assert answer.ended.finish.name == "LENGTH"
        await asyncio.sleep(130)
        await check_settled(market)

    play(story, tmp_path)


def test_an_operation_that_the_agent_does_not_do_is_refused_in_words(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        answer = await market.consumers["carla"].ask(CallRequest("fly", b"{}", 5))
        assert answer.error is not None
        assert "fly" in str(answer.error)

    play(story, tmp_path)


def test_an_audit_runs_a_call_again(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        answer = await market.consumers["carla"].ask(REQUEST)
        assert answer.ended is not None
        await market.until(lambda: sum(host.node.auditor.checked for host in market.hosts.values()) > 0)

    play(story, tmp_path, Setting(audit_rate=1.0))
