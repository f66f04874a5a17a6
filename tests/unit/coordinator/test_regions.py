"""Coordinators of two regions that know of each other only by summaries: who asks whom, and what a lie costs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import key
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.clock import run_virtual
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import dump
from lading_protocol.messages import TOPIC_OFFERS, Advert, encode
from lading_protocol.summaries import (
    QUOTES,
    TOPIC_SUMMARIES,
    Quote,
    Quotes,
    Stock,
    SummaryAd,
    SummaryDetail,
    WantQuotes,
    make_summary,
)
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import Answer, World, manifest

Story = Callable[["Land"], Awaitable[None]]
PERIOD = 1.0


class Region(World):
    """A coordinator of one region, on the first one's network and chain."""

    def __init__(self, first: World, folder: Path, number: int, regions: Sequence[str]) -> None:
        super().__init__(first.loop, folder, audits=False)
        self.first, self.number, self.regions = first, number, regions
        self.clock, self.chain, self.net, self.payer = first.clock, first.chain, first.net, first.payer
        self.key = key(f"coordinator of {','.join(regions)}")

    async def build(self) -> None:
        first = self.first
        self.contracts, self.record = first.contracts, first.record
        self.agent, self.terms = first.agent, first.terms
        await self.start()

    async def start(self) -> None:
        transport = self.net.transport(self.key)
        self.endpoint = await transport.listen(f"/ip4/10.0.0.{self.number}/tcp/4600")
        plain = {
            "home": str(self._folder),
            "audits": False,
            "region": self.regions[0],
            "regions": self.regions,
            "summary_period": PERIOD,
        }
        gossip, rng = self.net.gossip(self.key), random.Random(8)
        outside = Outside(self.key, self.contracts, transport, gossip, (self.endpoint,), self.clock, rng.randbytes)
        self.coordinator = Coordinator(msgspec.convert(plain, CoordinatorSettings), outside)
        self.app = self.coordinator.application()


class Land:
    """Two coordinators: one indexes Europe, the other one America."""

    def __init__(self, eu: Region, us: Region) -> None:
        self.eu, self.us = eu, us
        self._hosts = 0

    async def host(self, world: World, label: str, habits: Habits | None = None, **offer: Any) -> Host:
        """A host of the world's region, linked to its coordinator only, and reachable."""
        self._hosts += 1
        assert isinstance(world, Region)
        who, endpoint = key(label), f"/ip4/10.1.0.{self._hosts}/tcp/4101"
        await self.eu.first.stake(who)
        transport = world.net.transport(who)
        place = {"region": world.regions[0], "endpoint": await transport.listen(endpoint)}
        habits = msgspec.structs.replace(habits or Habits(), **place)
        agents = offer.get("agents") or [(world.agent, world.terms, "storyteller")]
        blobs = offer.get("blobs", {world.agent: dump(manifest())})
        made = Host(transport, who, world.record, agents, world.clock, habits, blobs)
        world.hosts.append(made)
        world.tasks.append(asyncio.create_task(made.join(world.endpoint)))
        await asyncio.sleep(0.1)
        return made


@pytest.fixture
def play_land(tmp_path: Path) -> Callable[[Story], None]:
    def run(story: Story) -> None:
        async def main() -> None:
            first = World(asyncio.get_running_loop(), tmp_path / "first", audits=False)
            async with first.running():
                eu, us = (Region(first, tmp_path / name, number, [name]) for name, number in (("eu", 2), ("us", 3)))
                async with eu.running(), us.running():
                    await story(Land(eu, us))

        run_virtual(main(), seed=1, limit=7200)

    return run


def ids(answer: Answer) -> str:
    return answer.headers["x-lading-host"]


def quoted(world: World) -> int:
    return world.coordinator.directory.quoted


