"""Three coordinators of two regions over real links and real gossip: none of them knows all hosts, each serves all."""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec

from factories import key
from integration.coordinator.town import ANY_PORT, Town
from lading.answers import Bill
from lading.core.options import Options
from lading.dispatch import Purse
from lading.routes.peers import PeerRoute
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectTransport
from lading_net.gossip import MeshGossip
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.ids import to_hex
from lading_protocol.manifest import dump
from lading_protocol.messages import Refuse, encode
from lading_protocol.summaries import (
    QUOTES,
    TOPIC_SUMMARIES,
    Quotes,
    Stock,
    SummaryAd,
    SummaryDetail,
    WantQuotes,
    make_summary,
)
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import manifest

BODY = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}]}


class Office:
    """One coordinator; it may die and come back at the same place with the same folder."""

    def __init__(self, town: Town, name: str, region: str, folder: Path) -> None:
        self.town, self.key, self.region, self.folder = town, key(name), region, folder
        self.listen, self.gossip_at = ANY_PORT, ANY_PORT
        self.hosts: list[Host] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, bootstrap: list[str]) -> None:
        transport = DirectTransport(self.key)
        self.listen = (await transport.listen(self.listen)).rpartition("/p2p/")[0]
        self.gossip = MeshGossip(self.key, self.gossip_at, bootstrap)
        await self.gossip.start()
        self.gossip_at = self.gossip.address.rpartition("/p2p/")[0]
        self.endpoint = f"{self.listen}/p2p/{transport.peer_id}"
        plain = {
            "home": str(self.folder),
            "http_port": 0,
            "audits": False,
            "require_stake": False,
            "region": self.region,
            "regions": [self.region],
            "summary_period": 0.5,
            "drain": 0,
        }
        town, fresh = self.town, random.Random(3).randbytes
        outside = Outside(self.key, town.contracts, transport, self.gossip, (self.endpoint,), time.time, fresh)
        self.coordinator = Coordinator(msgspec.convert(plain, CoordinatorSettings), outside)
        self.serving = asyncio.create_task(self.coordinator.serve())
        await asyncio.wait_for(self.coordinator.ready.wait(), 10)

    async def close(self) -> None:
        self.coordinator.stop.set()
        await asyncio.wait_for(self.serving, 20)

    async def host(self, label: str, habits: Habits | None = None) -> Host:
        """A host of this region, linked here only."""
        transport = DirectTransport(key(label))
        endpoint = await transport.listen(ANY_PORT)
        town, agents = self.town, [(self.town.agent, self.town.terms, "storyteller")]
        habits = msgspec.structs.replace(habits or Habits(), region=self.region, endpoint=endpoint)
        blobs = {town.agent: dump(manifest("storyteller"))}
        host = Host(transport, key(label), town.record, agents, time.time, habits, blobs)
        self.hosts.append(host)
        self.join(host)
        await until(lambda: self.coordinator.directory.host(host.key.address).beat_at is not None)
        return host

    def join(self, host: Host) -> None:
        self.tasks.append(asyncio.create_task(host.join(self.endpoint, 0.2)))

    async def session(self) -> str:
        town, made = self.town, self.coordinator.sessions.create(self.town.payer.address)
        settlement = town.contracts.settlement
        await settlement.authorize(town.payer, made.session, 10**18, int(time.time()) + 3600, made.consent)
        return made.api_key

    async def chat(self, api_key: str) -> httpx.Response:
        host, port = self.coordinator.http_address
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {api_key}"}, timeout=20) as client:
            return await client.post(f"http://{host}:{port}/v1/chat/completions", json=BODY)


async def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come about in time"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def land(folder: Path) -> AsyncIterator[tuple[Office, Office, Office]]:
    """Two offices in Europe, one in America."""
    town = Town(folder)
    await town.build_chain()
    await town.contracts.coin.approve(town.payer, town.record.settlement, 10**18)
    await town.contracts.settlement.deposit(town.payer, 10**18)
    places = (("eu one", "eu"), ("eu two", "eu"), ("us", "us"))
    offices = [Office(town, name, region, folder / name) for name, region in places]
    bootstrap: list[str] = []
    for office in offices:
        await office.open(list(bootstrap))
        bootstrap.append(office.gossip.address)
    try:
        yield offices[0], offices[1], offices[2]
    finally:
        for office in offices:
            for task in office.tasks:
                task.cancel()
            await office.close()
            for host in office.hosts:
                await host.transport.close()


def hears(office: Office, other: Office) -> Callable[[], bool]:
    """Whether one knows that the other has hosts, and what their agent is."""
    coordinator, agent = office.coordinator, office.town.agent

    def heard() -> bool:
        shelves = coordinator.atlas.shelves(agent, time.time())
        known = coordinator.catalogue.get(agent) is not None
        return known and any(shelf.coordinator.address == other.key.address for shelf in shelves)

    return heard


def test_each_serves_what_only_another_one_indexes(tmp_path: Path) -> None:
    async def story() -> None:
        async with land(tmp_path) as (one, two, us):
            far = await us.host("far")
            await asyncio.gather(*(until(hears(office, us)) for office in (one, two)))
            keys = [await office.session() for office in (one, two)]
            answers = await asyncio.gather(*(office.chat(key) for office, key in zip((one, two), keys, strict=True)))
            assert [(a.status_code, a.headers["x-lading-host"]) for a in answers] == [
                (200, to_hex(far.key.address))
            ] * 2
            assert [office.coordinator.directory.linked for office in (one, two, us)] == [0, 0, 1]
            texts = {answer.json()["choices"][0]["message"]["content"] for answer in answers}
            assert len(texts) == 1

            far.reprice(2_000_000, 4_000_000)
            known = one.coordinator.directory
            await until(lambda: [held.price.input for held in known.offers_of(far.key.address)] == [2_000_000])
            dear = await one.chat(keys[0])
            assert int(dear.headers["x-lading-cost"]) == 2 * int(answers[0].headers["x-lading-cost"])

    asyncio.run(story())


