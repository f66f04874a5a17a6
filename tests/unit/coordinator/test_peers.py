"""The index, settling and publishing, spoken as peers speak them."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from factories import key, known_offer
from lading.blobs import BlobStore, serve_blobs
from lading.dispatch import Directory
from lading.dispatch.purse import ChannelKey, Purse
from lading_coordinator import peers
from lading_coordinator.peers import settle_handler
from lading_coordinator.standing import BARRED_AT_ONCE, LIST_AGAIN_SECONDS, LIST_SECONDS, Standing
from lading_coordinator.store import Store
from lading_net.messages import MessageStream
from lading_net.ports import Transport
from lading_protocol import VERSION
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address, TermsId, to_hex
from lading_protocol.manifest import dump
from lading_protocol.messages import (
    BLOB,
    HEARTBEAT,
    OFFERS,
    PUBLISH,
    SETTLE,
    TOPIC_COORDINATORS,
    TOPIC_OFFERS,
    VOUCHER_PAGE,
    Adverts,
    Beat,
    Collect,
    FromStore,
    GetBlob,
    Held,
    Hello,
    Notice,
    Publish,
    ToPublisher,
    Vouchers,
    WantOffers,
    decode,
    encode,
)
from lading_protocol.offers import check_notice
from lading_protocol.receipts import Voucher
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import MODEL, World, manifest


async def say(transport: Transport, endpoint: str, protocol: str, message: msgspec.Struct, kind: object) -> object:
    link = await transport.dial(endpoint, None)
    messages: MessageStream[object] = MessageStream(await link.open(protocol), msgspec.msgpack.Decoder(kind))
    messages.send(message)
    answer = await messages.recv()
    await messages.close()
    return answer


def state_of(world: World, label: str) -> str:
    for tree in world.coordinator.directory.candidates(world.agent):
        if tree.offer.host == key(label).address:
            return tree.barred or "alive"
    return "unknown"


def test_a_host_without_a_stake_is_not_chosen_until_it_has_one(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("poor", staked=False)
        api_key = await world.session()
        assert state_of(world, "poor") == "has no stake"
        assert (await world.chat(api_key)).status == 503
        await world.stake(key("poor"))
        await asyncio.sleep(3)
        assert state_of(world, "poor") == "alive"
        assert (await world.chat(api_key)).status == 200

    play(story)


def test_a_stake_taken_out_shuts_a_host_out(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        owner = key("owner of " + host.key.address.hex())
        assert state_of(world, "one") == "alive"
        await world.contracts.staking.request_unstake(owner, host.key.address, 2000 * 10**18)
        await asyncio.sleep(3)
        assert state_of(world, "one") == "has less stake than the minimum"

    play(story)


def test_an_outage_of_the_chain_changes_nobodys_standing(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("old")
        world.chain.down = True
        await asyncio.sleep(30)
        assert state_of(world, "old") == "alive"

    play(story)


def test_stake_is_not_asked_for_where_it_is_not_required(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("poor", staked=False)
        assert state_of(world, "poor") == "alive"

    play(story, require_stake=False)


def test_a_host_that_leaves_or_falls_silent_is_not_alive(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one")
        await world.host("two")
        world.net.kill(key("one").address)
        await asyncio.sleep(0.1)
        assert state_of(world, "one") == "is not linked"
        assert not [one for one in world.coordinator.gateway.models.live(world.agent) if one.host == key("one").address]
        world.net.kill(key("two").address, silently=True)
        await asyncio.sleep(6)
        assert world.coordinator.gateway.models.live(world.agent) == []

    play(story)


def test_nobody_can_show_another_hosts_offer_or_a_forged_one(play: Play) -> None:
    async def story(world: World) -> None:
        honest = await world.host("one")
        (known,) = honest.offers.values()
        forged = msgspec.structs.replace(known.advert, detail=msgspec.structs.replace(known.detail, name="cheap"))
        thief = world.net.transport(key("thief"))
        link = await thief.dial(world.endpoint, None)
        messages: MessageStream[object] = MessageStream(await link.open(HEARTBEAT), msgspec.msgpack.Decoder(Beat))
        messages.send(Hello(1, (known.advert, forged)))
        messages.send(Beat(9, 0))
        await asyncio.sleep(0.5)
        assert [one.host for one in world.coordinator.directory.offers()] == [honest.key.address]
        assert world.coordinator.directory.host(thief.address).free == 9

    play(story)


def test_beats_before_a_greeting_end_the_stream(play: Play) -> None:
    async def story(world: World) -> None:
        stranger = world.net.transport(key("stranger"))
        link = await stranger.dial(world.endpoint, None)
        messages: MessageStream[object] = MessageStream(await link.open(HEARTBEAT), msgspec.msgpack.Decoder(Beat))
        messages.send(Beat(1, 0))
        assert await messages.recv() is None

    play(story)


def test_gossiped_offers_are_known_and_served_to_anyone(play: Play) -> None:
    async def story(world: World) -> None:
        far = await world.host("far")
        (known,) = far.offers.values()
        await world.net.gossip(key("someone")).publish(TOPIC_OFFERS, encode(known.advert))
        await world.net.gossip(key("vandal")).publish(TOPIC_OFFERS, b"garbage")
        await asyncio.sleep(0.1)
        client = world.net.transport(key("client"))
        answer = await say(client, world.endpoint, OFFERS, WantOffers(), Adverts)
        assert isinstance(answer, Adverts)
        assert answer.adverts == (known.advert,)
        assert await say(client, world.endpoint, OFFERS, WantOffers(b"\x05" * 32), Adverts) == Adverts(())

    play(story)


def test_offers_of_made_up_hosts_fill_no_more_than_their_share(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_GOSSIPED", 60)
    monkeypatch.setattr(peers, "MAX_OF_STRANGERS", 30)

    async def story(world: World) -> None:
        vandal = world.net.gossip(key("vandal"))
        domain, now = world.record.settlement_domain, world.clock()
        for number in range(200):
            spam = known_offer(key(f"nobody {number}"), domain, agent=world.agent, terms=world.terms, now=now)
            await vandal.publish(TOPIC_OFFERS, encode(spam.advert))
        await asyncio.sleep(0.5)
        assert world.coordinator.directory.size == 30
        await world.host("linked")
        assert key("linked").address in {one.host for one in world.coordinator.gateway.models.live(world.agent)}
        for number in range(3):  # who has a stake finds a place, though it never was linked here
            await world.stake(key(f"somebody {number}"))
        await asyncio.sleep(3)
        for number in range(3):
            honest = known_offer(key(f"somebody {number}"), domain, agent=world.agent, terms=world.terms, now=now)
            await vandal.publish(TOPIC_OFFERS, encode(honest.advert))
        await asyncio.sleep(0.5)
        held = {one.host for one in world.coordinator.directory.offers()}
        assert {key(f"somebody {number}").address for number in range(3)} <= held

    play(story)


def test_who_has_a_stake_is_known_without_a_question_about_each(play: Play, tmp_path: Path) -> None:
    """A coordinator that starts late reads the chain's list, and again later; while the chain is away it keeps it."""

    async def story(world: World) -> None:
        staked = [key(f"operator {number}") for number in range(40)]
        for who in staked:
            await world.stake(who)
        directory = Directory(needs_beats=True)
        late = Standing(Store(tmp_path / "late.sqlite"), world.contracts.staking, directory, world.clock)
        assert not late.has_stake(staked[0].address)
        world.chain.down = True
        listing = asyncio.create_task(late.list_all())
        await asyncio.sleep(1)
        world.chain.down = False
        await asyncio.sleep(LIST_AGAIN_SECONDS + 5)
        assert all(late.has_stake(who.address) for who in staked)
        assert not late.has_stake(key("nobody").address)
        owner = key("owner of " + staked[3].address.hex())
        await world.contracts.staking.request_unstake(owner, staked[3].address, 2000 * 10**18)
        world.chain.down = True
        await asyncio.sleep(LIST_SECONDS)
        assert late.has_stake(staked[3].address)
        world.chain.down = False
        await asyncio.sleep(LIST_AGAIN_SECONDS + 5)
        assert [who for who in staked if not late.has_stake(who.address)] == [staked[3]]
        listing.cancel()

    play(story)