def test_a_request_is_served_by_a_host_that_only_another_coordinator_indexes(
    play_land: Callable[[Story], None],
) -> None:
    async def story(land: Land) -> None:
        host = await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        models = (await land.eu.ask("GET", "/v1/models")).json["data"]
        assert [(one["id"], one["hosts"], one["hosts_elsewhere"]) for one in models] == [("storyteller", 0, 1)]
        assert models[0]["price"]["output_wei"] == "2000000", "known before anybody asked for an offer"
        assert quoted(land.eu) == 0
        answer = await land.eu.chat(api_key)
        assert (answer.status, ids(answer)) == (200, to_hex(host.key.address))
        assert (quoted(land.eu), land.eu.coordinator.directory.linked) == (1, 0)
        assert len(host.served) == 1

    play_land(story)


def test_while_it_is_wanted_the_view_is_kept_fresh_and_then_forgotten(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        scout = land.eu.coordinator.hearing.scout
        for _ in range(20):
            assert (await land.eu.chat(api_key)).status == 200
            await asyncio.sleep(1)
        assert scout.asked <= 14, "asked about every other second, not for every request"
        asked = scout.asked
        await asyncio.sleep(60)
        assert scout.asked <= asked + 6, "nobody wants it any more"
        await asyncio.sleep(3600)
        assert (quoted(land.eu), land.eu.coordinator.directory.size) == (0, 0), "it ends with its offer"

    play_land(story)


def test_a_request_that_can_be_served_here_waits_for_nobody_and_the_next_one_is_cheaper(
    play_land: Callable[[Story], None],
) -> None:
    async def story(land: Land) -> None:
        near = await land.host(land.eu, "near", Habits(price_in=3_000_000, price_out=6_000_000))
        far = await land.host(land.us, "far")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        assert ids(await land.eu.chat(api_key)) == to_hex(near.key.address)
        await asyncio.sleep(1.5)
        assert ids(await land.eu.chat(api_key)) == to_hex(far.key.address)

    play_land(story)


def test_where_the_price_is_the_same_nobody_is_asked(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        near = await land.host(land.eu, "near")
        await land.host(land.us, "far")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        for _ in range(10):
            assert ids(await land.eu.chat(api_key)) == to_hex(near.key.address)
            await asyncio.sleep(0.5)
        assert land.eu.coordinator.hearing.scout.asked == 0

    play_land(story)


def test_who_waits_for_a_full_host_goes_where_there_is_room(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        near = await land.host(land.eu, "near", Habits(slots=1, length=100, pause=0.1))
        far = await land.host(land.us, "far", Habits(slots=4, length=6, price_in=1_100_000))
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        first = asyncio.create_task(land.eu.chat(api_key))
        await asyncio.sleep(1.5)
        began = land.eu.loop.time()
        second = await land.eu.chat(api_key)
        assert ids(second) == to_hex(far.key.address)
        assert land.eu.loop.time() - began < 2.0, "it does not wait for the ten seconds of the first"
        assert ids(await first) == to_hex(near.key.address)

    play_land(story)


def test_an_answer_goes_on_at_a_host_of_another_region(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        await land.host(land.eu, "near", Habits(dies_after=4, pause=0.05))
        far = await land.host(land.us, "far")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        answer = await land.eu.chat(api_key)
        assert answer.status == 200
        assert [len(opening.emitted) for opening in far.served] == [4], "it has the tokens that are there already"

    play_land(story)


def test_a_price_that_changed_is_the_price_that_is_paid(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        host = await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        cheap = await land.eu.chat(api_key)
        host.reprice(2_000_000, 4_000_000)
        await asyncio.sleep(3)
        dear = await land.eu.chat(api_key)
        assert (cheap.status, dear.status) == (200, 200)
        assert int(dear.headers["x-lading-cost"]) == 2 * int(cheap.headers["x-lading-cost"])

    play_land(story)


def test_a_coordinator_that_dies_costs_a_short_wait_and_is_asked_again_when_it_is_back(
    play_land: Callable[[Story], None],
) -> None:
    async def story(land: Land) -> None:
        host = await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        await land.us.coordinator.outside.transport.close()
        began = land.eu.loop.time()
        assert (await land.eu.chat(api_key)).status == 503
        assert land.eu.loop.time() - began <= 2.6
        began = land.eu.loop.time()
        assert (await land.eu.chat(api_key)).status == 503
        assert land.eu.loop.time() - began <= 0.1, "it was found dead a moment ago"
        again = Region(land.eu.first, land.us._folder.with_name("us again"), 3, ["us"])
        async with again.running():
            again.tasks.append(asyncio.create_task(host.join(again.endpoint)))
            await asyncio.sleep(4)
            assert (await land.eu.chat(api_key)).status == 200

    play_land(story)


class Liar:
    """A coordinator whose summary promises what it has not."""

    def __init__(self, land: Land, name: str, price: str = "1") -> None:
        self.land, self.key, self.price = land, key(name), price
        self.asked = 0
        self.answer = Quotes(())
        self.sequence = 1_900_000_000_000

    async def start(self, number: int = 99) -> None:
        transport = self.land.eu.net.transport(self.key)
        self.endpoint = await transport.listen(f"/ip4/10.9.0.{number}/tcp/4600")
        transport.handle(QUOTES, self._quote)
        self.gossip = self.land.eu.net.gossip(self.key)
        await self.say()

    async def say(self, agent: bytes | None = None, key: PrivateKey | None = None) -> None:
        self.sequence += 1
        world = self.land.eu
        stock = Stock(agent or world.agent, "eu", 9, 99, 4096, ((self.price, self.price),), (("P", "declared"),))
        detail = SummaryDetail((self.endpoint,), 0, 1, (stock,))
        who = key or self.key
        ad = SummaryAd(who.address, self.sequence, int(world.clock()) + 300, bytes(32))
        summary = make_summary(ad, detail, world.record.settlement_domain, who)
        self.said = summary
        await self.gossip.publish(TOPIC_SUMMARIES, encode(summary))

    async def _quote(self, stream: Stream) -> None:
        messages: MessageStream[WantQuotes] = MessageStream(stream, msgspec.msgpack.Decoder(WantQuotes))
        await messages.recv()
        self.asked += 1
        messages.send(self.answer)
        await messages.drain()


def test_a_summary_that_lies_wastes_a_few_looks_and_no_request(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        near = await land.host(land.eu, "near")
        liar = Liar(land, "liar")
        await liar.start()
        api_key = await land.eu.session()
        for _ in range(120):
            began = land.eu.loop.time()
            answer = await land.eu.chat(api_key)
            assert ids(answer) == to_hex(near.key.address)
            assert land.eu.loop.time() - began < 0.2
            await liar.say()
            await asyncio.sleep(1)
        assert 2 <= liar.asked <= 8, "it is not believed for long, however often it says it"

    play_land(story)


def test_a_forged_offer_is_never_chosen(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        near = await land.host(land.eu, "near")
        liar = Liar(land, "liar")
        await liar.start()
        advert = next(iter(near.offers.values())).advert
        forged = Advert(advert.offer[:96] + bytes(64) + advert.offer[160:], advert.detail)
        liar.answer = Quotes((Quote(forged, 9, 0, 0),))
        api_key = await land.eu.session()
        for _ in range(10):
            answer = await land.eu.chat(api_key)
            assert ids(answer) == to_hex(near.key.address)
            assert int(answer.headers["x-lading-cost"]) > 0
            await asyncio.sleep(1)
        assert liar.asked == 1, "one forged offer is enough"
        assert land.eu.coordinator.atlas.voices() == [] or all(
            voice.address != liar.key.address for voice in land.eu.coordinator.atlas.voices()
        )

    play_land(story)


def test_an_offer_without_a_stake_or_under_foreign_terms_is_not_borrowed(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        world, poor, greedy = land.eu, key("poor"), key("greedy")
        liar = Liar(land, "liar", price="900000")
        await liar.start()
        await world.first.stake(greedy)
        base = Habits(region="eu", endpoint="/ip4/10.3.0.1/tcp/4101")
        hosts = [
            Host(world.net.transport(poor), poor, world.record, [(world.agent, world.terms, "x")], world.clock, base),
            Host(
                world.net.transport(greedy), greedy, world.record, [(world.agent, b"\x77" * 32, "x")], world.clock, base
            ),
        ]
        liar.answer = Quotes(tuple(Quote(next(iter(host.offers.values())).advert, 4, 0, 0) for host in hosts))
        api_key = await world.session()
        await asyncio.sleep(2)
        answer = await world.chat(api_key)
        assert answer.status in (404, 503)
        for _ in range(30):
            await asyncio.sleep(1)
            await world.chat(api_key)
            await liar.say()
        assert liar.asked <= 5, "it is not worth asking"
        assert hosts[0].served == hosts[1].served == []

    play_land(story)


def test_only_offers_of_named_regions_are_kept_and_who_is_linked_always(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        far = await land.host(land.us, "far")
        advert = next(iter(far.offers.values())).advert
        await land.us.net.gossip(key("gossip")).publish(TOPIC_OFFERS, encode(advert))
        await asyncio.sleep(0.5)
        assert [len(one.coordinator.directory.offers()) for one in (land.eu, land.us)] == [0, 1]
        land.eu.tasks.append(asyncio.create_task(far.join(land.eu.endpoint)))
        await asyncio.sleep(0.5)
        assert land.eu.coordinator.directory.linked == 1

    play_land(story)


def test_gossip_that_is_no_text_harms_nobody(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        liar = Liar(land, "liar")
        await liar.start()
        near = await land.host(land.eu, "near")
        advert = encode(next(iter(near.offers.values())).advert)
        for topic, data in ((TOPIC_OFFERS, advert), (TOPIC_SUMMARIES, encode(liar.said))):
            for text in (b"storyteller", b"/ip4/10.9"):
                await liar.gossip.publish(topic, data.replace(text, b"\xaf" * len(text)))
                await liar.gossip.publish(topic, data[:-7])
        await asyncio.sleep(1)
        assert (await land.eu.chat(await land.eu.session())).status == 200

    play_land(story)


def test_a_host_that_links_itself_is_no_longer_hearsay(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        host = await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        assert (await land.eu.chat(api_key)).status == 200
        land.eu.tasks.append(asyncio.create_task(host.join(land.eu.endpoint)))
        await asyncio.sleep(0.5)
        directory = land.eu.coordinator.directory
        assert (directory.quoted, directory.linked, directory.quotes(host.key.address)) == (0, 1, False)
        await asyncio.sleep(30)
        assert (await land.eu.chat(api_key)).status == 200
        words = [
            reason.words
            for losses in directory.losses(host.key.address, land.eu.clock()).values()
            for reason in losses.reasons
        ]
        assert not any("link was down" in one or "overdue" in one for one in words)

    play_land(story)


def test_what_is_indexed_and_what_is_hearsay_is_shown(play_land: Callable[[Story], None]) -> None:
    async def story(land: Land) -> None:
        await land.host(land.us, "one")
        api_key = await land.eu.session()
        await asyncio.sleep(4)
        await land.eu.chat(api_key)
        tree = (await land.eu.ask("GET", "/lading/v1/regions")).json
        assert (tree["indexed"], tree["hosts"], tree["quoted_hosts"], tree["summed_up"]) == (["eu"], 0, 1, 1)
        assert [one["proved"] for one in tree["coordinators"]] == [True]
        assert tree["memory_mb"] > 10
        (host,) = (await land.eu.ask("GET", "/lading/v1/hosts")).json["hosts"]
        assert (host["state"], host["chosen"]) == ("quoted", True)
        page = (await land.eu.ask("GET", "/")).body.decode()
        assert "Indexed in full: eu" in page
        assert "1 hosts by quotes" in page
        assert (await land.us.ask("GET", "/lading/v1/regions")).json["summaries_sent"] >= 1

    play_land(story)
