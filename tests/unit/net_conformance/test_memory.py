"""The in-memory network keeps the contract of every transport: at once, late and jittery, and with torn reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from factories import key
from lading_net.clock import run_virtual
from lading_net.memory import Conditions, MemoryNetwork
from unit.net_conformance.contract import Net, TransportContract
from unit.net_conformance.gossip_contract import NAMES, GossipContract, Scenario

WEATHER = {
    "instant": (Conditions(), False),
    "late": (Conditions(delay=0.05, jitter=0.02, bandwidth=50e6), False),
    "torn": (Conditions(delay=0.001), True),
}


class TestMemory(TransportContract):
    @pytest.fixture(autouse=True, params=WEATHER)
    def _weather(self, request: pytest.FixtureRequest) -> None:
        self.conditions, self.fragments = WEATHER[request.param]

    def run(self, scenario: Callable[[Net], Awaitable[None]]) -> None:
        async def main() -> None:
            await scenario(MemoryNetwork(7, self.conditions, fragments=self.fragments))

        run_virtual(main(), 7, limit=600)


class TestMemoryGossip(GossipContract):
    @pytest.fixture(autouse=True, params=WEATHER)
    def _weather(self, request: pytest.FixtureRequest) -> None:
        self.conditions, _ = WEATHER[request.param]

    def run(self, scenario: Scenario) -> None:
        async def main() -> None:
            net = MemoryNetwork(7, self.conditions)
            await scenario([net.gossip(key(name)) for name in NAMES])

        run_virtual(main(), 7, limit=600)
