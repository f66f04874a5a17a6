"""Who gives way: never an interactive job, a young one or one that was stopped often enough; never more than one."""

from hypothesis import given
from hypothesis import strategies as st

from lading_node.core.preemption import Occupant, Rules, begins, choose_victim, may_preempt
from lading_protocol.messages import BATCH, INTERACTIVE

RULES = Rules()
NOW = 1000.0
occupants = st.lists(
    st.builds(
        Occupant,
        key=st.integers(),
        band=st.sampled_from([INTERACTIVE, BATCH]),
        since=st.floats(NOW - 10, NOW),
        tokens=st.integers(0, 5000),
        preempted=st.integers(0, 5),
        slots=st.integers(1, 4),
    ),
    max_size=12,
    unique_by=lambda one: one.key,
)


@given(occupants)
def test_the_victim_may_be_stopped_and_costs_least_of_those_that_may(running: list[Occupant]) -> None:
    victim = choose_victim(running, INTERACTIVE, NOW, RULES)
    able = [one for one in running if may_preempt(one, INTERACTIVE, NOW, RULES)]
    assert (victim is None) is (not able)
    if victim is not None:
        assert victim.band == BATCH
        assert victim.preempted < 3
        assert NOW - victim.since >= 2
        assert all(victim.tokens * one.slots <= one.tokens * victim.slots for one in able)
        equal = [one for one in able if victim.tokens * one.slots == one.tokens * victim.slots]
        assert victim.since == max(one.since for one in equal)


@given(occupants)
def test_a_batch_job_stops_nobody(running: list[Occupant]) -> None:
    assert choose_victim(running, BATCH, NOW, RULES) is None


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80))
def test_a_batch_job_is_stopped_three_times_at_most_whatever_comes(pauses: list[float]) -> None:
    """A job under interactive ones that come at any moments: from its fourth start on it keeps its slot."""
    now, since, stopped = 0.0, 0.0, 0
    preempted_at: float | None = None
    for pause in pauses:
        now += pause
        if since < 0 and begins(BATCH, preempted_at, now, RULES):
            since = now
        if since >= 0 and choose_victim([Occupant(1, BATCH, since, 9, stopped)], INTERACTIVE, now, RULES):
            assert now - since >= 2
            stopped, since, preempted_at = stopped + 1, -1.0, now
    assert stopped <= 3


@given(st.floats(0, 100), st.floats(0, 100))
def test_an_interactive_job_never_waits_for_the_end_of_a_rush(at: float, later: float) -> None:
    assert begins(INTERACTIVE, at, at + later, RULES)
    assert begins(BATCH, at, at + later, RULES) is (at + later - at >= 2)
