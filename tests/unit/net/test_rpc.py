"""What gossipsub says on the wire, byte for byte, and what is refused before anybody thinks about it."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from factories import key
from lading_net.core.heard import Seen, Shelf
from lading_net.core.rpc import (
    LONGEST_RPC,
    MAX_GOSSIP_BYTES,
    MOST_PARTS,
    Cutter,
    Message,
    Prune,
    Rpc,
    author,
    decode_rpc,
    encode_rpc,
    genuine,
    named,
    proved,
    sign,
)
from lading_net.errors import BadEndpoint, ProtocolViolation
from lading_net.peer import PeerId, encode_public_key
from lading_net.protobuf import encode_count, encode_field, encode_number

ALICE = key("alice")
SENDER = PeerId.from_public_key(ALICE.public_key).raw
TOPIC = "/lading/offers/1"
MESSAGE = sign(ALICE, TOPIC, b"an offer", bytes(range(8)))


def decoded(rpc: bytes) -> Rpc:
    (piece,) = Cutter().feed(rpc)
    return decode_rpc(piece)


def bare(*parts: bytes) -> Rpc:
    return decode_rpc(b"".join(parts))


def test_everything_that_can_be_said_comes_back() -> None:
    rpc = Rpc(
        joined=("/a", "/b"),
        left=("/c",),
        messages=(MESSAGE, sign(ALICE, "/a", b"", bytes(8))),
        have=(("/a", (b"1" * 47, b"2")), ("/b", ())),
        want=(b"3", b"4" * 45),
        graft=("/a",),
        prune=(Prune("/b", 60), Prune("/c")),
    )
    assert decoded(encode_rpc(rpc)) == rpc


def test_a_subscription_and_a_graft_are_the_bytes_of_the_specification() -> None:
    assert encode_rpc(Rpc(joined=("/t",))) == bytes.fromhex("08 0a 06 08 01 12 02 2f74")
    assert encode_rpc(Rpc(graft=("/t",))) == bytes.fromhex("08 1a 06 1a 04 0a 02 2f74")
    assert encode_rpc(Rpc(prune=(Prune("/t", 60),))) == bytes.fromhex("0a 1a 08 22 06 0a 02 2f74 18 3c")


def test_the_signature_is_over_the_message_without_it_behind_a_prefix() -> None:
    body = encode_field(1, SENDER) + encode_field(2, b"an offer") + encode_field(3, bytes(range(8)))
    body += encode_field(4, TOPIC.encode())
    assert MESSAGE.signature == ALICE.sign_der(hashlib.sha256(b"libp2p-pubsub:" + body).digest())
    assert MESSAGE.packed == body + encode_field(5, MESSAGE.signature)
    assert genuine(MESSAGE)
    assert author(MESSAGE) == ALICE.address


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"another"},
        {"seqno": bytes(8)},
        {"topic": "/other"},
        {"sender": PeerId.from_public_key(key("bob").public_key).raw},
        {"sender": SENDER[:-1]},
        {"sender": b""},
        {"signature": b""},
        {"signature": MESSAGE.signature[:-1]},
        {"signature": bytes(72)},
    ],
)
def test_a_message_that_was_changed_is_not_genuine(changes: dict[str, object]) -> None:
    assert not genuine(msgspec.structs.replace(MESSAGE, **changes))


def test_an_author_of_another_kind_has_no_address() -> None:
    with pytest.raises(BadEndpoint):
        author(msgspec.structs.replace(MESSAGE, sender=b"\x00\x24\x08\x01\x12\x20" + bytes(32)))


def test_both_ways_of_naming_a_message_are_one() -> None:
    assert MESSAGE.id == SENDER + MESSAGE.seqno
    assert named(MESSAGE.id) == named(encode_public_key(ALICE.public_key) + MESSAGE.seqno)
    number = int.from_bytes(MESSAGE.seqno, "big")
    assert named(MESSAGE.id) == named(f"{PeerId.from_public_key(ALICE.public_key)}{number}".encode())  # rust-libp2p's
    for other in (b"1" * 53 + b"x", b"\xff" * 80, b"9" * 90, b"1" * 53 + b"9" * 20):
        assert len(named(other)) <= 45


PACKED = MESSAGE.packed
SAID = encode_field(2, PACKED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        PACKED + encode_field(4, b"/second/topic"),
        PACKED + encode_field(7, b"more"),
        PACKED + encode_count(9, 1),
        PACKED + encode_field(6, encode_public_key(key("bob").public_key)),
        sign(ALICE, TOPIC, b"", b"short").packed,
        sign(ALICE, TOPIC, bytes(MAX_GOSSIP_BYTES + 1), bytes(8)).packed,
        encode_field(1, SENDER) + encode_field(2, b"x") + encode_field(3, bytes(8)) + encode_field(5, bytes(70)),
        Message(bytes(65), b"", bytes(8), TOPIC, bytes(70)).packed,
        Message(SENDER, b"", bytes(8), TOPIC, bytes(81)).packed,
    ],
)
def test_a_message_of_another_form_is_counted_and_the_rest_is_read(body: bytes) -> None:
    assert bare(encode_field(2, body), SAID) == Rpc(messages=(MESSAGE,), broken=1)


def test_a_key_beside_the_id_that_holds_it_already_does_no_harm() -> None:
    with_key = PACKED + encode_field(6, encode_public_key(ALICE.public_key))
    assert bare(encode_field(2, with_key)) == Rpc(messages=(MESSAGE,))


def test_what_we_do_not_know_is_let_pass() -> None:
    idontwant = encode_field(3, encode_field(5, encode_field(1, b"some id")))
    assert bare(idontwant, encode_count(12, 7), b"\x79" + bytes(8), encode_field(13, b"new")) == Rpc()


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\xff" * 12,
        b"\x0b\x00",
        encode_count(2, 7),
        encode_field(1, encode_field(2, b"\xff\xfe")),
        encode_field(1, encode_field(2, bytes(257))),
        encode_field(3, encode_count(1, 1)),
        encode_field(3, encode_field(2, encode_count(1, 1))),
        encode_field(1, b"\x08\x01") * (MOST_PARTS // 2 + 1),
        encode_field(3, encode_field(2, encode_field(1, b"") * MOST_PARTS)),
    ],
)
def test_what_is_no_rpc_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_rpc(data)


def test_pieces_are_cut_wherever_they_were_torn_and_long_ones_are_refused_by_their_first_bytes() -> None:
    stream = b"".join(encode_number(size) + bytes([size % 256]) * size for size in (0, 1, 127, 128, 70_000))
    for step in (1, 7, 100_000):
        cutter = Cutter()
        pieces = [piece for at in range(0, len(stream), step) for piece in cutter.feed(stream[at : at + step])]
        assert [len(piece) for piece in pieces] == [0, 1, 127, 128, 70_000]
    for head in (encode_number(LONGEST_RPC + 1), b"\xff" * 5):
        with pytest.raises(ProtocolViolation):
            Cutter().feed(head)


def test_what_was_seen_is_remembered_for_its_time_and_within_its_room() -> None:
    seen = Seen(120.0, most=100)
    seen.add(b"first", 0.0)
    for second in range(1, 121):
        seen.add(b"%d" % (second % 10), float(second))
    assert seen.has(b"first")
    for second in range(121, 400):
        seen.add(b"%d" % (second % 10), float(second))
    assert not seen.has(b"first")
    for number in range(10_000):
        seen.add(b"flood %d" % number, 400.0)
        assert len(seen) <= 200
    assert seen.has(b"flood 9999")


def test_a_shelf_keeps_a_few_ticks_and_gives_each_only_so_often() -> None:
    shelf = Shelf(windows=3, most=1_000)
    messages = [Message(SENDER, b"x" * 100, bytes([number] * 8), TOPIC, b"") for number in range(30)]
    shelf.put(messages[0])
    shelf.tick()
    shelf.put(messages[1])
    assert shelf.recent(TOPIC, 1) == [messages[1].id]
    assert shelf.recent(TOPIC, 2) == [messages[0].id, messages[1].id]
    assert shelf.recent("/other", 2) == []
    for _ in range(3):
        assert shelf.take(named(messages[0].id), "me", 3) == messages[0]
    assert shelf.take(named(messages[0].id), "me", 3) is None
    assert shelf.take(named(messages[0].id), "you", 3) == messages[0]
    shelf.tick()
    shelf.tick()
    assert shelf.take(named(messages[0].id), "you", 3) is None
    for message in messages:
        shelf.put(message)
    assert len(shelf) == 10
    assert shelf.recent(TOPIC, 1) == [message.id for message in messages[-10:]]


def test_pieces_that_others_allow_each_other_are_passed_over_and_not_held() -> None:
    long, short = encode_number(100_000) + bytes(100_000), encode_number(3) + b"abc"
    for step in (1, 7, 4_096, 1 << 20):
        cutter, stream = Cutter(1_000, tolerated=100_000), short + long + long + short
        pieces = []
        for at in range(0, len(stream), step):
            pieces += cutter.feed(stream[at : at + step])
            assert len(cutter._held) < 1_000 + step + 8
        assert pieces == [b"abc", b"", b"", b"abc"]
    with pytest.raises(ProtocolViolation):
        Cutter(1_000, tolerated=100_000).feed(encode_number(100_001))


def test_both_forms_of_a_signature_are_its_authors_and_one_is_passed_on() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = MESSAGE.signature
    at = 4 + signature[3]
    first, second = signature[2:at], signature[at + 2 :]
    other = (order - int.from_bytes(second, "big")).to_bytes(33, "big")
    twin = b"\x30" + bytes([len(first) + 35]) + first + b"\x02\x21" + other
    assert proved(msgspec.structs.replace(MESSAGE, signature=twin)) == MESSAGE
    assert proved(msgspec.structs.replace(MESSAGE, signature=twin, data=b"other")) is None
