"""Placement never over-commits a machine, prefers the least loaded one, and says why where nothing fits."""

from hypothesis import given
from hypothesis import strategies as st

from lading_node.core.placing import Need, Room, Taken, fits, place

names = st.sampled_from("abcdef")
rooms = st.lists(
    st.builds(
        Room,
        machine=names,
        cores=st.sampled_from([0.5, 1.0, 1.5, 2.0, 8.0]),
        memory=st.integers(0, 64),
        cards=st.lists(st.sampled_from(["x", "y", "z"]), unique=True).map(tuple),
    ),
    unique_by=lambda room: room.machine,
    max_size=4,
)
needs = st.lists(st.builds(Need, st.sampled_from([0.25, 1.0, 2.0]), st.integers(0, 40), st.booleans()), max_size=30)


@given(rooms, needs)
def test_no_machine_is_over_committed_and_no_card_has_two_tenants(rooms: list[Room], needs: list[Need]) -> None:
    taken: list[Taken] = []
    for need in needs:
        found = place(need, rooms, taken)
        if isinstance(found, str):
            assert found.endswith(".")
            assert fits(need, rooms, taken) == 0
            continue
        assert fits(need, rooms, taken) > 0
        taken.append(found)
    for room in rooms:
        held = [one for one in taken if one.machine == room.machine]
        assert sum(one.cores for one in held) <= room.cores + 1e-6
        assert sum(one.memory for one in held) <= room.memory
        cards = [one.card for one in held if one.card]
        assert len(cards) == len(set(cards))
        assert set(cards) <= set(room.cards)


@given(rooms, st.randoms())
def test_the_order_in_which_machines_are_told_changes_nothing(rooms: list[Room], random: object) -> None:
    shuffled = list(rooms)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place(Need(), rooms, []) == place(Need(), shuffled, [])


def test_the_least_loaded_machine_is_taken() -> None:
    small, large = Room("a", 2, 100), Room("b", 8, 100)
    taken: list[Taken] = []
    for _ in range(5):
        found = place(Need(), (small, large), taken)
        assert isinstance(found, Taken)
        taken.append(found)
    assert [one.machine for one in taken] == ["a", "b", "b", "b", "b"]
    full = (Taken("b", 0, 90),)
    assert place(Need(), (small, large), full) == Taken("a", 1, 0)


def test_a_refusal_names_what_each_machine_lacks() -> None:
    machines = (Room("a", 1, 1 << 30), Room("b", 4, 8 << 30), Room("c", 4, 1 << 40, ("x",)))
    taken = (Taken("a", 1, 0), Taken("c", 1, 0, "x"))
    assert place(Need(1, 16 << 30, True), machines, taken) == (
        "No machine of the pool has room for it (a: 0 of 1 cores are free; b: 8.0 of 8.0 GiB are free; "
        "c: none of 1 cards is free)."
    )
    assert place(Need(), (), ()) == "The pool has no machine right now."
