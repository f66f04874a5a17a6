"""Admission: fair shares, bands, gradual shedding, bounds, and hosts that were fuller than they said."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_coordinator.core.admission import Admission
from lading_coordinator.core.lanes import Band, Bounds, Room, Shed, Ticket

LANE = b"agent"
FULL = Room(4, 0)
PATIENT = Bounds(queue=10_000, queue_each=10_000, waits=(1e9, 1e9))


def ticket(
    tenant: str, band: Band = Band.INTERACTIVE, *, prompt: int = 10, output: int = 100, wish: bytes = b""
) -> Ticket:
    return Ticket(tenant.encode(), LANE, band, prompt, output, wish=wish)


def waiting(admission: Admission, *tickets: Ticket, now: float = 0.0) -> list[Ticket]:
    for one in tickets:
        assert admission.ask(one, FULL, now, 0.999) == []
        assert one.state == "waiting"
    return list(tickets)


def order(admission: Admission, count: int, *, now: float = 1.0) -> list[Ticket]:
    """Who starts when one slot is free at a time."""
    found = []
    for _ in range(count):
        (one,) = admission.next(LANE, Room(1, 1), now)
        found.append(one)
        admission.finish(one, one.prompt, one.output, now)
    return found


def test_with_room_nobody_waits() -> None:
    admission = Admission()
    first = ticket("a")
    assert admission.ask(first, Room(4, 4), 0, 0.0) == []
    assert first.state == "running"
    assert admission.load(LANE) == (1, 0)


def test_where_nobody_serves_nobody_waits() -> None:
    """The dispatcher then says of each host why not."""
    admission = Admission()
    lonely = ticket("a")
    admission.ask(lonely, Room(0, 0), 0, 0.0)
    assert lonely.state == "running"


def test_interactive_work_does_not_wait_where_a_batch_job_would_give_way() -> None:
    """Hosts that are full of batch work report no free slot: whoever waited for one would never be the one that they
    clear a slot for."""
    admission = Admission()
    slow = [ticket("b", Band.BATCH) for _ in range(4)]
    for one in slow:
        admission.ask(one, Room(4, 4), 0, 0.0)
    fast = [ticket("a") for _ in range(5)]
    for one in fast:
        admission.ask(one, FULL, 0, 0.0)
    assert [one.state for one in fast] == ["running"] * 4 + ["waiting"]
    late = ticket("b", Band.BATCH)
    admission.ask(late, FULL, 0, 0.0)
    assert late.state == "waiting"
    for one in slow:
        admission.finish(one, 10, 100, 1.0)
    admission.finish(fast[0], 10, 100, 9.0)
    assert admission.next(LANE, Room(4, 0), 9.0) == [fast[4]]


def test_interactive_goes_first_and_batch_has_its_turn() -> None:
    admission = Admission(Bounds(batch_turn=3))
    slow = waiting(admission, *(ticket("b", Band.BATCH) for _ in range(2)))
    fast = waiting(admission, *(ticket("a") for _ in range(6)))
    assert order(admission, 8) == [*fast[:3], slow[0], *fast[3:], slow[1]]


def test_a_light_tenant_does_not_wait_for_a_heavy_one() -> None:
    admission = Admission(PATIENT)
    waiting(admission, *(ticket("heavy") for _ in range(50)))
    (light,) = waiting(admission, ticket("light"))
    assert light in order(admission, 2)


def test_shares_are_of_tokens_not_of_jobs() -> None:
    admission = Admission(PATIENT)
    long = waiting(admission, *(ticket("long", output=100) for _ in range(40)))
    short = waiting(admission, *(ticket("short", output=10, prompt=1) for _ in range(200)))
    served = order(admission, 110)
    tokens = {
        name: sum(one.prompt + 2 * one.output for one in served if one in group)
        for name, group in {"long": long, "short": short}.items()
    }
    assert tokens["long"] == pytest.approx(tokens["short"], abs=300)


def test_who_rested_gets_no_credit() -> None:
    admission = Admission(PATIENT)
    waiting(admission, *(ticket("steady") for _ in range(40)))
    order(admission, 20)
    waiting(admission, *(ticket("back") for _ in range(20)))
    after = order(admission, 20)
    assert 8 <= sum(one.tenant == b"back" for one in after) <= 12


def test_an_expected_length_is_made_good() -> None:
    """Two tenants ask for the same bound; one uses a hundredth of it, and gets its share in what it uses."""
    admission = Admission(PATIENT)
    for _ in range(60):
        waiting(admission, ticket("terse", output=1000), ticket("wordy", output=1000))
    used = {b"terse": 0, b"wordy": 0}
    for turn in range(60):
        (one,) = admission.next(LANE, Room(1, 1), float(turn))
        output = 10 if one.tenant == b"terse" else 100
        used[one.tenant] += 10 + 2 * output
        admission.finish(one, 10, output, float(turn))
    assert used[b"terse"] == pytest.approx(used[b"wordy"], abs=600)


def test_shedding_rises_with_the_wait_and_begins_with_batch() -> None:
    def chances(band: Band) -> list[float]:
        found = []
        for filled in range(0, 200, 20):
            admission = Admission(Bounds(queue=200, queue_each=1000, waits=(1e9, 1e9)))
            rng = random.Random(filled)
            for i in range(filled):
                waiting(admission, ticket(f"t{i}"))
            shed = 0
            for _ in range(300):
                one = ticket("new", band)
                if isinstance(admission.ask(one, FULL, 0, rng.random()), Shed):
                    shed += 1
                else:
                    admission.leave(one)
            found.append(shed / 300)
        return found

    fast, slow = chances(Band.INTERACTIVE), chances(Band.BATCH)
    for found in (fast, slow):
        assert found[0] == 0
        assert max(b - a for a, b in pairwise(found)) < 0.4, "no cliff"
        assert found == sorted(found) or max(a - b for a, b in pairwise(found)) < 0.05
    assert all(b >= a for a, b in zip(fast, slow, strict=True))
    assert slow[-1] == 1.0
    assert fast[4] < 0.1 < slow[4]


def test_a_full_queue_makes_way_for_who_has_little_in_it() -> None:
    admission = Admission(
        Bounds(queue=20, queue_each=100, waits=(1e9, 1e9), shed_from=(0.9, 0.9), shed_full=(2.0, 2.0))
    )
    slow = waiting(admission, *(ticket("greedy", Band.BATCH) for _ in range(10)))
    waiting(admission, *(ticket("greedy") for _ in range(10)))
    modest = ticket("modest")
    assert admission.ask(modest, FULL, 5, 0.9) == [slow[-1]]
    assert slow[-1].state == "gone"
    assert modest.state == "waiting"
    refused = admission.ask(ticket("greedy"), FULL, 5, 0.9)
    assert isinstance(refused, Shed)
    assert refused.code == "queue_full"
    assert admission.waiting == 20


def test_retry_after_follows_the_drain() -> None:
    """Four run, each for 8 s: the queue drains by one every 2 s."""
    admission = Admission(Bounds(queue_each=60, waits=(20.0, 20.0), shed_from=(0.5, 0.5), shed_full=(0.6, 0.6)))
    running = [ticket("a") for _ in range(4)]
    for one in running:
        admission.ask(one, Room(4, 4), 0, 0)
    for turn in range(1, 60):
        one = running.pop(0)
        admission.finish(one, 10, 100, one.started + 8.0)
        new = ticket("a")
        admission.ask(new, Room(4, 4), 8.0 * turn, 0)
        running.append(new)
    answers: list[object] = []
    for _ in range(20):
        answers.append(admission.ask(ticket("a"), FULL, 500.0, 0.999))
        if isinstance(answers[-1], Shed):
            break
    assert isinstance(answers[-1], Shed)
    places = len(answers) - 1
    assert answers[-1].retry == pytest.approx(2 * (places + 1) - 10, abs=2)


def test_who_waits_too_long_is_turned_away() -> None:
    admission = Admission(Bounds(waits=(5.0, 50.0)))
    (fast,) = waiting(admission, ticket("a"))
    (slow,) = waiting(admission, ticket("a", Band.BATCH))
    assert admission.late(4.9) == []
    ((gone, shed),) = admission.late(5.0)
    assert gone is fast
    assert (shed.code, shed.retry >= 1) == ("waited", True)
    assert [one for one, _ in admission.late(60.0)] == [slow]
    assert admission.waiting == 0


def test_hosts_that_were_full_after_all_are_asked_by_one_at_a_time() -> None:
    admission = Admission()
    first, second, third = ticket("a"), ticket("b"), ticket("c")
    admission.ask(first, Room(4, 4), 0, 0)
    admission.refused(first, 0)
    assert first.state == "waiting"
    admission.ask(second, Room(4, 4), 0, 1)
    admission.ask(third, Room(4, 4), 0, 1)
    assert [second.state, third.state] == ["waiting", "waiting"]
    assert admission.next(LANE, Room(4, 4), 1) == [second], "what the first one wants may be what nobody has"
    assert admission.next(LANE, Room(4, 4), 1) == []
    admission.taken(second)
    assert admission.next(LANE, Room(4, 4), 1) == [first, third], "the refusal cost it nothing, its place included"
    admission.refused(first, 2)
    assert admission.next(LANE, FULL, 2.01) == [], "they say that they are full"
    assert admission.next(LANE, FULL, 2.06) == [first]


def test_who_insists_on_hosts_that_are_full_stops_nobody_else() -> None:
    admission = Admission(PATIENT)
    picky = [ticket("picky", wish=b"%d" % n) for n in range(3)]
    for one in picky:
        admission.ask(one, Room(40, 40), 0, 0)
        admission.refused(one, 0)
    for n in range(200):
        now = n / 20
        plain = ticket("a")
        admission.ask(plain, Room(40, 40), now, 0)
        started = admission.next(LANE, Room(40, 40), now)
        assert plain.state == "running"
        looking = [one for one in started if one is not plain]
        assert len(looking) <= 1, "one at a time finds out whether there is room again"
        admission.taken(plain)
        for one in looking:
            admission.refused(one, now)
        admission.finish(plain, 10, 100, now)
        if n > 10:
            assert len({id(one) for one in picky if one.state == "waiting"}) == 3
    (first,) = admission.next(LANE, Room(40, 40), 11)
    admission.taken(first)
    assert first in picky


def test_what_one_tenant_alone_wants_stops_no_other_tenant() -> None:
    """Nothing tells that it wants something else: what it can pay, for example, may suffice for one host only."""
    admission = Admission(PATIENT)
    odd = [ticket("odd") for _ in range(20)]
    for one in odd:
        admission.ask(one, Room(40, 40), 0, 0)
        admission.refused(one, 0)
    worst = 0
    for n in range(40):
        plain, rounds = ticket("a"), 0
        admission.ask(plain, Room(40, 40), n, 0)
        while plain.state == "waiting":
            for one in admission.next(LANE, Room(40, 40), n):
                if one.tenant == b"odd":
                    admission.refused(one, n)
            rounds += 1
        admission.taken(plain)
        admission.finish(plain, 10, 100, n)
        for one in admission.next(LANE, Room(40, 40), n):
            admission.refused(one, n)
        worst = max(worst, rounds)
    assert worst <= 2


def test_many_wishes_of_one_tenant_shed_nobody_else() -> None:
    admission = Admission(Bounds(queue=200, queue_each=150, waits=(20.0, 20.0)))
    for n in range(150):
        admission.ask(ticket("picky", wish=b"%d" % n), FULL, 0, 0.999)
    for n in range(5):
        assert admission.ask(ticket(f"t{n}"), FULL, 0, 0.5) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "next", "finish", "refused", "leave", "late"]),
        st.integers(0, 5),
        st.sampled_from(Band),
        st.integers(0, 4),
        st.floats(0, 0.999),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_the_counts_are_right_and_nobody_is_lost(
    steps: list[tuple[str, int, Band, int, float]],
) -> None:
    admission = Admission(Bounds(all=6, queue=8, queue_each=4, waits=(3.0, 6.0), batch_turn=2))
    live: list[Ticket] = []
    for now, (what, who, band, room, roll) in enumerate(steps):
        running = [one for one in live if one.state == "running"]
        queued = [one for one in live if one.state == "waiting"]
        if what == "ask":
            one = Ticket(b"%d" % (who % 3), b"%d" % (who // 3), band, 10, 50, wish=b"%d" % room)
            answer = admission.ask(one, Room(4, room), now, roll)
            if not isinstance(answer, Shed):
                live.append(one)
                assert all(victim.state == "gone" for victim in answer)
        elif what == "next":
            for one in admission.next(b"%d" % (who % 2), Room(4, room), now):
                assert one.state == "running"
        elif what in ("finish", "refused") and running:
            one = running[who % len(running)]
            if what == "finish":
                admission.finish(one, 5, who * 20, now)
            else:
                admission.refused(one, now)
        elif what == "leave" and queued:
            admission.leave(queued[who % len(queued)])
        elif what == "late":
            admission.late(now)
        states = [one.state for one in live]
        assert admission.running == states.count("running") <= 6
        assert admission.waiting == states.count("waiting")
        assert sum(admission.load(b"%d" % lane)[1] for lane in range(2)) == admission.waiting
    for _ in range(400):  # as room comes, everybody who waits is served
        for lane in (b"0", b"1"):
            for one in admission.next(lane, Room(4, 4), 1e3):
                admission.taken(one)
        for one in live:
            if one.state == "running":
                admission.finish(one, 5, 5, 1e3)
    assert admission.waiting == admission.running == 0


def test_tenants_that_came_once_are_not_remembered_for_ever() -> None:
    """Each was ahead of all others when it went, for it had just been served."""
    admission = Admission(PATIENT)
    room = Room(10, 10)
    for now in range(20_000):
        one = ticket(f"payer {now}")
        admission.ask(one, room, now, 0.0)
        admission.finish(one, 10, 100, now)
    assert len(admission._tenants) <= 2048
