"""Limits that several processes keep together: never exceeded, never all one's own."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_coordinator.core.admission import Admission
from lading_coordinator.core.lanes import Band, Bounds, Room, Shed, Ticket
from lading_coordinator.core.shares import Allowed, Load, allowed
from lading_coordinator.workers.place import Place, Role
from lading_coordinator.workers.tally import Tally

LANE = b"agent"
AMPLE = Room(10_000, 10_000)
LOADS = st.lists(st.builds(Load, st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=7)


def gateways(path: Path, count: int, bounds: Bounds) -> list[Admission]:
    tallies = [Tally(path, Place(Role.WORKER, n, count), b"key") for n in range(count)]
    return [Admission(bounds, tally) for tally in tallies]


def ticket(tenant: str = "a") -> Ticket:
    return Ticket(tenant.encode(), LANE, Band.INTERACTIVE, 10, 100)


@given(st.integers(1, 100), LOADS)
def test_who_decides_alone_leaves_the_sum_within_the_limit(limit: int, others: list[Load]) -> None:
    found = allowed(Allowed(limit, limit), others)
    assert found.running + sum(one.running for one in others) <= max(limit, sum(one.running for one in others))
    assert found.waiting + sum(one.waiting for one in others) <= max(limit, sum(one.waiting for one in others))
    idle = [Load() for _ in others]
    assert allowed(Allowed(limit, limit), idle) == Allowed(limit, limit), "what nobody else wants is free"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 4))
def test_whatever_the_processes_do_their_limits_hold_together(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    rng = random.Random(seed)
    bounds = Bounds(all=7, queue=9, queue_each=5, waits=(1e9, 1e9), shed_from=(2.0, 2.0), shed_full=(3.0, 3.0))
    doors = gateways(tmp_path_factory.mktemp("tally") / "tally", count, bounds)
    live: list[tuple[Admission, Ticket]] = []
    for now in range(200):
        door = rng.choice(doors)
        if rng.random() < 0.6:
            one = ticket(rng.choice("abc"))
            answer = door.ask(one, AMPLE, now, 0.5)
            if not isinstance(answer, Shed):
                live.append((door, one))
        running = [pair for pair in live if pair[1].state == "running"]
        if running and rng.random() < 0.6:
            home, one = rng.choice(running)
            home.finish(one, 10, 100, now)
        door.next(LANE, AMPLE, now)
        states = [one.state for _, one in live]
        assert states.count("running") == sum(one.running for one in doors) <= 7
        assert states.count("waiting") == sum(one.waiting for one in doors) <= 9
        for tenant in (b"a", b"b", b"c"):
            assert sum(one.state == "waiting" and one.tenant == tenant for _, one in live) <= 5


def test_a_process_with_much_to_do_lets_another_have_its_share(tmp_path: Path) -> None:
    bounds = Bounds(all=10, queue=1000, queue_each=1000, waits=(1e9, 1e9), shed_from=(2.0, 2.0), shed_full=(3.0, 3.0))
    busy, calm = gateways(tmp_path / "tally", 2, bounds)
    flood = [ticket() for _ in range(100)]
    for one in flood:
        busy.ask(one, AMPLE, 0, 0.5)
    assert (busy.running, busy.waiting) == (10, 90), "alone it has everything"
    few = [ticket("b") for _ in range(8)]
    for one in few:
        calm.ask(one, AMPLE, 0, 0.5)
    assert calm.running == 0, "nobody is stopped for it"
    for now in range(1, 7):
        busy.finish(next(one for one in flood if one.state == "running"), 10, 100, now)
        busy.next(LANE, AMPLE, now)
        calm.next(LANE, AMPLE, now)
    assert (busy.running, calm.running) == (5, 5)
    for one in few:
        if one.state == "running":
            calm.finish(one, 10, 100, 9)
            calm.next(LANE, AMPLE, 9)
            busy.next(LANE, AMPLE, 9)
    for one in few:
        if one.state == "running":
            calm.finish(one, 10, 100, 10)
    busy.next(LANE, AMPLE, 11)
    assert (busy.running, calm.running) == (10, 0), "what it leaves is the others' again"


def test_the_counts_of_a_process_that_died_go_with_its_next_life(tmp_path: Path) -> None:
    bounds = Bounds(all=4, queue=4)
    dead, other = gateways(tmp_path / "tally", 2, bounds)
    for _ in range(4):
        dead.ask(ticket(), AMPLE, 0, 0)
    late = ticket()
    other.ask(late, AMPLE, 0, 0)
    assert late.state == "waiting"
    Tally(tmp_path / "tally", Place(Role.WORKER, 0, 2), b"key").close()
    assert other.next(LANE, AMPLE, 1) == [late]


def test_nobody_can_make_itself_an_address_that_fills_another_s_place(tmp_path: Path) -> None:
    """Who knew how payers are counted would let its own jobs wait in the place of a rival, at another process."""
    victim = b"v" * 20

    def shares_a_place(folder: str, key: bytes) -> set[bytes]:
        here, there = (Tally(tmp_path / folder, Place(Role.WORKER, n, 2), key) for n in range(2))
        found = set()
        for n in range(60_000):
            there.waits(other := n.to_bytes(20, "big"), 1)
            if here.elsewhere(victim):
                found.add(other)
            there.waits(other, -1)
        return found

    one = shares_a_place("one", b"one key")
    assert one, "they are as many as places are few"
    assert not one & shares_a_place("two", b"another")
