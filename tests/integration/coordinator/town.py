"""A coordinator over real sockets: HTTP and direct links on loopback, the unit tests' hosts, and a chain in memory."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from factories import key
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectTransport
from lading_protocol.ids import AgentId, TermsId
from lading_protocol.manifest import agent_id, dump
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import COIN, manifest

ANY_PORT = "/ip4/127.0.0.1/tcp/0"


class Town:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.name = "coordinator"
        self.tasks: list[asyncio.Task[None]] = []
        self.hosts: list[Host] = []

    async def build(self) -> None:
        await self.build_chain()
        await self.build_door()
        self.coordinator = Coordinator(self.made_settings(), self.outside())

    async def build_chain(self) -> None:
        self.chain = FakeChain(time.time, block_time=1.0)
        bank = key("bank")
        self.record = await deploy(self.chain, bank, Parameters.devnet())
        self.contracts = Contracts(self.chain, self.record)
        self.payer = key("payer")
        await self.contracts.coin.transfer(bank, self.payer.address, 1000 * COIN)
        self.agent, self.terms = await self.register("storyteller")

    async def build_door(self) -> None:
        self.transport = DirectTransport(key(self.name))
        self.endpoint = await self.transport.listen(ANY_PORT)

    def made_settings(self) -> CoordinatorSettings:
        base = {"home": str(self.folder), "http_port": 0, "require_stake": False, "audits": False, "drain": 5.0}
        return msgspec.convert(base | self.settings, CoordinatorSettings)

    def outside(self) -> Outside:
        return Outside(key(self.name), self.contracts, self.transport, None, (self.endpoint,))

    async def register(self, name: str) -> tuple[AgentId, TermsId]:
        maker, agent = key("maker"), agent_id(dump(manifest(name)))
        await self.contracts.registry.register(maker, agent)
        parties = [Party(maker.address, Role.MAKER, 1500)]
        return agent, await self.contracts.registry.agree_terms(maker, agent, parties)

    async def host(self, label: str, habits: Habits | None = None, name: str = "storyteller") -> Host:
        transport = DirectTransport(key(label))
        await transport.listen(ANY_PORT)
        agent, terms = (self.agent, self.terms) if name == "storyteller" else await self.register(name)
        agents, blobs = [(agent, terms, name)], {agent: dump(manifest(name))}
        host = Host(transport, key(label), self.record, agents, time.time, habits, blobs)
        self.hosts.append(host)
        self.tasks.append(asyncio.create_task(host.join(self.endpoint)))
        for _ in range(200):
            if any(one.host == host.key.address for one in self.coordinator.gateway.models.live(agent)) and (
                self.coordinator.catalogue.get(agent) is not None
            ):
                return host
            await asyncio.sleep(0.02)
        raise AssertionError("the host did not come up")

    async def session(self) -> str:
        made = self.coordinator.sessions.create(self.payer.address)
        await self.contracts.coin.approve(self.payer, self.record.settlement, 100 * COIN)
        await self.contracts.settlement.deposit(self.payer, 100 * COIN)
        expiry = int(time.time()) + 3600
        await self.contracts.settlement.authorize(self.payer, made.session, 50 * COIN, expiry, made.consent)
        return made.api_key

    @property
    def url(self) -> str:
        host, port = self.coordinator.http_address
        return f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def town(folder: Path, **settings: Any) -> AsyncIterator[Town]:
    made = Town(folder, **settings)
    await made.build()
    serving = asyncio.create_task(made.coordinator.serve())
    try:
        await asyncio.wait_for(made.coordinator.ready.wait(), 10)
        yield made
    finally:
        made.coordinator.stop.set()
        await asyncio.wait_for(serving, 20)
        for task in made.tasks:
            task.cancel()
        for host in made.hosts:
            await host.transport.close()
