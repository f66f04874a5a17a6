"""The limits of the network as values: whatever is asked in whatever order, memory is bounded and the honest get in."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from lading_net.core.crowds import Crowd
from lading_net.core.guard import Guard, Limits
from lading_net.core.places import Place, diverse, place
from lading_net.core.quotas import Quotas, Rate
from lading_net.core.scores import Scores
from lading_protocol.ids import Address

FEW = settings(max_examples=60, deadline=None)
steps = st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3), st.floats(0.1, 5)), max_size=80)
public = st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))
hosts = (
    public | st.integers(0, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number))) | st.text(max_size=20)
)


@FEW
@given(steps)
def test_nobody_gets_more_than_the_rate_and_memory_is_bounded(script: list[tuple[int, float, float]]) -> None:
    rate, now = Rate(burst=5, second=2), 0.0
    quotas: Quotas[int] = Quotas(rate, keys=20)
    taken: dict[int, float] = {}
    for key, pause, amount in script:
        now += pause
        if quotas.take(key, now, amount):
            taken[key] = taken.get(key, 0.0) + amount
        elif amount <= rate.burst:
            assert 0 < quotas.wait(key, now, amount) <= amount / rate.second
        assert taken.get(key, 0.0) <= rate.burst + rate.second * now + 1e-6
        assert len(quotas) <= 20


@FEW
@given(st.integers(1, 8), st.lists(st.integers(0, 200), max_size=300))
def test_many_keys_cost_bounded_memory_and_a_new_one_is_let_in(most: int, keys: list[int]) -> None:
    quotas: Quotas[int] = Quotas(Rate(burst=1, second=0.001), keys=most)
    for number, key in enumerate(keys):
        quotas.take(key, float(number))
        assert len(quotas) <= most
    assert quotas.take(-1, float(len(keys)))


@FEW
@given(st.floats(0, 1000), st.floats(0, 50))
def test_a_charge_goes_into_debt_and_is_paid_off_in_time(amount: float, debt: float) -> None:
    rate = Rate(burst=10, second=1, debt=debt)
    quotas: Quotas[str] = Quotas(rate)
    quotas.charge("a", 0.0, amount)
    assert quotas.wait("a", 0.0) <= (1 + debt) / rate.second
    assert quotas.take("a", 1 + debt + 1e-6)


@FEW
@given(steps)
def test_scores_decay_and_bar_only_those_who_earned_it(script: list[tuple[int, float, float]]) -> None:
    scores: Scores[int] = Scores(limit=8, half_life=4, keys=6)
    now, sums = 0.0, dict[int, float]()
    for key, pause, points in script:
        now += pause
        sums[key] = sums.get(key, 0.0) + points
        scores.blame(key, points, now)
        assert len(scores) <= 6
        for each in range(10):
            assert 0 <= scores.score(each, now) <= sums.get(each, 0.0) + 1e-9
            wait = scores.barred_for(each, now)
            assert (wait > 0) == (scores.score(each, now) > 8)
            assert scores.score(each, now + wait) <= 8 + 1e-6
            assert wait <= 2 * 4  # four times the limit, at most
    assert scores.score(99, now) == 0


@FEW
@given(hosts)
def test_any_host_has_a_place_and_its_area_holds_its_machine(host: str) -> None:
    there = place(host)
    assert there.machine.startswith(there.area)
    assert place(host) == there


@FEW
@given(public | st.sampled_from(["0.0.0.1", "100.64.0.1", "172.32.0.1", "192.0.2.1", "198.20.0.1", "240.0.0.1"]))
def test_an_address_is_near_when_the_registry_says_that_it_is_private(host: str) -> None:
    address = ipaddress.IPv4Address(host)
    there = place(host)
    assert (there.machine, there.area, there.near) == (address.packed, address.packed[:2], address.is_private)


def test_places_of_one_owner_are_one_area() -> None:
    assert place("8.8.1.1").area == place("8.8.200.3").area != place("8.9.1.1").area
    assert place("2a00:1450:1:2::3").machine == place("2a00:1450:1:2:ffff::").machine
    assert place("2a00:1450:1:2::3").area == place("2a00:1450:9::").area
    assert place("::ffff:8.8.1.1") == place("8.8.1.1")
    assert [place(text).near for text in ("127.0.0.1", "10.1.1.1", "fe80::1%eth0", "8.8.8.8")] == [True] * 3 + [False]


def at(host: str) -> list[Place]:
    return [place(host)]


@FEW
@given(st.lists(public, max_size=60), st.lists(public, max_size=6), st.integers(1, 4))
def test_no_area_gets_more_than_its_share_of_those_we_choose(
    candidates: list[str], known: list[str], most: int
) -> None:
    chosen = diverse(candidates, at, [place(host) for host in known], most)
    far = [place(host).area for host in chosen if not place(host).near]
    already = [place(host).area for host in known]
    assert all(far.count(area) + already.count(area) <= max(most, already.count(area)) for area in set(far))
    assert [host for host in candidates if place(host).near] == [host for host in chosen if place(host).near]
    left_out = [place(host).area for host in candidates if host not in chosen]
    assert all(far.count(area) + already.count(area) >= most for area in left_out)


def test_an_eclipse_from_one_area_takes_few_of_our_places() -> None:
    attackers = [f"66.6.{number // 250}.{number % 250}" for number in range(1000)]
    honest = [f"{number}.20.0.1" for number in range(11, 31)]
    chosen = diverse(attackers + honest, at, [], 2)
    assert len(set(chosen) & set(attackers)) == 2
    assert set(honest) < set(chosen)
    everywhere = diverse(["liar"], lambda _: [place(honest[0]), place(attackers[0])], [place(one) for one in chosen], 2)
    assert everywhere == []


moves = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "leave"]), st.integers(0, 5), st.integers(0, 40)), max_size=90
)


@FEW
@given(moves, st.integers(1, 12))
def test_a_crowd_is_never_too_large_and_only_its_fullest_area_gives_way(
    script: list[tuple[str, int, int]], most: int
) -> None:
    crowd: Crowd[tuple[int, int]] = Crowd(most)
    inside: dict[tuple[int, int], bytes] = {}
    for what, area, number in script:
        member, where = (area, number), Place(bytes([area, number]), bytes([area]))
        if what == "leave":
            crowd.leave(member)
            inside.pop(member, None)
        elif member not in inside:
            sizes = [list(inside.values()).count(each) for each in set(inside.values())]
            leaving = crowd.enter(member, where, lambda one: one[1] % 3 != 0)
            assert len(leaving) <= 1
            assert bool(leaving) == (len(inside) >= most)
            inside[member] = where.area
            for one in leaving:
                home = inside.pop(one)
                assert one == member or list(inside.values()).count(home) + 1 >= max(sizes)
        assert len(crowd) == len(inside) <= most
        assert all(each in crowd for each in inside)


@FEW
@given(st.lists(st.tuples(st.integers(0, 255), st.floats(0, 0.2)), min_size=1, max_size=300))
def test_whatever_one_area_does_a_caller_from_elsewhere_is_let_in(flood: list[tuple[int, float]]) -> None:
    limits = Limits(
        handshakes=8, calls_of_machine=Rate(burst=4, second=1, debt=8), calls_of_area=Rate(burst=40, second=5)
    )
    guard: Guard[str, str] = Guard(limits)
    now, waiting = 0.0, set[str]()
    for number, (machine, pause) in enumerate(flood):
        now += pause
        caller = f"attacker {number}"
        where = place(f"66.6.0.{machine}")
        if guard.hears(where, now):
            waiting.add(caller)
            waiting -= set(guard.calls(caller, where))
        assert len(waiting) <= 8
        if number % 3 == 0:
            guard.failed(where, now)
        if number % 20 == 0:
            home = place(f"{number % 100 + 70}.1.2.3")
            assert guard.hears(home, now)
            assert guard.calls(f"honest {number}", home) != [f"honest {number}"]
            guard.called(f"honest {number}")
            waiting &= {each for each in waiting if each in guard._callers}


def test_a_peer_that_breaks_the_protocol_twice_is_left_alone_and_forgiven() -> None:
    guard: Guard[str, str] = Guard(Limits())
    peer = Address(b"p" * 20)
    guard.blame(peer, Limits().violation, 0.0)
    assert guard.barred_for(peer, 0.0) == 0
    guard.blame(peer, Limits().violation, 10.0)
    wait = guard.barred_for(peer, 10.0)
    assert 0 < wait < 3600
    assert guard.barred_for(peer, 10.0 + wait + 1) == 0


def test_we_call_nobody_too_often() -> None:
    limits = Limits(dials=Rate(burst=6, second=1), dials_of_machine=Rate(burst=2, second=1))
    guard: Guard[str, str] = Guard(limits)
    here, there = place("8.8.8.8"), place("9.9.9.9")
    assert [guard.dial_wait(here, 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert guard.dial_wait(there, 0.0) == 0
    assert guard.dial_wait(here, 1.0) == 0
