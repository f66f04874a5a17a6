"""How two ends agree on a protocol, byte by byte."""

import pytest

from lading_net.direct.multistream import HELLO, LONGEST, MOST_PROPOSALS, Dialler, Listener, proposal, token
from lading_net.errors import ProtocolViolation, UnknownProtocol

NAME = "/lading/job/1"


def listener() -> Listener:
    return Listener(lambda name: name == NAME)


def test_the_wire_form_is_that_of_the_specification() -> None:
    assert HELLO == b"\x13/multistream/1.0.0\n"
    assert token("na") == b"\x03na\n"
    assert proposal(NAME) == HELLO + b"\x0e/lading/job/1\n"


def test_a_lazy_dialler_is_understood_and_its_first_bytes_kept() -> None:
    side = listener()
    assert side.receive(proposal(NAME) + b"request") == b"request"
    assert (side.agreed, side.replies) == (NAME, token(NAME))
    assert Dialler(NAME).receive(HELLO + side.replies + b"answer") == b"answer"


def test_agreement_comes_through_one_byte_at_a_time() -> None:
    side, pending = listener(), proposal(NAME)
    outcomes = [side.receive(pending[at : at + 1]) for at in range(len(pending))]
    assert outcomes == [None] * (len(pending) - 1) + [b""]


def test_a_second_proposal_is_heard_after_the_first_was_declined() -> None:
    side = listener()
    assert side.receive(proposal("/other") + token(NAME)) == b""
    assert side.replies == token("na") + token(NAME)


def test_listing_is_declined() -> None:
    side = listener()
    assert side.receive(proposal("ls")) is None
    assert side.replies == token("na")


def test_a_declined_dialler_is_told_which_protocol() -> None:
    with pytest.raises(UnknownProtocol, match=NAME):
        Dialler(NAME).receive(HELLO + token("na"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\xff\xff\xff",
        b"\x81\x7f",
        token("/multistream/2.0.0"),
        token(NAME),
        HELLO + b"\x03ab\xff",
        HELLO + b"\x02\xff\n",
        b"GET / HTTP/1.1\r\n\r\n" + bytes(100),
        HELLO + token("/no") * MOST_PROPOSALS,
    ],
)
def test_what_is_not_multistream_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        listener().receive(data)
    with pytest.raises((ProtocolViolation, UnknownProtocol)):
        Dialler(NAME).receive(data if data != HELLO + token("/no") * MOST_PROPOSALS else HELLO + token("/no"))


def test_a_name_too_long_to_propose_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="at most"):
        token("x" * LONGEST)
