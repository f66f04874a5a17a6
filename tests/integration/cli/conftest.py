"""One small real network for all tests of this folder; raised once."""

import os
from collections.abc import Iterator

import pytest

from integration.cli.quay import Quay


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_ours() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LADING_")]:
            patch.delenv(name)
        patch.setenv("LADING_SETTINGS", os.devnull)
        yield


@pytest.fixture(scope="session")
def quay(tmp_path_factory: pytest.TempPathFactory, no_settings_of_ours: None) -> Iterator[Quay]:
    made = Quay(tmp_path_factory.mktemp("quay"))
    try:
        made.run(made.build())
        yield made
    finally:
        made.end()
