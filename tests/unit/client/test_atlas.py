"""What is heard of other coordinators: bounded whoever speaks, and never believed for longer than it is true."""

import msgspec
import pytest

from factories import NOW, chat_request, key, network
from lading.core.atlas import FAIR_SHELVES, Atlas
from lading.core.matching import Filters, Want, aim_of
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import Price
from lading_protocol.summaries import (
    KnownSummary,
    Stock,
    Summary,
    SummaryAd,
    SummaryDetail,
    check_summary,
    make_summary,
)

AGENT = AgentId(b"\xaa" * 32)
DOMAIN = network().settlement_domain
OWN = key("own").address


def stock(agent: bytes = AGENT, region: str = "eu", price: int = 100, free: int = 4, **changes: object) -> Stock:
    made = Stock(agent, region, 2, free, 4096, ((str(price), str(2 * price)),), (("P", "exact"),))
    return msgspec.structs.replace(made, **changes)


def page(
    who: PrivateKey,
    *stocks: Stock,
    sequence: int = 1,
    number: int = 0,
    pages: int = 1,
    life: int = 300,
    at: str = "10.0.0.1",
) -> KnownSummary:
    """As check_summary gives it; signatures are tested below."""
    detail = SummaryDetail((f"/ip4/{at}/tcp/4600",), number, pages, stocks)
    return KnownSummary(SummaryAd(who.address, sequence, int(NOW) + life, bytes(32)), detail)


def aim(near: str = "eu", **filters: object) -> object:
    return aim_of(Want(chat_request(), filters=Filters(near=near, **filters)))  # type: ignore[arg-type]


def test_the_best_coordinator_comes_first_and_those_without_room_last() -> None:
    atlas = Atlas(OWN)
    for name, price, free in (("dear", 300, 4), ("cheap", 100, 4), ("full", 50, 0)):
        assert atlas.put(page(key(name), stock(price=price, free=free)), NOW)
    hints = atlas.hints(AGENT, aim(), NOW)  # type: ignore[arg-type]
    assert [hint.coordinator for hint in hints] == [key(name).address for name in ("cheap", "dear", "full")]


def test_distance_counts_as_it_does_for_an_offer() -> None:
    atlas = Atlas(OWN)
    atlas.put(page(key("far"), stock(region="us", price=100)), NOW)
    atlas.put(page(key("near"), stock(region="eu", price=104)), NOW)
    assert atlas.hints(AGENT, aim("eu"), NOW)[0].coordinator == key("near").address  # type: ignore[arg-type]
    assert atlas.hints(AGENT, aim("us"), NOW)[0].coordinator == key("far").address  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "want",
    [
        Want(chat_request(), filters=Filters(region="us")),
        Want(chat_request(), filters=Filters(tiers=frozenset({"V"}))),
        Want(chat_request(), filters=Filters(assurance=frozenset({"measured"}))),
        Want(chat_request(), max_price=Price(99, 200)),  # type: ignore[arg-type]
        Want(chat_request(max_tokens=5000)),
    ],
)
def test_nobody_is_asked_for_what_its_summary_rules_out(want: Want) -> None:
    atlas = Atlas(OWN)
    atlas.put(page(key("one"), stock()), NOW)
    assert atlas.hints(AGENT, aim_of(want), NOW) == []


def test_a_page_replaces_itself_and_older_ones_change_nothing() -> None:
    atlas, one = Atlas(OWN), key("one")
    assert atlas.put(page(one, stock(), stock(region="us"), sequence=5), NOW)
    assert not atlas.put(page(one, sequence=4), NOW + 1)
    assert not atlas.put(page(one, sequence=5), NOW + 1)
    assert atlas.size == 2
    assert atlas.put(page(one, stock(region="us"), sequence=6), NOW + 1)
    assert [shelf.region for shelf in atlas.shelves(AGENT, NOW + 1)] == ["us"]
    assert atlas.put(page(one, sequence=7), NOW + 2)
    assert (atlas.size, list(atlas.agents())) == (0, [])


def test_pages_of_one_round_may_come_in_any_order_and_a_new_split_forgets_the_old() -> None:
    atlas, one = Atlas(OWN), key("one")
    odd, even = AgentId(b"\0\1" + bytes(30)), AgentId(bytes(32))
    assert atlas.put(page(one, stock(odd), sequence=5, number=1, pages=2), NOW)
    assert atlas.put(page(one, stock(even), sequence=5, number=0, pages=2), NOW)
    assert atlas.size == 2
    assert atlas.put(page(one, stock(odd), sequence=6), NOW + 1)
    assert atlas.size == 1
    assert not atlas.put(page(one, stock(even), sequence=5, number=0, pages=2), NOW + 2), "a replay"


def test_what_is_not_said_again_is_forgotten_with_whoever_said_it() -> None:
    atlas = Atlas(OWN)
    atlas.put(page(key("one"), stock(), life=100), NOW)
    assert atlas.serves(AGENT, NOW + 99)
    assert not atlas.serves(AGENT, NOW + 100)
    assert atlas.hints(AGENT, aim(), NOW + 100) == []  # type: ignore[arg-type]
    atlas.prune(NOW + 100)
    assert (atlas.size, atlas.voices()) == (0, [])


