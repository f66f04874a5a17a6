"""The chains, deployed and furnished once for all property tests that play on them."""

from collections.abc import Iterator

import pytest

from property.twin_chains import Stage, Twins


@pytest.fixture(scope="session")
def twins() -> Iterator[Twins]:
    world = Twins()
    yield world
    world.close()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    world = Stage()
    yield world
    world.close()
