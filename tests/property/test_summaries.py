"""Hearsay stays within its bounds: in memory, in time, and in what it may make us do."""

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import NOW, chat_request, key, known_offer, network, unsigned_offer
from lading.core.atlas import Atlas
from lading.core.matching import BEAT_LIMIT, Filters, Want, aim_of
from lading.dispatch import directory as directories
from lading.dispatch.directory import Directory
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import encode
from lading_protocol.summaries import (
    MAX_SUMMARY,
    MOST_PAGES,
    MOST_STOCKS,
    KnownSummary,
    Stock,
    Summary,
    SummaryAd,
    SummaryDetail,
    check_summary,
    make_summary,
    page_of,
    paged,
)

VOICES, SHELVES = 5, 24
AGENTS = [AgentId(n.to_bytes(2, "big") + bytes(30)) for n in range(6)]
WHO = [Address(bytes([n]) * 20) for n in range(12)]
SPOTS = [(agent, region) for agent in AGENTS for region in ("", "eu", "us-east")]

pages = st.tuples(
    st.sampled_from(WHO),
    st.integers(0, 30),
    st.integers(1, 60),
    st.sampled_from([1, 2, 4]),
    st.lists(st.sampled_from(SPOTS), unique=True, max_size=12),
)


def page(told: tuple[Address, int, int, int, Sequence[tuple[AgentId, str]]], number: int, now: float) -> KnownSummary:
    who, sequence, life, split, spots = told
    number %= split
    stocks = [
        Stock(agent, region, 3, len(region), 4096, (("7", "9"),))
        for agent, region in spots
        if page_of(agent, split) == number
    ]
    detail = SummaryDetail((f"/ip4/66.{who[0]}.0.1/tcp/1",), number, split, tuple(stocks))
    return KnownSummary(SummaryAd(who, sequence, int(now) + life, bytes(32)), detail)


@settings(max_examples=150)
@given(st.lists(st.one_of(pages, st.integers(0, 40), st.sampled_from(WHO)), max_size=60), st.randoms())
def test_an_atlas_holds_no_more_than_it_may_and_nothing_that_is_over(steps: list[object], rng: random.Random) -> None:
    atlas, now = Atlas(key("own").address, coordinators=VOICES, shelves=SHELVES), NOW
    aim = aim_of(Want(chat_request(), filters=Filters(near="eu")))
    for step in steps:
        if isinstance(step, int):
            now += step
            atlas.prune(now)
        elif isinstance(step, bytes):
            if rng.random() < 0.5:
                atlas.proved(Address(step))
            else:
                atlas.in_vain(Address(step), now)
        else:
            atlas.put(page(step, rng.randrange(4), now), now)  # type: ignore[arg-type]
        voices = atlas.voices()
        assert len(voices) <= VOICES
        held = [shelf for agent in atlas.agents() for shelf in atlas._shelves[agent].values()]
        assert atlas.size == len(held) == sum(voice.shelves for voice in voices) <= SHELVES
        assert {shelf.coordinator for shelf in held} <= set(voices), "nothing of one that is gone"
        assert all(shelf.page in shelf.coordinator.pages.values() for shelf in held)
        for agent in AGENTS:
            hints = atlas.hints(agent, aim, now)
            assert len({hint.coordinator for hint in hints}) == len(hints)
            assert all(shelf.page.expires > now for shelf in atlas.shelves(agent, now))
    atlas.prune(now + 1000)
    assert (atlas.size, atlas.voices(), list(atlas.agents())) == (0, [], [])


HOSTS = [key(f"host {n}") for n in range(6)]
moves = st.tuples(
    st.sampled_from(["quote", "hello", "beat", "gone", "wait", "gossip"]), st.integers(0, 5), st.integers(0, 8)
)


