"""Whether our clock is off: most of those who count must agree, and nobody else has a say."""

from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading.core.clocks import MEMORY, MOST, NEAR, TELL, Clocks, Off
from lading_protocol.ids import Address

NOW, STEADY = 1_700_000_000.0, 50.0
WITNESSES = [key(f"witness {n}").address for n in range(9)]


def stranger(n: int) -> Address:
    return Address(n.to_bytes(20, "big"))


def told(*aheads: float, least: int = 3) -> Off | None:
    """What comes of witnesses whose clocks are so far ahead of ours."""
    clocks = Clocks(lambda peer: True, least)
    for peer, ahead in zip(WITNESSES, aheads, strict=False):
        clocks.note(peer, NOW + ahead, STEADY)
    return clocks.off(NOW, STEADY)


def test_most_must_agree_that_it_is_far_off() -> None:
    assert told(150, 149, 151) == Off(150, 3, 3)
    assert told(-150, -149, -151, 0) == Off(-149, 3, 4)
    assert told(150, 149) is None, "two are too few"
    assert told(150, 0, 0) is None
    assert told(150, 149, -400, 900) is None, "half of them is not most"
    assert told(TELL - 1, TELL - 1, TELL - 1) is None
    assert told(90, least=1) == Off(90, 1, 1)
    assert told(least=0) is None


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=6), st.lists(st.floats(-1e6, 1e6), max_size=1))
def test_a_liar_among_many_neither_makes_nor_hides_it(honest: list[float], lies: list[float]) -> None:
    assert told(*honest, *lies) is None
    off = told(*(600 + one for one in honest), *lies)
    assert off is not None
    assert abs(off.ahead - 600) <= NEAR
    assert off.agree >= len(honest) - 1


def test_who_does_not_count_takes_no_place() -> None:
    clocks = Clocks(lambda peer: peer in WITNESSES, 3)
    for peer in WITNESSES:
        clocks.note(peer, NOW + 200, STEADY)
    for n in range(3 * MOST):
        clocks.note(stranger(n), NOW, STEADY)
    assert clocks.off(NOW, STEADY) == Off(200, 9, 9)
    assert len(clocks._said) <= MOST
    everyone = Clocks(lambda peer: True, 3)
    for n in range(MOST + 10):
        everyone.note(stranger(n), NOW, STEADY)
    assert len(everyone._said) == MOST


def test_once_our_clock_is_set_nothing_is_wrong_any_more() -> None:
    clocks = Clocks(lambda peer: True, 3)
    for peer in WITNESSES:
        clocks.note(peer, NOW + 200, STEADY)
    assert clocks.off(NOW + 10, STEADY + 10) == Off(200, 9, 9)
    assert clocks.off(NOW + 215, STEADY + 15) is None
    assert clocks.off(NOW + MEMORY + 1, STEADY + MEMORY + 1) is None, "what was said long ago is forgotten"


def test_it_is_said_in_words() -> None:
    assert Off(-150, 14, 15).words("hosts").startswith("By the clocks of 14 of 15 hosts it is 150 s earlier than by")
