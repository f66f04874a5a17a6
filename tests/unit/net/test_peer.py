"""One key, three names; and endpoints as text."""

import pytest

from lading_net import protobuf
from lading_net.binaddr import decode_endpoint, encode_endpoint
from lading_net.errors import BadEndpoint, HandshakeFailed
from lading_net.peer import Endpoint, PeerId, base58_decode, base58_encode, decode_public_key, encode_public_key
from lading_protocol.keys import PrivateKey

KEY = PrivateKey(b"1" * 32)
PEER = "16Uiu2HAmKjcTL68FR93fPQ51ouHyD8TpZKj2FmdCTozLQh5b7369"  # as py-libp2p names the same key
ED25519 = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


def test_one_key_has_one_peer_id_and_one_address() -> None:
    peer = PeerId.from_public_key(KEY.public_key)
    assert str(peer) == PEER
    assert PeerId.from_text(PEER) == peer
    assert peer.public_key == KEY.public_key
    assert peer.address == KEY.address


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\0", "1"), (b"\0\0a", "112g"), (b"hello world", "StV1DL6CwTryKyV")],
)
def test_base58(data: bytes, text: str) -> None:
    assert base58_encode(data) == text
    assert base58_decode(text) == data


@pytest.mark.parametrize("text", ["", ED25519, PEER[:-1], PEER + "1", "0OIl", "z" * 5000, PEER[:20] + "é" + PEER[21:]])
def test_what_names_no_secp256k1_peer_is_refused(text: str) -> None:
    with pytest.raises(BadEndpoint):
        PeerId.from_text(text)


def test_a_peer_id_whose_key_is_off_the_curve_is_refused() -> None:
    raw = b"\x00\x25" + encode_public_key(b"\x02" + b"\xff" * 32)
    with pytest.raises(BadEndpoint):
        PeerId.from_text(base58_encode(raw))


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/4101",
        f"/ip4/203.0.113.7/tcp/65535/p2p/{PEER}",
        "/ip6/::1/tcp/0",
        "/dns4/node.example.org/tcp/4101",
        f"/dns/node-1.example.org/tcp/1/p2p/{PEER}",
    ],
)
def test_endpoints_round_trip(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


def test_the_old_name_of_p2p_is_understood() -> None:
    assert Endpoint.parse(f"/ip4/1.2.3.4/tcp/1/ipfs/{PEER}").peer == PeerId.from_text(PEER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "127.0.0.1:4101",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/4101",
        "/ip4/127.0.0.1/udp/4101/quic-v1",
        "/ip4/127.0.0.1/tcp/4101/ws",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/٣",
        "/ip4/127.0.0.1/tcp/",
        "/ip4/300.0.0.1/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/127.0.0.1/tcp/1",
        "/dns4//tcp/1",
        "/dns4/a b/tcp/1",
        "/ip4/127.0.0.1/tcp/1/p2p/",
        f"/ip4/127.0.0.1/tcp/1/p2p/{ED25519}",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit",
        f"/ip4/127.0.0.1/tcp/1/memory/{PEER}",
        "x" * 10_000,
    ],
)
def test_what_is_not_a_tcp_multiaddr_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadEndpoint) as refusal:
        Endpoint.parse(text)
    assert refusal.value.code == "net_bad_endpoint"
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/203.0.113.7/tcp/4101",
        f"/ip6/2001:db8::7/tcp/4101/p2p/{PEER}",
        f"/dns4/relay.example.org/tcp/65535/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
    ],
)
def test_endpoints_in_text_and_in_binary(text: str) -> None:
    endpoint = Endpoint.parse(text)
    assert str(endpoint) == text
    data = encode_endpoint(endpoint)
    assert decode_endpoint(data) == endpoint
    for size in range(len(data)):
        try:
            assert len(str(decode_endpoint(data[:size]))) < len(text)
        except BadEndpoint:
            continue


def test_a_relays_own_endpoint() -> None:
    endpoint = Endpoint.parse(f"/ip4/203.0.113.7/tcp/4101/p2p/{PEER}/p2p-circuit/p2p/{PEER}")
    assert str(endpoint.relay) == f"/ip4/203.0.113.7/tcp/4101/p2p/{PEER}"


@pytest.mark.parametrize(
    "data", [b"", b"\x04", b"\x04\x7f\0\0\1\x91\x02\0\1", b"\xff\xff\xff\xff\xff\xff", b"\x35\x02a"]
)
def test_what_is_no_tcp_address_in_binary_is_refused(data: bytes) -> None:
    with pytest.raises(BadEndpoint):
        decode_endpoint(data)


@pytest.mark.parametrize("encoded", [b"", b"\x08\x02", encode_public_key(KEY.public_key) + b"x", b"\x08\x01\x12\x20"])
def test_what_is_no_secp256k1_key_is_refused(encoded: bytes) -> None:
    with pytest.raises(HandshakeFailed):
        decode_public_key(encoded)


@pytest.mark.parametrize(("value", "data"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_numbers(value: int, data: bytes) -> None:
    assert protobuf.encode_number(value) == data
    assert protobuf.decode_number(b"x" + data, 1) == (value, 1 + len(data))
    assert protobuf.decode_number(data[:-1], 0) is None


def test_fields_of_other_kinds_are_skipped() -> None:
    data = b"\x18\x96\x01" + b"\x21" + bytes(8) + b"\x2d" + bytes(4) + protobuf.encode_field(6, b"six")
    assert protobuf.decode_fields(data) == {6: [b"six"]}


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05abc", b"\x1b", b"\x21abc", b"\x80", b"\xff" * 20])
def test_a_cut_or_unknown_field_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        protobuf.decode_fields(data)