@settings(max_examples=120, deadline=None)
@given(st.lists(moves, max_size=40))
def test_a_quoted_offer_outlives_neither_its_end_nor_its_report(steps: list[tuple[str, int, int]]) -> None:
    directory, now, told, linked = Directory(needs_beats=True), NOW, {}, set()
    agent = AgentId(b"\xaa" * 32)
    known = [
        unsigned_offer(host.address, 100 + n, 200, expires=int(NOW) + 10 * (n + 1)) for n, host in enumerate(HOSTS)
    ]
    reports: dict[Address, float] = {}
    for what, n, much in steps:
        host = HOSTS[n].address
        match what:
            case "quote":
                at = now - much
                if known[n].offer.expires > now and directory.quote(known[n], 1, 0, at):
                    assert host not in linked, "who is linked speaks for itself"
                    reports[host] = max(at, reports.get(host, at))
            case "hello":
                directory.replace(host, [one for one in [known[n]] if one.offer.expires > now])
                linked.add(host)
            case "beat" if host in linked:
                directory.beat(host, 1, 0, now)
                reports[host] = now
            case "gone" if host in linked:
                directory.gone(host)
                linked.discard(host)
                reports.pop(host, None)
            case "gossip" if known[n].offer.expires > now:
                directory.put(known[n])
            case _:
                now += much
                directory.prune(now)
        pick = directory.choose(agent, Want(chat_request()), now, random.Random(much))
        if pick is not None:
            assert pick.offer.offer.expires > now
            assert now - reports[pick.offer.host] <= BEAT_LIMIT
        beating = [one for one in linked if directory.host(one).beat_at is not None]
        assert directory.linked <= len(linked)
        assert directory.linked >= len([one for one in beating if not directory.quotes(one)])
        assert not any(directory.quotes(one) for one in linked)
    directory.prune(NOW + 100)
    assert (directory.size, directory.quoted) == (0, 0)
    assert told == {}


def test_quoted_hosts_are_bounded_and_those_that_work_for_us_stay(monkeypatch: object) -> None:
    most, directories.MOST_QUOTED = directories.MOST_QUOTED, 20
    try:
        directory = Directory(needs_beats=True)
        busy = unsigned_offer(bytes([255]) * 20, 1, 1)
        assert directory.quote(busy, 4, 0, NOW)
        directory.started(busy.host)
        for n in range(300):
            assert directory.quote(unsigned_offer(n.to_bytes(20, "big"), 5, 5), 4, 0, NOW)
            assert directory.quoted <= 20
            assert directory.size <= 20
        assert directory.quotes(busy.host)
        assert not directory.quotes(Address(bytes(20)))
        assert len(directory.hosts()) <= 400
        directory.prune(NOW)
        assert len(directory.hosts()) <= 21
    finally:
        directories.MOST_QUOTED = most


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 64), st.integers(0, 2**32 - 1)),
        unique_by=lambda one: one[:2],
        max_size=300,
    )
)
def test_pages_hold_every_stock_once_and_fit_into_gossip(spots: list[tuple[bytes, int, int]]) -> None:
    stocks = [
        Stock(agent, "x" * region, 9, free, 4096, (("9" * 29,) * 2,) * 3, (("t" * 64,) * 2,) * 4)
        for agent, region, free in spots
    ]
    made = paged(stocks)
    assert len(made) in (1, 2, 4, 8, 16, 32)
    told = [stock for page in made for stock in page]
    assert len(told) == len(set(told))
    if len(made) < MOST_PAGES:
        assert set(told) == set(stocks)
    who, domain = key("one"), network().settlement_domain
    for number, page in enumerate(made):
        assert len(page) <= MOST_STOCKS
        detail = SummaryDetail(("/" * 256,) * 8, number, len(made), page)
        summary = make_summary(SummaryAd(who.address, 1, int(NOW) + 60, bytes(32)), detail, domain, who)
        data = encode(summary)
        assert len(data) <= MAX_SUMMARY + 4096
        again = msgspec.msgpack.decode(data, type=Summary)
        assert check_summary(again, domain, NOW).detail == detail


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_summary_with_one_byte_changed_is_none(data: st.DataObject) -> None:
    who, domain = key("one"), network().settlement_domain
    stock = Stock(AGENTS[0], "eu", 3, 2, 4096, (("7", "9"),))
    detail = SummaryDetail(("/ip4/10.0.0.1/tcp/1",), 0, 1, (stock,))
    good = encode(make_summary(SummaryAd(who.address, 1, int(NOW) + 60, bytes(32)), detail, domain, who))
    at, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    bad = good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
    try:
        known = check_summary(msgspec.msgpack.decode(bad, type=Summary), domain, NOW)
    except (LadingError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    else:
        # The other half of a signature's parity is the only byte that names another signer, and none names this one.
        assert known.coordinator != who.address or known.detail == detail


def test_a_real_offer_is_found_again_only_by_its_own_bytes() -> None:
    directory, host = Directory(needs_beats=True), key("host")
    known = known_offer(host)
    directory.quote(known, 1, 0, NOW)
    assert directory.held(known.advert) is known
    other = msgspec.structs.replace(known.advert, offer=known.advert.offer[:-1] + b"\x00")
    assert directory.held(other) is None
