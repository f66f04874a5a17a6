"""A whole market in one process: real nodes, a real coordinator, consumers with sessions; memory, fake chain, one seed.

`Market` owns the parts and what befalls them (deaths keep the disk as it was at that moment); `Host` and `Consumer` are
its people. What must hold afterwards is `books`' business.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from factories import key
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.clock import run_virtual
from lading_net.memory import Conditions, MemoryNetwork
from lading_protocol.economics import AuditRates
from lading_protocol.ids import Address, TermsId, Wei
from lading_protocol.pricing import Price
from simulation.flow.people import Consumer, Host, copy_disk
from simulation.node_world import AGENT, COIN, EPOCH

PRICE = Price(Wei(COIN // 100 + 7), Wei(COIN // 50 + 13))
PARTIES = (
    Party(key("maker").address, Role.MAKER, 733),
    Party(key("oem").address, Role.OEM, 211),
    Party(key("curator").address, Role.CURATOR, 97),
)
SUPPLY_HOLDER = key("treasury")
COORDINATOR = key("coordinator")
LIMIT = 3000.0


class Setting(msgspec.Struct, frozen=True):
    """What a story begins with. `delay` is the chain's inclusion delay in seconds, `canary` the key file of the
    operator under whose name canaries go."""

    hosts: tuple[str, ...] = ("amber", "birch")
    consumers: tuple[str, ...] = ("carla",)
    deposit: int = 1000 * COIN
    cap: int = 500 * COIN
    delay: float = 1.0
    conditions: Conditions = Conditions(delay=0.01)
    silence: float = 30.0
    fragments: bool = False
    audit_rate: float = 0.0
    rates: AuditRates = AuditRates()
    canary: str = ""


Trap = Callable[[Host, bytes, int], Awaitable[None]]


class Market:
    """`rng` decides everything that the story leaves to chance. Made by `story`."""

    def __init__(self, seed: int, folder: Path, setting: Setting) -> None:
        self.seed = seed
        self.folder = folder
        self.setting = setting
        self.rng = random.Random(seed)
        self.network = MemoryNetwork(seed, setting.conditions, silence=setting.silence, fragments=setting.fragments)
        self.chain = FakeChain(self.now, inclusion_delay=setting.delay, block_time=2.0)
        self.hosts: dict[str, Host] = {}
        self.consumers: dict[str, Consumer] = {}
        self.traps: list[Trap] = []
        self.ended: list[Any] = []
        self.requests: set[asyncio.Task[Any]] = set()
        self.lives = 0
        self.endpoint = ""
        self._working: asyncio.Task[None] | None = None
        self._dead: list[Coordinator] = []

    @staticmethod
    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    @property
    def record(self) -> Deployment:
        return self.contracts.deployment

    def host_at(self, address: Address) -> Host:
        return next(host for host in self.hosts.values() if host.address == address)

    # The beginning

    async def build(self) -> None:
        record = await deploy(self.chain, SUPPLY_HOLDER, Parameters.devnet())
        self.contracts = Contracts(self.chain, record)
        maker = key("maker")
        for name, party in zip(("oem", "curator"), PARTIES[1:], strict=True):
            await self.contracts.registry.set_policy(key(name), party.role, party.bps)
        await self.contracts.registry.register(maker, AGENT)
        self.terms = TermsId(await self.contracts.registry.agree_terms(maker, AGENT, PARTIES))
        await self.contracts.coin.transfer(SUPPLY_HOLDER, COORDINATOR.address, 1000 * COIN)
        self.chain.inclusion_delay = self.setting.delay
        await self.coordinator_up()
        await asyncio.gather(*(self.join(name, nth) for nth, name in enumerate(self.setting.hosts)))
        for name in self.setting.consumers:
            self.consumers[name] = Consumer(self, name)
            await self.consumers[name].settle_in()
        await self.open_for_business()

    async def join(self, name: str, nth: int = 0, **habits: Any) -> Host:
        """Stakes and starts a host; later ones are a little dearer, so that the order of choice is known."""
        price = Price(Wei(PRICE.input + nth), Wei(PRICE.output + nth))
        host = self.hosts[name] = Host(self, name, **({"price": price} | habits))
        await host.stake()
        await host.up()
        return host

    async def open_for_business(self, count: int | None = None) -> None:
        """Until all living hosts were found by gossip and beat, and nothing bars them."""
        wanted = {host.address for host in self.hosts.values() if host.alive}
        await self.until(lambda: wanted <= self.choosable() if count is None else len(self.choosable()) >= count)

    def choosable(self) -> set[Address]:
        candidates = self.coordinator.directory.candidates(AGENT)
        return {
            one.offer.host
            for one in candidates
            if not one.barred and one.beat_at and self.now() - one.beat_at < 4 and one.shunned_until <= self.now()
        }

    async def until(self, happened: Callable[[], bool], seconds: float = 300.0) -> None:
        end = self.now() + seconds
        while not happened():
            assert self.now() < end, f"it did not happen within {seconds:g} s"
            await asyncio.sleep(0.25)

    # The coordinator

    @property
    def open(self) -> bool:
        return self.coordinator not in self._dead

    @property
    def home(self) -> Path:
        return self.folder / f"coordinator{self.lives}"

    async def coordinator_up(self) -> None:
        transport = self.network.transport(COORDINATOR)
        self.endpoint = await transport.listen("/ip4/10.9.9.9/tcp/4600")
        rate = self.setting.audit_rate
        settings = CoordinatorSettings(
            home=str(self.home),
            audits=rate > 0,
            audit_rate=rate,
            audit_period=2.0,
            first_token_patience=10.0,
            audit_opening_pause=20.0,
            audit_canary_key=self.setting.canary,
        )
        gossip = self.network.gossip(COORDINATOR)
        outside = Outside(
            COORDINATOR,
            self.contracts,
            transport,
            gossip,
            (self.endpoint,),
            self.now,
            self.rng.randbytes,
            self.setting.rates,
        )
        made = self.coordinator = Coordinator(settings, outside)
        record = made.dispatcher.on_end

        def on_end(ended: Any) -> None:
            record(ended)
            if made not in self._dead:
                self.ended.append(ended)

        made.dispatcher.on_end = on_end
        up = asyncio.Event()
        self._working = asyncio.get_running_loop().create_task(_work(made, up))
        await up.wait()

    def crash_coordinator(self, *, silently: bool = False) -> None:
        """The process dies with all requests in it; its disk is as it was at this moment."""
        before, self.lives = self.home, self.lives + 1
        copy_disk(before, self.home)
        self.network.kill(COORDINATOR.address, silently=silently)
        self._dead.append(self.coordinator)
        assert self._working is not None
        self._working.cancel()
        for request in list(self.requests):
            asyncio.get_running_loop().call_soon(request.cancel)  # it may be the one that crashes us

    async def restart_coordinator(self) -> None:
        assert self._working is not None
        await asyncio.gather(self._working, return_exceptions=True)
        await self.coordinator_up()

    # The end

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.leave()
        assert self._working is not None
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)
        for one in (*self._dead, self.coordinator):
            await one.close()


async def _work(coordinator: Coordinator, up: asyncio.Event) -> None:
    async with coordinator.working():
        up.set()
        await asyncio.Event().wait()


Story = Callable[[Market], Awaitable[None]]


def play(story: Story, folder: Path, setting: Setting | None = None, *, seed: int = 0) -> None:
    """Run a story from a seed. Whatever goes wrong, the failure names the seed."""

    async def main() -> None:
        async with open_market(seed, folder, setting or Setting()) as market:
            await story(market)

    chance = random.Random(f"secrets {seed}")
    with patch("secrets.token_bytes", lambda size=32: chance.randbytes(size)):
        try:
            run_virtual(main(), seed, limit=LIMIT)
        except BaseException as error:
            error.add_note(f"seed {seed}: play it again with seed={seed}")
            raise


@contextlib.asynccontextmanager
async def open_market(seed: int, folder: Path, setting: Setting) -> AsyncIterator[Market]:
    market = Market(seed, folder, setting)
    await market.build()
    try:
        yield market
    finally:
        await market.close()
