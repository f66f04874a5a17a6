"""Hosts that refuse one payer: asked last by it, for ever longer, and never remembered without bound."""

from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading.core.denials import LONGEST_SECONDS, MOST_HOSTS, MOST_PAYERS, Denials
from lading_protocol.ids import Address

PAYER, HOST = key("payer").address, key("host").address


def test_the_first_refusal_may_be_a_mishap_and_later_ones_last_ever_longer() -> None:
    denials, now = Denials(), 1000.0
    denials.note(PAYER, HOST, now)
    assert denials.hosts(PAYER, now) == set()
    for seconds in (1, 2, 4, 8):
        denials.note(PAYER, HOST, now)
        assert denials.hosts(PAYER, now + seconds - 0.1) == {HOST}
        assert denials.hosts(PAYER, now + seconds) == set()
    denials.forget(PAYER, HOST)
    denials.note(PAYER, HOST, now)
    assert denials.hosts(PAYER, now) == set(), "it has begun anew"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 50), st.booleans()), max_size=60))
def test_no_host_is_put_off_for_long_and_none_for_another_payer(script: list[tuple[int, int, float, bool]]) -> None:
    denials, now = Denials(), 0.0
    for payer, host, seconds, takes in script:
        now += seconds
        who, whom = Address(bytes([payer]) * 20), Address(bytes([host]) * 20)
        (denials.forget(who, whom) if takes else denials.note(who, whom, now))
        assert takes <= (whom not in denials.hosts(who, now))
    for payer in range(4):
        assert denials.hosts(Address(bytes([payer]) * 20), now + LONGEST_SECONDS) in ((), set())
    assert denials.hosts(Address(b"\xff" * 20), now) == ()


def test_what_is_remembered_is_bounded() -> None:
    denials = Denials()
    for n in range(MOST_PAYERS + 10):
        denials.note(Address(n.to_bytes(20, "big")), HOST, 0.0)
    for n in range(MOST_HOSTS + 10):
        denials.note(PAYER, Address(n.to_bytes(20, "big")), 0.0)
        denials.note(PAYER, Address(n.to_bytes(20, "big")), 0.0)
    assert len(denials._of) == MOST_PAYERS
    assert len(denials.hosts(PAYER, 0.0)) == MOST_HOSTS
