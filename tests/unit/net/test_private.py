"""The protector of a private network, against an independent XSalsa20 and against whoever lacks the key."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_net.direct import DirectSettings
from lading_net.direct.multistream import proposal
from lading_net.errors import BadNetworkKey, HandshakeFailed
from lading_net.private import GREETING, NONCE_SIZE, NetworkKey, Protector, _hsalsa20, make_key

bindings = pytest.importorskip("nacl.bindings")
SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
KEY = NetworkKey(SECRET)
cuts = st.lists(st.integers(1, 60), max_size=12)


def ends(other: NetworkKey = KEY) -> tuple[Protector, Protector]:
    return Protector(KEY, True, b"a" * NONCE_SIZE), Protector(other, False, b"b" * NONCE_SIZE)


def test_the_derived_key_is_that_of_the_paper() -> None:
    """NaCl's firstkey, from the shared secret of its tests."""
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert _hsalsa20(shared, bytes(16)).hex() == "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.binary(max_size=300), cuts)
def test_the_stream_is_that_of_libsodium_however_it_is_cut(
    secret: bytes, nonce: bytes, data: bytes, cutting: list[int]
) -> None:
    cipher, out, rest = NetworkKey(secret).cipher(nonce), cipher_start(secret, nonce), data
    assert cipher(bytes(32)) == out
    hidden = b""
    for size in [*cutting, len(data)]:
        part, rest = rest[:size], rest[size:]
        hidden += cipher(part) if part else b""
    assert hidden == bindings.crypto_secretbox(data, nonce, secret)[16:]


def cipher_start(secret: bytes, nonce: bytes) -> bytes:
    """The first 32 bytes of the stream, which libsodium's box spends on its authenticator: XSalsa20 by its parts."""
    from Crypto.Cipher import Salsa20

    return Salsa20.new(key=_hsalsa20(secret, nonce[:16]), nonce=nonce[16:]).encrypt(bytes(32))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), cuts)
def test_two_members_understand_each_other_however_the_bytes_are_cut(data: bytes, cutting: list[int]) -> None:
    near, far = ends()
    assert far.send(GREETING) == b""  # held until the caller has shown the key
    wire, got, answers = near.send(proposal("/noise") + data), b"", b""
    for size in [*cutting, len(wire)]:
        part, wire = wire[:size], wire[size:]
        said, answer = far.receive(part) if part else (b"", b"")
        got, answers = got + said, answers + answer
    assert got == proposal("/noise") + data
    assert near.receive(answers) == (GREETING, b"")


def test_one_who_waits_for_the_nonce_alone_gets_it_and_no_more() -> None:
    near, far = ends()
    assert far.send(GREETING) == b""
    first = near.send(proposal("/noise"))
    assert far.receive(first[:NONCE_SIZE]) == (b"", b"b" * NONCE_SIZE)
    said, answer = far.receive(first[NONCE_SIZE:])
    assert said == proposal("/noise")
    assert near.receive(b"b" * NONCE_SIZE + answer) == (GREETING, b"")


PROBES = [
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    proposal("/noise"),
    b"SSH-2.0-OpenSSH_9.6 and some more\r\n",
    bytes(70_000),
]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_without_the_key_gets_no_byte(probe: bytes) -> None:
    _, far = ends()
    far.send(GREETING)
    with pytest.raises(HandshakeFailed, match="without the key"):
        far.receive(probe)


def test_a_member_of_another_network_gets_no_byte() -> None:
    near, far = ends(NetworkKey(OTHER))
    far.send(GREETING)
    with pytest.raises(HandshakeFailed):
        far.receive(near.send(proposal("/noise")))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_whatever_a_stranger_says_only_a_nonce_can_come_back(parts: list[bytes]) -> None:
    _, far = ends()
    far.send(GREETING)
    answers = b""
    try:
        for part in parts:
            answers += far.receive(part)[1]
    except HandshakeFailed:
        pass
    assert answers in (b"", b"b" * NONCE_SIZE)


def test_a_key_is_written_once_read_back_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadNetworkKey, match="exists"):
        make_key(path)
    made = NetworkKey.load(path)
    secret = made.text().split()[-1]
    for shown in (repr(made), str(made), repr(DirectSettings(network=made)), f"{made}"):
        assert secret not in shown
        assert "NetworkKey" in shown


@pytest.mark.parametrize(
    "text", ["", "0" * 64, "/key/swarm/psk/1.0.0/\n/base16/\nzz", "/key/swarm/psk/1.0.0/\n/base16/\n" + "ab" * 31]
)
def test_a_file_that_is_no_key_is_named_and_not_repeated(text: str, tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    path.write_text(text)
    with pytest.raises(BadNetworkKey, match=r"swarm\.key") as refusal:
        NetworkKey.load(path)
    assert "abab" not in str(refusal.value)
    with pytest.raises(BadNetworkKey, match="cannot be read"):
        NetworkKey.load(tmp_path / "none")
