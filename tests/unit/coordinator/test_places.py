"""Places for offers by hearsay: bounded, and none that a free name takes is missing to who has a stake."""

from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.core.places import COUNTED_AT_ONCE, Places
from lading_protocol.ids import Address

MOST, OF_STRANGERS, EACH = 40, 10, 3


def name(n: int) -> Address:
    return Address(n.to_bytes(20, "big"))


steps = st.lists(st.tuples(st.sampled_from(["offer", "expire", "stake", "unstake", "count"]), st.integers(0, 30)))


@given(steps)
def test_strangers_never_leave_less_room_than_is_set_aside(steps: list[tuple[str, int]]) -> None:
    places = Places(MOST, OF_STRANGERS)
    kept: dict[Address, int] = {}
    staked: set[Address] = set()
    for what, n in steps:
        host = name(n)
        match what:
            case "offer" if kept.get(host, 0) < EACH and places.free(stranger=host not in staked):
                kept[host] = kept.get(host, 0) + 1
                places.take(host, kept[host], stranger=host not in staked)
            case "expire":
                kept.pop(host, None)
            case "stake":
                staked.add(host)
            case "unstake":
                staked.discard(host)
            case "count":
                places.recount(lambda one: kept.get(one, 0), lambda one: one not in staked)
        assert sum(kept.values()) <= places.total <= MOST
    places.recount(lambda one: kept.get(one, 0), lambda one: one not in staked)
    places.recount(lambda one: kept.get(one, 0), lambda one: one not in staked)
    assert places.total == sum(kept.values())


def test_a_flood_of_free_names_leaves_the_rest_to_those_with_a_stake() -> None:
    places = Places(MOST, OF_STRANGERS)
    for n in range(1000):
        if places.free(stranger=True):
            places.take(name(n), 1, stranger=True)
    assert places.total == OF_STRANGERS
    for n in range(1000, 2000):
        if places.free(stranger=False):
            places.take(name(n), 1, stranger=False)
    assert places.total == MOST
    assert not places.free(stranger=True)
    places.recount(lambda host: 0, lambda host: True)
    assert places.total == 0


def test_many_are_counted_a_part_at_a_time() -> None:
    places = Places(10_000, 10_000)
    for n in range(3 * COUNTED_AT_ONCE):
        places.take(name(n), 1, stranger=True)
    asked: list[Address] = []
    for turn in range(1, 4):
        places.recount(lambda host: asked.append(host) or 1, lambda host: True)  # type: ignore[func-returns-value]
        assert len(asked) == turn * COUNTED_AT_ONCE
    assert len(set(asked)) == 3 * COUNTED_AT_ONCE