def test_an_offer_that_is_played_again_is_old_news(play: Play) -> None:
    async def story(world: World) -> None:
        domain, now = world.record.settlement_domain, world.clock()
        old, new = (known_offer(key("far"), domain, sequence=n, price_in=n, now=now) for n in (1, 2))
        someone = world.net.gossip(key("someone"))
        for one in (old, new, old, new, old):
            await someone.publish(TOPIC_OFFERS, encode(one.advert))
            await asyncio.sleep(0.05)
        assert world.coordinator.directory.offers_of(key("far").address) == [new]

    play(story)


def test_the_coordinators_notice_is_signed_and_current(play: Play) -> None:
    async def story(world: World) -> None:
        reader = world.net.gossip(key("reader")).subscribe(TOPIC_COORDINATORS)
        data = await anext(reader)
        notice = decode(Notice, data)
        assert isinstance(notice, Notice)
        ad = check_notice(notice, world.record.settlement_domain, world.clock())
        assert ad.coordinator == world.key.address
        assert notice.detail.endpoints == (world.endpoint,)

    play(story)


def test_a_host_collects_its_vouchers(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        answer = await world.chat(await world.session())
        vouchers = await say(host.transport, world.endpoint, SETTLE, Collect(), Vouchers)
        assert isinstance(vouchers, Vouchers)
        ((packed, lock),) = vouchers.vouchers
        voucher = unpack(Voucher, packed)
        assert voucher.value.host == host.key.address
        assert str(voucher.value.cumulative) == answer.headers["x-lading-cost"]
        assert lock
        other = await say(world.net.transport(key("x")), world.endpoint, SETTLE, Collect(), Vouchers)
        assert other == Vouchers(())

    play(story)


def packed(world: World, folder: Path, **changes: object) -> tuple[Transport, BlobStore, bytes]:
    """A publisher's transport and store with a package."""
    made = msgspec.structs.replace(manifest("novelist", publisher=key("writer")), **changes)
    store = BlobStore(folder)
    store.put(MODEL)
    agent = store.put(dump(made))
    transport = world.net.transport(key("writer"))
    transport.handle(BLOB, serve_blobs(store))
    return transport, store, agent


def test_publishing_holds_the_package_and_gives_it_to_hosts(play: Play, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        transport, _, agent = packed(world, tmp_path / "writer")
        made = manifest("novelist", publisher=key("writer"))
        _, terms = await world.register(made, key("writer"))
        assert await say(transport, world.endpoint, PUBLISH, Publish(agent, terms), ToPublisher) == Held(agent)
        found = await world.ask("GET", "/v1/models/novelist")
        assert found.json["agent"] == to_hex(agent)
        node = world.net.transport(key("node"))
        part = await say(node, world.endpoint, BLOB, GetBlob(manifest_file(made), 0, 100), FromStore)
        assert part.data == MODEL  # type: ignore[attr-defined]
        world.net.kill(world.key.address)
        await world.start()
        assert (await world.ask("GET", "/v1/models/novelist")).json["agent"] == to_hex(agent)
        await world.coordinator.close()

    play(story)


def manifest_file(made: object) -> bytes:
    return bytes.fromhex(made.files[0].digest[2:])  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["unregistered", "other owner", "other terms", "absent blob", "altered blob"])
def test_a_bad_package_is_refused_with_its_reason(play: Play, tmp_path: Path, fault: str) -> None:
    async def story(world: World) -> None:
        transport, store, agent = packed(world, tmp_path / "writer")
        made = manifest("novelist", publisher=key("writer"))
        terms = world.terms
        if fault != "unregistered":
            _, agreed = await world.register(made, key("maker" if fault == "other owner" else "writer"))
            terms = terms if fault == "other terms" else agreed
        if fault == "absent blob":
            store.path(manifest_file(made)).unlink()
        if fault == "altered blob":
            store.path(manifest_file(made)).write_bytes(b"WEIGHTS")
        answer = await say(transport, world.endpoint, PUBLISH, Publish(agent, terms), ToPublisher)
        assert not isinstance(answer, Held)
        assert answer.message  # type: ignore[attr-defined]
        assert (await world.ask("GET", "/v1/models/novelist")).status == 404

    play(story)


def test_an_agent_nobody_published_here_is_learnt_from_its_host(play: Play) -> None:
    async def story(world: World) -> None:
        other = manifest("poet", publisher=key("writer"))
        agent, terms = await world.register(other, key("writer"))
        lie = dump(manifest("liar"))
        await world.host("liar", agents=[(agent, terms, "poet")], blobs={agent: lie})
        assert (await world.ask("GET", "/v1/models/poet")).status == 404
        await world.host("one", Habits(), agents=[(agent, terms, "poet")], blobs={agent: dump(other)})
        assert (await world.ask("GET", "/v1/models/poet")).json["agent"] == to_hex(agent)

    play(story)


def test_a_host_that_names_terms_of_its_own_gets_no_work(play: Play) -> None:
    """Otherwise maker, OEM and curator would earn nothing from what it serves."""

    async def story(world: World) -> None:
        api_key = await world.session()
        _, foreign = await world.register(manifest(name="other"), key("cheat"))
        cheat = await world.host("cheat", agents=[(world.agent, foreign, "storyteller")])
        assert state_of(world, "cheat") == "unknown"
        await world.net.gossip(cheat.key).publish(TOPIC_OFFERS, encode(next(iter(cheat.offers.values())).advert))
        await asyncio.sleep(15)
        assert state_of(world, "cheat") == "unknown"
        assert (await world.chat(api_key)).status == 404

    play(story)


def test_hosts_get_no_new_work_under_terms_that_have_sunset(play: Play) -> None:
    """Announced before the host came, or while it is here: what was announced is what matching goes by."""

    async def story(world: World) -> None:
        registry, maker = world.contracts.registry, key("maker")
        known = world.coordinator.directory.candidates
        first = int(world.clock()) + await registry.notice() + 60
        await registry.sunset_terms(maker, world.terms, world.agent, first)
        await world.host("host")
        (candidate,) = known(world.agent)
        assert candidate.sunset_at == first
        await registry.sunset_terms(maker, world.terms, world.agent, 0)
        await asyncio.sleep(5)
        (candidate,) = known(world.agent)
        assert candidate.sunset_at == 0
        await registry.sunset_terms(maker, world.terms, world.agent, first + 100)
        await asyncio.sleep(5)
        (candidate,) = known(world.agent)
        assert candidate.sunset_at == first + 100
        # Its day has come.
        world.coordinator.directory.sunset(world.terms, int(world.clock()))
        answer = await world.chat(await world.session())
        assert answer.status == 503
        assert "offers it under terms that have sunset" in answer.json["error"]["message"]
        assert world.hosts[0].served == []

    play(story)


def test_foreign_terms_that_slipped_in_while_the_chain_was_away_are_found_later(play: Play) -> None:
    async def story(world: World) -> None:
        _, foreign = await world.register(manifest(name="other"), key("cheat"))
        await world.stake(key("cheat"))
        await world.host("cheat")
        world.chain.down = True
        cheat = world.hosts[0]
        again = await world.host("cheat", staked=False, agents=[(world.agent, foreign, "storyteller")])
        assert state_of(world, "cheat") == "alive"
        world.chain.down = False
        await asyncio.sleep(15)
        assert state_of(world, "cheat") == "unknown"
        assert cheat.served == again.served == []

    play(story)


def test_a_crowd_without_stakes_is_neither_remembered_nor_asked_about_all_at_once(play: Play) -> None:
    async def story(world: World) -> None:
        asked: list[bytes] = []
        check = world.coordinator.standing.check

        async def counted(host: Address) -> None:
            asked.append(host)
            await check(host)

        world.coordinator.standing.check = counted  # type: ignore[method-assign]
        transports = [world.net.transport(key(f"crowd {n}")) for n in range(20)]
        for transport in transports:
            link = await transport.dial(world.endpoint, None)
            messages: MessageStream[object] = MessageStream(await link.open(HEARTBEAT), msgspec.msgpack.Decoder(Beat))
            messages.send(Hello(VERSION, ()))
            messages.send(Beat(1, 0))
            await messages.drain()
        await asyncio.sleep(1.5)
        asked.clear()
        await asyncio.sleep(10)
        assert len(set(asked)) == 20
        assert len(asked) <= 11 * BARRED_AT_ONCE
        for transport in transports:
            await transport.close()
        await asyncio.sleep(3)
        assert world.coordinator.directory.hosts() == {}

    play(story)


def test_a_host_with_many_channels_gets_all_its_vouchers_page_by_page(play: Play) -> None:
    async def story(world: World) -> None:
        host = key("busy host")
        purse = Purse(":memory:", world.contracts.deployment.settlement_domain)
        for n in range(VOUCHER_PAGE + 3):
            payer = key("payer")
            purse.pay(payer, ChannelKey(payer.address, host.address, TermsId(n.to_bytes(32, "big")), 0), 5)
        transport = world.net.transport(key("payers"))
        transport.handle(SETTLE, settle_handler(purse))
        link = await world.net.transport(host).dial(await transport.listen("/ip4/10.0.0.9/tcp/1"), None)
        messages: MessageStream[Vouchers] = MessageStream(await link.open(SETTLE), msgspec.msgpack.Decoder(Vouchers))
        messages.send(Collect())
        pages = [await messages.recv(), await messages.recv()]
        assert [len(page.vouchers) for page in pages if page is not None] == [VOUCHER_PAGE, 3]
        assert len({packed for page in pages if page is not None for packed, _ in page.vouchers}) == VOUCHER_PAGE + 3
        purse.close()

    play(story)


def test_a_liar_is_not_let_in_again_because_it_says_hello(play: Play) -> None:
    async def story(world: World) -> None:
        liar = await world.host("liar")
        await world.host("other", Habits(price_in=10**9, price_out=10**9))
        directory = world.coordinator.directory
        directory.failed(liar.key.address, world.clock(), blame=True)
        for _ in range(3):
            world.tasks[0].cancel()
            world.tasks[0] = asyncio.create_task(liar.join(world.endpoint))
            await asyncio.sleep(1)
        assert directory.host(liar.key.address).shunned_until > world.clock() + 3000
        await world.chat(await world.session())
        assert liar.served == []

    play(story)
