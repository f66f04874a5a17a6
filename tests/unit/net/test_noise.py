"""Noise XX against frozen messages of an independent implementation, and against tampering."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from lading_net import protobuf
from lading_net.direct.noise import MAX_PLAINTEXT, Credentials, Handshake, Opener, Sealer, check_payload
from lading_net.direct.xx import Exchange
from lading_net.errors import HandshakeFailed, ProtocolViolation
from lading_net.peer import encode_public_key
from lading_protocol.keys import PrivateKey

# Keys of the cacophony test vectors; the messages below were made with the noiseprotocol 0.3.1 package from these keys,
# an empty prologue and libp2p payloads of the identities 0x31..31 and 0x32..32.
INITIATOR_STATIC = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"
INITIATOR_EPHEMERAL = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"
RESPONDER_STATIC = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"
RESPONDER_EPHEMERAL = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"
FIRST = "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
SECOND_SHA256 = "f1aa49ccb6fea693fdfb1185e898b839f8ef2c1c3f3dde95ae2b83277eac3d08"
THIRD_SHA256 = "6dbf5bb4f53b1f4df0a9ff37b6482e642610868158fa03d7886281dc8086f7cc"
CHANNEL_HASH = "7b9ac8dddcf18b4e0f494727aca47a36649b69fd1f8a2b97a6c3da9a8377be0b"
SEALED_BY_INITIATOR = "1844f4582c1f84556ce75395454556c98c2e38b61770"
SEALED_BY_RESPONDER = "b97628d23dd29661f236f5169076ad444d998642f880"
# Those that cacophony and snow publish for this pattern.
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "noise_xx.json").read_text())


def x25519(text: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def sides() -> tuple[Handshake, Handshake]:
    one = Credentials(PrivateKey(b"1" * 32), x25519(INITIATOR_STATIC))
    two = Credentials(PrivateKey(b"2" * 32), x25519(RESPONDER_STATIC))
    return (
        Handshake(one, True, x25519(INITIATOR_EPHEMERAL)),
        Handshake(two, False, x25519(RESPONDER_EPHEMERAL)),
    )


def finished() -> tuple[Handshake, Handshake]:
    initiator, responder = sides()
    assert responder.receive(initiator.receive(responder.receive(initiator.start()))) == b""
    return initiator, responder


def test_every_message_equals_that_of_another_implementation() -> None:
    initiator, responder = sides()
    first = initiator.start()
    assert first.hex() == FIRST
    second = responder.receive(first)
    assert hashlib.sha256(second).hexdigest() == SECOND_SHA256
    third = initiator.receive(second)
    assert hashlib.sha256(third).hexdigest() == THIRD_SHA256
    assert responder.receive(third) == b""
    assert initiator.hash.hex() == responder.hash.hex() == CHANNEL_HASH
    assert initiator.sealer is not None
    assert responder.sealer is not None
    assert initiator.sealer.seal(b"lading")[1].hex() == SEALED_BY_INITIATOR
    assert responder.sealer.seal(b"lading") == (b"\0\x16", bytes.fromhex(SEALED_BY_RESPONDER))


def test_both_sides_learn_who_the_other_is() -> None:
    initiator, responder = finished()
    assert initiator.remote is not None
    assert responder.remote is not None
    assert initiator.remote.address == PrivateKey(b"2" * 32).address
    assert responder.remote.address == PrivateKey(b"1" * 32).address


@pytest.mark.parametrize("at", [0, 31, 32, 79, 80, 120, 207])
def test_any_altered_byte_of_the_second_message_ends_the_handshake(at: int) -> None:
    initiator, responder = sides()
    second = bytearray(responder.receive(initiator.start()))
    second[at] ^= 1
    with pytest.raises(HandshakeFailed):
        initiator.receive(bytes(second))


@pytest.mark.parametrize("message", [b"", b"x" * 31, b"x" * 32, b"x" * 100])
def test_a_short_or_random_second_message_is_refused(message: bytes) -> None:
    initiator, _ = sides()
    initiator.start()
    with pytest.raises(HandshakeFailed):
        initiator.receive(message)


def test_a_key_of_low_order_is_refused() -> None:
    _, responder = sides()
    with pytest.raises(HandshakeFailed, match="degenerate"):
        responder.receive(bytes(32))


def test_messages_out_of_turn_are_refused() -> None:
    initiator, _ = finished()
    with pytest.raises(HandshakeFailed, match="out of turn"):
        initiator.receive(b"x" * 200)


def test_a_signature_over_another_static_key_is_refused() -> None:
    stolen = Credentials(PrivateKey(b"1" * 32)).payload
    with pytest.raises(HandshakeFailed, match="could not prove"):
        check_payload(stolen, bytes(32))


def test_the_key_of_another_does_not_fit_the_signature() -> None:
    mine = Credentials(PrivateKey(b"1" * 32))
    signature = protobuf.decode_fields(mine.payload)[2][0]
    theirs = encode_public_key(PrivateKey(b"2" * 32).public_key)
    with pytest.raises(HandshakeFailed, match="could not prove"):
        check_payload(protobuf.encode_field(1, theirs) + protobuf.encode_field(2, signature), mine.static_public)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "malformed"),
        (b"\x0a", "malformed"),
        (b"\x0a\xff\xff\xff\xff\xff\x01", "malformed"),
        (protobuf.encode_field(1, b"\x08\x01\x12\x20" + bytes(32)), "Ed25519"),
        (protobuf.encode_field(1, encode_public_key(b"\x02" + b"\xff" * 32)), "could not prove"),
    ],
)
def test_a_bad_proof_of_identity_is_refused_in_words(payload: bytes, words: str) -> None:
    with pytest.raises(HandshakeFailed, match=words):
        check_payload(payload, bytes(32))


def test_an_unknown_extension_is_let_pass() -> None:
    mine = Credentials(PrivateKey(b"1" * 32))
    payload = mine.payload + protobuf.encode_field(4, protobuf.encode_field(2, b"/yamux/1.0.0"))
    assert check_payload(payload, mine.static_public) == mine.peer_id


@pytest.mark.parametrize("size", [0, 1, 200, MAX_PLAINTEXT])
def test_sealed_messages_open_in_order(size: int) -> None:
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    first, second = b"".join(sealer.seal(b"a" * size)), b"".join(sealer.seal(b"b"))
    assert opener.receive(first[:1]) == []
    assert opener.receive(first[1:] + second[:5]) == [b"a" * size]
    assert opener.receive(second[5:]) == [b"b"]


def test_a_replayed_swapped_or_altered_message_is_refused() -> None:
    sealer = Sealer(bytes(32))
    first, second = b"".join(sealer.seal(b"one")), b"".join(sealer.seal(b"two"))
    altered = first[:-1] + bytes([first[-1] ^ 1])
    for frames in (first + first, second, altered, b"\0\0", b"\0\x0fxxxxxxxxxxxxxxx"):
        with pytest.raises(ProtocolViolation):
            Opener(bytes(32)).receive(frames)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["from"])
def test_the_published_vectors(vector: dict[str, Any]) -> None:
    prologue = bytes.fromhex(vector["prologue"])
    initiator, responder = (
        Exchange(x25519(vector[f"{side}_static"]), side == "init", x25519(vector[f"{side}_ephemeral"]), prologue)
        for side in ("init", "resp")
    )
    messages = [(bytes.fromhex(payload), bytes.fromhex(wire)) for payload, wire in vector["messages"]]
    for number, (payload, wire) in enumerate(messages[:3]):
        sender, receiver = (initiator, responder) if number % 2 == 0 else (responder, initiator)
        assert sender.write(payload) == wire
        assert receiver.read(wire) == payload
    assert initiator.done
    assert initiator.hash == responder.hash
    assert vector["handshake_hash"] in ("", initiator.hash.hex())
    sealers = [Sealer(side.keys()[0]) for side in (initiator, responder)]
    for number, (payload, wire) in enumerate(messages[3:], 3):
        assert sealers[number % 2].seal(payload)[1] == wire
