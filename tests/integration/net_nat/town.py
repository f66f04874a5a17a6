"""A market on the lab's internet: real nodes at homes behind routers, a real coordinator, real links between them.

The chain is the one in memory; everything that crosses the network is the programs' own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from integration.net_nat.lab import Lab, Nat, Place
from integration.net_nat.loop import NamespaceLoop, at
from lading_coordinator.agents import entry_of
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.run import serve_the_unreachable
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectTransport
from lading_node.agents import Serving
from lading_node.core.policy import Policy
from lading_node.disk import Identity
from lading_node.node import Node, Plan
from lading_node.ports import Doors
from lading_node.store import Ledger
from lading_protocol.economics import AuditRates
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price
from simulation.flow.people import CREDIT, Host, TappedEngine
from simulation.flow.world import COORDINATOR, PRICE, Market, Setting
from simulation.node_world import AGENT, COIN, MANIFEST, Shelf

HUB = "203.0.113.1"
HUB_PORT = 4600
DELAY = 0.01
"""Seconds each way between a home and the internet."""


Homes = dict[str, Nat | None]


class HomeHost(Host):
    """A host of the market at a place of the lab."""

    place: Place

    async def up(self) -> None:
        market = self.market
        assert isinstance(market, Town)
        identity = Identity(self.address, market.record.chain_id, market.record.settlement)
        self.ledger = Ledger.open(self.folder, identity)
        self.transport = DirectTransport(self.key)
        doors = Doors(
            key=self.key,
            transport=self.transport,
            gossip=None,
            contracts=market.contracts,
            ledger=self.ledger,
            packages=Shelf(self._seed, self.slots),
            engine=lambda spec: TappedEngine(spec, self._delay, self),
            clock=market.now,
            rng=random.Random(self.name),
            direct=self.transport,
        )
        plan = Plan(
            agents=(Serving(AGENT, market.terms, self.price, self.slots, CREDIT),),
            listen=("/ip4/0.0.0.0/tcp/4101",),
            outward=self.place.address,
            coordinators=(market.endpoint,),
            policy=Policy(Wei(COIN), 30.0),
            drain=1.0,
        )
        with at(self.place):
            self.node = Node(doors, plan)
            self.task = asyncio.get_running_loop().create_task(self.node.run())
        await self.node.started.wait()
        self.alive = True

    def linked(self) -> bool:
        return any(one.linked for one in self.node.presence.coordinators)


class Town(Market):
    """`homes` are the hosts' routers by host's name, None for a machine with an address of its own."""

    now = staticmethod(time.time)

    def __init__(self, lab: Lab, folder: Path, setting: Setting, homes: Homes) -> None:
        super().__init__(0, folder, setting)
        self.lab, self.homes = lab, homes
        self.hub = lab.public("hub", HUB)
        self.url = ""
        self.token_patience = 8.0

    async def build(self) -> None:
        await super().build()
        self.coordinator.catalogue.add(entry_of(AGENT, MANIFEST, 0))

    async def join(self, name: str, nth: int = 0, **habits: Any) -> Host:
        price = Price(Wei(PRICE.input << nth), Wei(PRICE.output << nth))  # so that it is known who is asked first
        host = HomeHost(self, name, **({"price": price} | habits))
        nat, address = self.homes[name], f"203.0.113.{10 + nth}"
        host.place = self.lab.home(name, nat, address, delay=DELAY) if nat else self.lab.public(name, address)
        self.hosts[name] = host
        await host.stake()
        await host.up()
        return host

    async def coordinator_up(self) -> None:
        self.transport = DirectTransport(COORDINATOR)
        settings = CoordinatorSettings(
            home=str(self.home),
            audits=False,
            http_host=HUB,
            http_port=8600,
            drain=0.0,
            token_patience=self.token_patience,
        )
        with at(self.hub):
            self.endpoint = await self.transport.listen(f"/ip4/{HUB}/tcp/{HUB_PORT}")
            self.relay = serve_the_unreachable(self.transport, settings, (self.endpoint,))
            outside = Outside(
                COORDINATOR,
                self.contracts,
                self.transport,
                None,
                (self.endpoint,),
                self.now,
                self.rng.randbytes,
                AuditRates(),
            )
            self.coordinator = Coordinator(settings, outside)
            self._working = asyncio.get_running_loop().create_task(self.coordinator.serve())
        await self.coordinator.ready.wait()
        self.url = f"http://{HUB}:8600"

    async def crash(self) -> None:
        """The coordinator's process dies with all its links; its disk is as it was at this moment."""
        await self.transport.close()
        self.crash_coordinator()
        assert self._working is not None
        await asyncio.gather(self._working, return_exceptions=True)

    def home_host(self, name: str) -> HomeHost:
        host = self.hosts[name]
        assert isinstance(host, HomeHost)
        return host

    async def soon(self, happened: Callable[[], bool], seconds: float = 10.0) -> float:
        """Seconds until it happened."""
        began = time.monotonic()
        while not happened():
            assert time.monotonic() < began + seconds, f"it did not happen within {seconds:g} s"
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.leave()
        self.coordinator.stop.set()
        assert self._working is not None
        await asyncio.gather(self._working, return_exceptions=True)


Story = Callable[[Town], Awaitable[None]]


def play(story: Story, folder: Path, homes: Homes, *, token_patience: float = 8.0, seconds: float = 30.0) -> None:
    """Run a story in a lab of its own: a hub in the internet, and a host at each home. Consumers come later."""

    async def main() -> None:
        setting = Setting(hosts=tuple(homes), consumers=(), delay=0.0)
        town = Town(lab, folder, setting, homes)
        town.token_patience = token_patience
        async with asyncio.timeout(seconds):
            await town.build()
            try:
                await story(town)
            finally:
                await town.close()

    with Lab() as lab, asyncio.Runner(loop_factory=NamespaceLoop) as runner:
        runner.run(main())
