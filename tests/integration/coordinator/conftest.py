from collections.abc import Iterator

import pytest

from postgres_server import Server, postgres


@pytest.fixture(scope="session")
def database() -> Iterator[Server]:
    with postgres() as server:
        yield server
