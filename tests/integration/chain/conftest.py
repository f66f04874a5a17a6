"""One embedded chain per test."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.chain.served import Chain


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path / "chain")
    yield chain
    if chain.process.poll() is None:
        chain.end(signal.SIGKILL)