def test_our_own_summary_is_no_news() -> None:
    atlas = Atlas(key("own").address)
    assert not atlas.put(page(key("own"), stock()), NOW)


def test_a_crowd_of_new_names_drives_out_itself_and_nobody_who_proved_its_word() -> None:
    atlas = Atlas(OWN, coordinators=16)
    honest = [key(f"honest {n}") for n in range(4)]
    for n, who in enumerate(honest):
        atlas.put(page(who, stock(), at=f"20.{n}.0.1"), NOW)
        atlas.proved(who.address)
    for n in range(300):
        atlas.put(page(key(f"crowd {n}"), stock(price=1), at=f"66.{n % 250}.0.1"), NOW + n)
        assert len(atlas.voices()) <= 16
    heard = {voice.address for voice in atlas.voices()}
    assert {who.address for who in honest} <= heard


def test_names_of_one_corner_of_the_network_cannot_prove_themselves_into_all_places() -> None:
    atlas = Atlas(OWN, coordinators=16)
    for n in range(16):
        who = key(f"corner {n}")
        atlas.put(page(who, stock(), at=f"66.1.0.{n + 1}"), NOW + n)
        atlas.proved(who.address)
    assert atlas.put(page(key("honest"), stock(), at="20.1.0.1"), NOW + 100)


def test_newcomers_to_a_full_room_come_one_by_one() -> None:
    """A signature is checked only for who would get a place."""
    atlas = Atlas(OWN, coordinators=4)
    for n in range(4):
        atlas.put(page(key(f"old {n}"), stock()), NOW)
    taken = sum(
        atlas.wants(key(f"new {n}").address, 1, 0, NOW + 1) and atlas.put(page(key(f"new {n}"), stock()), NOW + 1)
        for n in range(50)
    )
    assert taken == 1


def test_one_that_says_very_much_leaves_room_for_others() -> None:
    atlas = Atlas(OWN, shelves=600)
    wide = [stock(region=f"r{n}") for n in range(128)]
    agents = [AgentId(n.to_bytes(2, "big") + bytes(30)) for n in range(8)]
    for n, agent in enumerate(agents):
        stocks = [msgspec.structs.replace(one, agent=agent) for one in wide]
        atlas.put(page(key("wide"), *stocks, number=n, pages=8), NOW)
    assert atlas.size == 600
    assert atlas.put(page(key("small"), stock(AgentId(b"\xbb" * 32))), NOW)
    assert atlas.serves(AgentId(b"\xbb" * 32), NOW)
    assert atlas.size <= 600
    assert FAIR_SHELVES > 128


def test_looks_in_vain_count_for_a_while_and_are_forgiven() -> None:
    atlas, liar = Atlas(OWN), key("liar")
    atlas.put(page(liar, stock()), NOW)
    for n in range(4):
        atlas.in_vain(liar.address, NOW + n)
    assert atlas.voices() == []
    assert not atlas.put(page(liar, stock(), sequence=2), NOW + 10)
    assert atlas.put(page(liar, stock(), sequence=3), NOW + 130)


def signed(who: PrivateKey, *stocks: Stock, expires: int = int(NOW) + 300, number: int = 0, pages: int = 1) -> Summary:
    detail = SummaryDetail(("/ip4/10.0.0.1/tcp/4600",), number, pages, stocks)
    return make_summary(SummaryAd(who.address, 1, expires, bytes(32)), detail, DOMAIN, who)


def test_a_summary_counts_as_its_coordinator_signed_it() -> None:
    good = signed(key("one"), stock())
    assert check_summary(good, DOMAIN, NOW).coordinator == key("one").address
    other = signed(key("other"), stock(price=1))
    with pytest.raises(LadingError, match="altered"):
        check_summary(Summary(good.ad, other.detail), DOMAIN, NOW)
    stolen = msgspec.structs.replace(check_summary(other, DOMAIN, NOW).ad, coordinator=key("one").address)
    with pytest.raises(LadingError, match="not signed"):
        check_summary(Summary(stolen.sign(DOMAIN, key("other")).pack(), other.detail), DOMAIN, NOW)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (signed(key("one"), stock(), expires=int(NOW)), "expired"),
        (signed(key("one"), stock(), expires=int(NOW) + 700), "longer than"),
        (signed(key("one"), stock(), stock()), "twice"),
        (signed(key("one"), stock(), pages=2, number=1), "another page"),
        (signed(key("one"), pages=3), "no page"),
        (signed(key("one"), pages=2, number=2), "no page"),
        (signed(key("one"), stock(corners=(("", "1"),))), "no price"),
    ],
)
def test_a_summary_out_of_shape_is_refused(made: Summary, why: str) -> None:
    with pytest.raises(LadingError, match=why):
        check_summary(made, DOMAIN, NOW)
