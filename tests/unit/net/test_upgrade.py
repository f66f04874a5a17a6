"""The way from a bare connection to a proven one, and the ways off it."""

import pytest

from lading_net.direct import multistream
from lading_net.direct.noise import Credentials
from lading_net.direct.upgrade import Upgrade
from lading_net.errors import HandshakeFailed, WrongPeer
from lading_protocol.ids import Address
from unit.net.wire import ONE, TWO, upgrade_pair


def dialler(expect: Address | None = None) -> Upgrade:
    return Upgrade(Credentials(ONE), True, expect)


def listener() -> Upgrade:
    return Upgrade(Credentials(TWO), False)


def up(side: Upgrade) -> bool:
    return side.remote is not None


@pytest.mark.parametrize("chunk", [1, 2, 7, 100, 1 << 20])
def test_both_sides_agree_however_the_bytes_are_cut(chunk: int) -> None:
    first, second = dialler(TWO.address), listener()
    upgrade_pair(first, second, chunk)
    assert first.remote is not None
    assert second.remote is not None
    assert (first.remote.address, second.remote.address) == (TWO.address, ONE.address)
    assert second.opener.receive(b"".join(first.sealer.seal(b"through"))) == [b"through"]
    assert first.opener.receive(b"".join(second.sealer.seal(b"and back"))) == [b"and back"]


def test_the_dialler_needs_two_round_trips() -> None:
    first, second = dialler(), listener()
    hello = second.start()
    answer = second.receive(first.start())
    last = first.receive(hello + answer)
    assert not up(second)
    answer = second.receive(last)
    assert up(second)
    assert not up(first)
    assert first.receive(answer) == b""
    assert up(first)


def test_first_bytes_behind_the_agreement_are_kept() -> None:
    first, second = dialler(), listener()
    last = first.receive(second.start() + second.receive(first.start()))
    second.receive(last + b"".join(first.sealer.seal(b"eager")))
    assert second.rest == b"eager"


def test_another_peer_than_expected_is_refused_before_it_learns_who_asks() -> None:
    first, second = dialler(ONE.address), listener()
    hello, answer = second.start(), second.receive(first.start())
    with pytest.raises(WrongPeer, match=TWO.address.hex()):
        first.receive(hello + answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        multistream.HELLO + multistream.NOT_AVAILABLE,
        multistream.proposal("/noise") + b"\xff\xff",
        multistream.proposal("/noise") + b"\x00\x05hello",
        multistream.proposal("/tls/1.0.0"),
    ],
)
def test_a_peer_that_speaks_something_else_is_named_a_failed_handshake(answer: bytes) -> None:
    first = dialler()
    first.start()
    with pytest.raises(HandshakeFailed):
        first.receive(answer)


@pytest.mark.parametrize("said", [b"", multistream.HELLO[:-1], multistream.HELLO, multistream.proposal("/noise")])
def test_a_caller_gets_no_more_than_it_says_itself(said: bytes) -> None:
    second = listener()
    assert second.start() == b""
    answer = second.receive(said) if said else b""
    assert answer == (said if said.endswith(b"\n") else b"")
    assert second._handshake is None  # whose keys cost more than all that was said so far


def test_a_dialler_that_knows_no_noise_is_declined_and_may_try_again() -> None:
    second = listener()
    assert second.receive(multistream.proposal("/tls/1.0.0")) == multistream.HELLO + multistream.NOT_AVAILABLE
    assert second.receive(multistream.token("/noise")) == multistream.token("/noise")