def test_a_host_that_refuses_and_a_coordinator_that_lies_cost_no_request(tmp_path: Path) -> None:
    async def story() -> None:
        async with land(tmp_path) as (one, two, us):
            sour = await us.host("sour", Habits(price_in=500_000, refuses=Refuse("busy", "No.", 10)))
            sweet = await two.host("sweet")
            liar = await _liar(one)
            await asyncio.gather(until(hears(one, us)), until(hears(one, two)))
            await until(lambda: len(one.coordinator.atlas.voices()) == 3)
            api_key = await one.session()
            for _ in range(5):
                answer = await one.chat(api_key)
                assert (answer.status_code, answer.headers["x-lading-host"]) == (200, to_hex(sweet.key.address))
            assert 1 <= len(sour.served) <= 3, "it says that it has room, and is believed less each time"
            await liar.close()

    asyncio.run(story())


async def _liar(office: Office) -> DirectTransport:
    """Somebody who says to have the cheapest hosts of all, and has none."""
    transport, world = DirectTransport(key("liar")), office.town
    endpoint = await transport.listen(ANY_PORT)
    decoder = msgspec.msgpack.Decoder(WantQuotes)

    async def nothing(stream: Stream) -> None:
        messages: MessageStream[WantQuotes] = MessageStream(stream, decoder)
        if await messages.recv() is not None:
            messages.send(Quotes(()))
            await messages.drain()

    transport.handle(QUOTES, nothing)
    stock = Stock(world.agent, "eu", 9, 99, 4096, (("1", "1"),))
    detail = SummaryDetail((endpoint,), 0, 1, (stock,))
    ad = SummaryAd(key("liar").address, 1, int(time.time()) + 300, bytes(32))
    summary = encode(make_summary(ad, detail, world.record.settlement_domain, key("liar")))
    gossip = MeshGossip(key("liar"), ANY_PORT, [office.gossip.address])
    await gossip.start()
    heard = office.coordinator.atlas
    while not any(voice.address == key("liar").address for voice in heard.voices()):
        await gossip.publish(TOPIC_SUMMARIES, summary)
        await asyncio.sleep(0.2)
    await gossip.close()
    return transport


def test_a_coordinator_dies_and_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with land(tmp_path) as (one, two, us):
            far = await us.host("far")
            await until(hears(one, us))
            api_key = await one.session()
            assert (await one.chat(api_key)).status_code == 200
            await us.close()
            assert (await one.chat(api_key)).status_code == 200, "the host is there still, and known"
            await until(lambda: not one.coordinator.gateway.models.live(one.town.agent))
            began = time.monotonic()
            assert (await one.chat(api_key)).status_code == 503
            assert time.monotonic() - began < 3.0
            await us.open([one.gossip.address])
            us.join(far)
            # Its summary comes anew, and with it the question.
            await until(lambda: us.coordinator.directory.linked == 1)
            served = []
            for _ in range(60):
                served.append((await one.chat(api_key)).status_code)
                if served[-1] == 200:
                    break
                await asyncio.sleep(0.2)
            assert served[-1] == 200
            assert two.coordinator.directory.linked == 0

    asyncio.run(story())


def test_a_client_without_a_coordinator_is_shown_to_the_one_that_has_the_agent(tmp_path: Path) -> None:
    async def story() -> None:
        async with land(tmp_path) as (one, _, us):
            far = await us.host("far")
            await until(hears(one, us))
            town, transport = one.town, DirectTransport(one.town.payer)
            purse = Purse(tmp_path / "purse.sqlite", town.record.settlement_domain)
            route = PeerRoute(transport, town.contracts, town.payer, [one.endpoint], purse)
            pieces = [
                piece async for piece in route.chat(to_hex(town.agent), [("user", "a story")], Options(max_tokens=8))
            ]
            assert isinstance(pieces[-1], Bill)
            assert pieces[-1].hosts == (to_hex(far.key.address),)
            assert one.coordinator.directory.quoted == 0, "it only showed the way"
            await transport.close()
            purse.close()

    asyncio.run(story())


def test_each_of_several_processes_reaches_what_only_another_coordinator_indexes(tmp_path: Path) -> None:
    settings = {"gossip": ANY_PORT, "region": "eu", "regions": ["eu"]}
    command = ("-m", "integration.coordinator.crewed", "desk", str(tmp_path / "crew"), "2", json.dumps(settings))

    async def story() -> None:
        town = Town(tmp_path / "town")
        await town.build_chain()
        us = Office(town, "us", "us", tmp_path / "us")
        crew = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert crew.stdout is not None
        told = json.loads(await asyncio.wait_for(crew.stdout.readline(), 60))
        await us.open([told["gossip"]])
        try:
            far = await us.host("far")
            for api_key in told["keys"]:
                assert await _served(told["http"], api_key) == to_hex(far.key.address)
            assert us.coordinator.directory.linked == 1
        finally:
            crew.terminate()
            await crew.wait()
            for task in us.tasks:
                task.cancel()
            await us.close()
            await far.transport.close()

    asyncio.run(story())


async def _served(url: str, api_key: str) -> str:
    """By which host, once the worker that has the key has heard of one."""
    ends = time.monotonic() + 20
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {api_key}"}, timeout=20) as client:
        while True:
            answer = await client.post(f"{url}/v1/chat/completions", json=BODY)
            if answer.status_code == 200:
                return answer.headers["x-lading-host"]
            assert time.monotonic() < ends, answer.text
            await asyncio.sleep(0.2)
