"""The table of peers by distance: near ones are known well, far ones a few, and no crowd takes it over."""

from __future__ import annotations

import random

import msgspec
import pytest

from factories import key
from lading_net.binaddr import encode_endpoint
from lading_net.core.kademlia import (
    AREA_OF_BUCKET,
    FIND_NODE,
    GET_PROVIDERS,
    MOST_ENDPOINTS,
    NEAREST,
    Contact,
    Question,
    Table,
    decode_answer,
    decode_providers,
    decode_question,
    encode_answer,
    encode_question,
    reachable,
    spot,
)
from lading_net.core.places import place
from lading_net.core.rpc import Cutter
from lading_net.errors import BadMessage
from lading_net.peer import Endpoint, PeerId
from lading_net.protobuf import encode_count, encode_field

ME = PeerId.from_public_key(key("me").public_key)
SEED = 7


def contact(number: int, host: str = "127.0.0.1") -> Contact:
    return Contact(PeerId.from_public_key(key(f"peer {number}").public_key), (Endpoint("ip4", host, 4000 + number),))


def filled(count: int, host: str = "127.0.0.1") -> tuple[Table, list[Contact]]:
    table, all_ = Table(ME), [contact(number, host) for number in range(count)]
    return table, [one for one in all_ if table.add(one, place(host), ())]


def test_the_nearest_to_any_key_are_named_nearest_first() -> None:
    table, _ = filled(200)
    known = table.nearest(0, 1_000)
    rng = random.Random(SEED)
    for _ in range(20):
        key_ = rng.randbytes(32)
        near = sorted(known, key=lambda one: spot(one.peer.raw) ^ spot(key_))[:NEAREST]
        assert table.nearest(spot(key_)) == near
        assert table.nearest(spot(key_), without=near[0].peer) != near


def test_a_bucket_is_bounded_and_those_who_live_stay() -> None:
    table, known = filled(400)
    assert len(known) > len(table)  # some gave way
    assert len(table) <= NEAREST * 10
    kept = [one.peer for one in table.nearest(0, 1_000)]
    for number in range(400, 800):
        table.add(contact(number), place("127.0.0.1"), kept)
    assert set(kept) <= {one.peer for one in table.nearest(0, 1_000)}


def test_one_neighbourhood_of_addresses_fills_no_bucket() -> None:
    table, known = filled(400, "11.0.0.9")
    assert len(table) == len(known)
    half = [one for one in known if (spot(one.peer.raw) ^ spot(ME.raw)).bit_length() == 256]
    assert len(half) == AREA_OF_BUCKET


def test_a_contact_comes_back_as_it_was_told() -> None:
    far = Contact(contact(1).peer, (Endpoint("ip6", "2001:db8::1", 4001), Endpoint("dns4", "example.org", 4002)))
    question = Question(FIND_NODE, b"key")
    (said,) = Cutter().feed(encode_answer(question, [contact(0), far]))
    assert decode_answer(said) == [contact(0), far]
    (asked,) = Cutter().feed(encode_question(question))
    assert decode_question(asked) == question


def test_only_a_provider_may_be_behind_a_relay_and_only_behind_its_own_place_there() -> None:
    relay = PeerId.from_public_key(key("relay").public_key)
    straight = contact(0)
    through = Endpoint("ip4", "203.0.113.9", 4101, via=relay)
    both = Contact(straight.peer, (*straight.endpoints, through))
    question = Question(GET_PROVIDERS, ME.raw, (both,))
    (said,) = Cutter().feed(encode_answer(question, [both], [both]))
    assert decode_providers(said) == ([both], [straight])
    (asked,) = Cutter().feed(encode_question(question))
    assert decode_question(asked).providers == (both,)
    for peer, kept in ((straight.peer, both), (ME, straight)):
        named = encode_endpoint(msgspec.structs.replace(through, peer=peer))
        body = encode_field(1, straight.peer.raw) + encode_field(2, encode_endpoint(straight.endpoints[0]))
        told = encode_count(1, GET_PROVIDERS) + encode_field(9, body + encode_field(2, named))
        assert decode_providers(told) == ([kept], [])


def test_an_answer_is_read_within_limits_and_without_what_we_cannot_dial() -> None:
    peer = contact(0).peer
    relayed = Endpoint("ip4", "203.0.113.1", 1, peer, ME)
    many = [encode_endpoint(Endpoint("ip4", "203.0.113.1", port)) for port in range(100)]
    told = [
        encode_field(1, peer.raw) + b"".join(encode_field(2, each) for each in many),
        encode_field(1, peer.raw) + encode_field(2, encode_endpoint(relayed)),
        encode_field(1, b"nonsense") + encode_field(2, many[1]),
        encode_field(1, peer.raw) + encode_field(2, b"\xff\xff"),
    ]
    said = b"".join(encode_field(8, each) for each in told)
    (one,) = decode_answer(said)
    assert one.peer == peer
    assert len(one.endpoints) == MOST_ENDPOINTS
    assert all(each.port for each in one.endpoints)


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\xff" * 12, encode_field(8, b"\x0a\x09")])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_answer(data)
    if data[0] != 0x42:
        with pytest.raises(BadMessage):
            decode_question(data)
    assert decode_question(encode_count(1, FIND_NODE)) == Question(FIND_NODE)


@pytest.mark.parametrize(("teller", "kept"), [("8.8.4.4", 1), ("192.168.1.9", 4)])
def test_nobody_from_outside_sends_us_to_machines_of_our_own_network(teller: str, kept: int) -> None:
    ways = ("/ip4/1.2.3.4/tcp/1", "/ip4/192.168.1.1/tcp/80", "/ip4/127.0.0.1/tcp/22", "/ip6/fe80::1/tcp/1")
    one = Contact(contact(0).peer, tuple(map(Endpoint.parse, ways)))
    inside = Contact(contact(1).peer, (Endpoint.parse("/ip4/10.0.0.1/tcp/1"),))
    told = reachable([one, inside], place(teller))
    assert [len(each.endpoints) for each in told] == ([1] if kept == 1 else [kept, 1])
