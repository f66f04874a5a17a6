"""When streams may move: limits that follow the host, a budget that no crowd can overdraw, requests that kill."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from factories import chat_request, key
from lading.core.failover import Budget, Failover, Limits, Quarantine, deadly_key
from lading.core.pace import Pace
from lading_protocol.ids import Digest

LIMITS = Limits()
waits = st.floats(1e-5, 100.0)
A, B, C = (key(name).address for name in "abc")
KEY = Digest(bytes(32))


@given(st.lists(waits, min_size=1, max_size=400), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_bounds_its_share_of_the_waits_and_is_no_more_than_a_fifth_too_high(
    seen: list[float], share: float
) -> None:
    pace = Pace()
    for one in seen:
        pace.note(one)
    bound = pace.quantile(share)
    assert sum(one <= bound * 1.0001 for one in seen) >= share * len(seen) - 1e-6
    lower = sum(one < bound / 1.2 for one in seen)
    assert bound <= 1.2e-4 or lower < share * len(seen) + 1e-6


@given(st.lists(waits, min_size=1, max_size=50), waits)
def test_old_waits_fade(old: list[float], new: float) -> None:
    pace = Pace()
    for one in old:
        pace.note(one)
    for _ in range(20_000):
        pace.note(new)
    assert pace.total <= 1024
    assert new / 1.2 <= max(pace.quantile(0.99), 1e-4 * new) or new < 1e-4
    assert pace.quantile(0.99) <= max(new * 1.2, 1.2e-4)


@given(st.lists(waits, max_size=100), st.integers(0, 12))
def test_a_limit_is_within_its_bounds_and_at_least_doubles_until_the_most(seen: list[float], moved: int) -> None:
    failover = Failover(LIMITS)
    for one in seen:
        failover.gaps(A).note(one)
        failover.note_first(A, one, 1.0)
    for limit, least, most in (
        (lambda n: failover.gap_limit(A, n), LIMITS.least, LIMITS.between),
        (lambda n: failover.first_limit(A, 1.0, n), LIMITS.least_first, LIMITS.first),
    ):
        now, then = limit(moved), limit(moved + 1)
        assert least <= now <= most
        assert then == most or then >= 2 * now * 0.999
    if len(seen) < Failover.ENOUGH:
        assert failover.gap_limit(A, 0) == LIMITS.between
        assert failover.hedge_after(A, 1.0) is None


@given(st.lists(st.sampled_from(["begin", "take"]), max_size=3000))
def test_moves_never_outrun_the_streams_by_more_than_what_was_saved(steps: list[str]) -> None:
    budget = Budget(start=8.0, most=16.0)
    streams = moves = 0
    for step in steps:
        if step == "begin":
            streams += 1
            budget.begin()
        elif budget.take():
            moves += 1
        assert moves <= streams + 8
        assert budget.level <= 16
    assert budget.level >= 0


@given(st.integers(0, 400), st.integers(0, 400))
def test_who_moves_regardless_leaves_a_debt_that_later_streams_pay(forced: int, streams: int) -> None:
    budget = Budget(start=0.0, most=100.0)
    for _ in range(forced):
        budget.force()
    for _ in range(streams):
        budget.begin()
    taken = 0
    while budget.take():
        taken += 1
    assert taken == min(100, max(0, streams - min(forced, 100)))


@given(st.integers(0, 5), st.integers(0, 5))
def test_two_hosts_that_are_lost_at_the_same_token_bar_the_request_and_others_do_not(first: int, second: int) -> None:
    quarantine = Quarantine(300.0)
    quarantine.died(KEY, A, first, "link_lost", 0.0)
    assert quarantine.barred(KEY, 0.0) == 0
    quarantine.died(KEY, A, first, "link_lost", 1.0)
    assert quarantine.barred(KEY, 1.0) == 0, "one host is one host"
    quarantine.died(KEY, B, second, "link_lost", 2.0)
    assert (quarantine.barred(KEY, 2.0) == 300) is (second == first)
    assert quarantine.barred(KEY, 302.0) == 0


def test_two_engines_that_broke_by_their_own_word_are_enough_wherever_they_were() -> None:
    quarantine = Quarantine()
    quarantine.died(KEY, A, 3, "engine_crashed", 0.0)
    quarantine.died(KEY, B, 9, "engine_crashed", 1.0)
    assert quarantine.barred(KEY, 1.0) > 0
    quarantine.died(Digest(b"\1" * 32), A, 3, "engine_crashed", 0.0)
    quarantine.died(Digest(b"\1" * 32), C, 9, "link_lost", 1.0)
    assert quarantine.barred(Digest(b"\1" * 32), 1.0) == 0


def test_what_kills_kills_under_any_seed() -> None:
    one = chat_request()
    other = msgspec.structs.replace(one, sampler=msgspec.structs.replace(one.sampler, seed=b"\1" * 32))
    assert deadly_key(one) == deadly_key(other)
    assert deadly_key(one) != deadly_key(chat_request("Another prompt."))


@given(st.integers(1, 9000))
def test_the_quarantine_is_bounded(count: int) -> None:
    quarantine = Quarantine()
    for n in range(count):
        quarantine.died(Digest(n.to_bytes(32, "big")), A, 0, "link_lost", 0.0)
    assert len(quarantine) <= 4096
