"""What consumers say beside OpenAI's own words: work that may wait, tokens that they have, a second host."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lading_coordinator.core.wishes import Wishes, read_wishes
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.elsewhere import comment
from lading_net.clock import run_virtual
from unit.coordinator.host import Habits
from unit.coordinator.world import World


@pytest.mark.parametrize(
    ("tree", "wishes"),
    [
        ({}, Wishes()),
        ({"service_tier": "flex"}, Wishes(flex=True)),
        ({"service_tier": "auto"}, Wishes()),
        ({"lading": {}}, Wishes()),
        ({"lading": {"emitted": [1, 2]}, "stream": True}, Wishes((1, 2))),
        ({"lading": {"emitted": [0, 2**32 - 1]}, "stream": True, "n": 1}, Wishes((0, 2**32 - 1))),
    ],
)
def test_what_is_read(tree: dict[str, Any], wishes: Wishes) -> None:
    assert read_wishes(tree) == wishes


@pytest.mark.parametrize(
    "given", [1, [], {"ids": []}, {"emitted": 5}, {"emitted": [True]}, {"emitted": [2**32]}, {"emitted": [1] * 131073}]
)
def test_what_is_refused(given: object) -> None:
    with pytest.raises(ApiError) as caught:
        read_wishes({"lading": given, "stream": True})
    assert caught.value.status == 400
    assert "lading" in str(caught.value)


def test_a_piece_and_its_tokens_are_one() -> None:
    assert comment(7, (1, 2), b"data: {}\n\n") == b": tokens 7 1,2\ndata: {}\n\n"
    assert comment(0, (5,), b"") == b": tokens 0 5\n\n"


def play(folder: Path, story: Any) -> None:
    async def main() -> None:
        async with World(asyncio.get_running_loop(), folder, audits=False).running() as world:
            await story(world)

    run_virtual(main())


def test_work_that_may_wait_says_so_to_its_host(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        host = await world.host("host", Habits())
        api_key = await world.session()
        for changes, headers in (({}, {}), ({"service_tier": "flex"}, {}), ({}, {"x_lading_band": "batch"})):
            body = {"model": "storyteller", "messages": [{"role": "user", "content": "hi"}]} | changes
            answer = await world.ask("POST", "/v1/chat/completions", body, api_key, **headers)
            assert answer.status == 200, answer.body
        assert [opening.band for opening in host.served] == [0, 1, 1]
        wrong = await world.ask("POST", "/v1/chat/completions", body, api_key, x_lading_band="soon")
        assert wrong.status == 400

    play(tmp_path, story)


def test_tokens_are_told_to_who_asks_and_to_nobody_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.host("host", Habits())
        api_key = await world.session()
        body = {"model": "storyteller", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        plain = await world.ask("POST", "/v1/chat/completions", body, api_key)
        assert b": tokens" not in plain.body
        assert "x-lading-agent" not in plain.headers
        told = await world.ask("POST", "/v1/chat/completions", body, api_key, x_lading_ids="1")
        lines = [line for line in told.body.decode().split("\n") if line.startswith(": tokens ")]
        ids = [int(one) for line in lines for one in line.split()[3].split(",")]
        assert int(told.headers["x-lading-max-tokens"]) > 0
        rest = body | {"lading": {"emitted": ids[:5]}, "model": told.headers["x-lading-agent"]}
        again = await world.ask("POST", "/v1/chat/completions", rest, api_key)
        assert again.status == 200, again.body
        assert plain.text.endswith(again.text)
        assert 0 < len(again.text) < len(plain.text)

    play(tmp_path, story)
