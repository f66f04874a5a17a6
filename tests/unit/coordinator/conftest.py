"""Runs a coordinator's world on a virtual clock: `play(story)` gives the story a running World."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lading_net.clock import run_virtual
from unit.coordinator.world import World

Story = Callable[[World], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return player(tmp_path)


def player(tmp_path: Path) -> Play:
    def run(story: Story, **settings: Any) -> None:
        async def main() -> None:
            world = World(asyncio.get_running_loop(), tmp_path / "home", **settings)
            async with world.running():
                await story(world)

        run_virtual(main(), seed=1, limit=7200)

    return run
