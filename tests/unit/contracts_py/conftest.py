"""One chain per test, behind a line that may misbehave."""

from collections.abc import Iterator

import pytest

from lading_contracts.embedded.server import EmbeddedSettings, in_process
from lading_contracts.transports import InProcess
from unit.contracts_py.crooked import CHAIN_ID, Crooked


@pytest.fixture
def line() -> Iterator[Crooked]:
    answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0))
    yield Crooked(InProcess(answerer))
    answerer.close()
