"""The policy of audits as values: whom to ask, when to conclude, and what a dispute needs next."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.core.audits import (
    OPENING_TRIES,
    Asked,
    AskNext,
    Conclude,
    Opinion,
    Policy,
    Question,
    Step,
    Trial,
    Wait,
    host_ppm,
    is_silent,
    judge,
    may_check,
    must_ask_again,
    next_step,
    outvoted,
)
from lading_protocol import lots
from lading_protocol.audit import Verdict
from lading_protocol.court import Phase
from lading_protocol.economics import AuditRates
from lading_protocol.ids import Address

HOSTS = [Address(bytes([i]) * 20) for i in range(1, 8)]
SEED, LEAF = b"\x09" * 32, b"\x0a" * 32


def secret_for(*, second: bool) -> bytes:
    """A round's secret under which this receipt gets a second auditor, or none."""
    rate = AuditRates().reaudit_ppm
    return next(
        secret
        for secret in (i.to_bytes(32, "big") for i in range(1000))
        if lots.wants_second(secret, SEED + LEAF, rate) is second
    )


ALONE, AGAIN = secret_for(second=False), secret_for(second=True)
H, G, U = Verdict.HONEST, Verdict.GUILTY, Verdict.UNKNOWN


def said(*verdicts: Verdict) -> list[Opinion]:
    return [Opinion(host, verdict) for host, verdict in zip(HOSTS, verdicts, strict=False)]


def rule(
    opinions: list[Opinion], candidates: list[Address], secret: bytes = ALONE, expected: Verdict = H
) -> AskNext | Conclude | Wait:
    stakes = {who: 10 + n for n, who in enumerate(candidates)}
    return judge(Question(SEED, LEAF, secret, expected), opinions, stakes, Policy())


def test_nobody_to_ask_waits() -> None:
    assert isinstance(rule([], []), Wait)


def test_one_honest_word_is_enough_unless_a_second_look_is_drawn() -> None:
    assert rule(said(H), HOSTS) == Conclude(H, "1 of 1 auditors found it right")
    assert isinstance(rule(said(H), HOSTS, AGAIN), AskNext)
    assert rule(said(H, H), HOSTS, AGAIN) == Conclude(H, "2 of 2 auditors found it right")
    assert rule(said(H), HOSTS[:1], AGAIN) == Conclude(H, "1 of 1 auditors found it right"), "nobody else is there"


def test_a_guilty_word_alone_accuses_nobody() -> None:
    assert isinstance(rule(said(G), HOSTS), AskNext)
    assert isinstance(rule(said(G), HOSTS[:1]), Wait)
    assert rule(said(G, G), HOSTS) == Conclude(G, "2 of 2 auditors found it wrong")


def test_disagreement_goes_to_a_third_and_two_of_three_decide() -> None:
    assert isinstance(rule(said(G, H), HOSTS), AskNext)
    assert isinstance(rule(said(G, H), HOSTS[:2]), Wait)
    assert rule(said(G, H, H), HOSTS) == Conclude(H, "2 of 3 auditors found it right")
    assert rule(said(H, G, G), HOSTS, AGAIN) == Conclude(G, "2 of 3 auditors found it wrong")
    assert outvoted(said(G, H, H), H) == [HOSTS[0]]
    assert outvoted(said(H, U, G, G), G) == [HOSTS[0]]
    assert outvoted(said(H), H) == [], "one alone outvotes nobody"


def test_cannot_say_never_accuses() -> None:
    for count in range(7):
        answer = rule(said(*[U] * count), HOSTS)
        assert not (isinstance(answer, Conclude) and answer.verdict is G)
    assert rule(said(*[U] * 6), HOSTS) == Conclude(U, "the auditors could not say")
    assert rule(said(G, *[U] * 5), HOSTS) == Conclude(U, "too few auditors could say")


def test_a_canary_is_found_by_one_and_missed_only_against_two() -> None:
    assert rule(said(G), HOSTS, expected=G) == Conclude(G, "1 of 1 auditors found it wrong")
    assert isinstance(rule(said(H), HOSTS, expected=G), AskNext)
    assert rule(said(H, G, G), HOSTS, expected=G) == Conclude(G, "2 of 3 auditors found it wrong")
    assert rule(said(H, H), HOSTS, expected=G) == Conclude(H, "2 of 2 auditors found it right"), "then it is void"


@pytest.mark.parametrize("secret", [ALONE, AGAIN])
def test_every_course_of_opinions_ends(secret: bytes) -> None:
    """Asking as told, with the answers given, ends within the tries, and GUILTY only by a majority of three."""
    for verdicts in itertools.product([H, G, U], repeat=6):
        opinions: list[Opinion] = []
        answer = rule(opinions, HOSTS, secret)
        for verdict in verdicts:
            if not isinstance(answer, AskNext):
                break
            assert answer.auditor not in {one.auditor for one in opinions}
            opinions.append(Opinion(answer.auditor, verdict))
            answer = rule(opinions, HOSTS, secret)
        assert isinstance(answer, Conclude)
        heard = [one.verdict for one in opinions]
        assert heard.count(H) + heard.count(G) <= 3
        if answer.verdict is G:
            assert heard.count(G) == 2
            assert heard.count(H) <= 1
        if answer.verdict is H:
            assert heard.count(H) > heard.count(G)


@given(
    st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(0, 10**30), max_size=20), st.binary(max_size=40)
)
def test_auditors_are_drawn_the_same_for_everybody_and_each_once(stakes: dict[bytes, int], seed: bytes) -> None:
    left = {Address(who): stake for who, stake in stakes.items()}
    drawn: list[Address] = []
    while (who := lots.auditor(seed, LEAF, len(drawn), left)) is not None:
        assert lots.auditor(seed, LEAF, len(drawn), dict(reversed(list(left.items())))) == who
        drawn.append(who)
        del left[who]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) == {who for who, stake in stakes.items() if stake > 0}


def test_auditors_are_drawn_by_what_they_have_at_stake() -> None:
    stakes = {HOSTS[0]: 10, HOSTS[1]: 30, HOSTS[2]: 60}
    counts = dict.fromkeys(stakes, 0)
    for i in range(4000):
        who = lots.auditor(i.to_bytes(32, "big"), LEAF, 0, stakes)
        assert who is not None
        counts[who] += 1
    for who, stake in stakes.items():
        assert abs(counts[who] - 40 * stake) < 4 * (40 * stake) ** 0.5


def test_a_host_earns_a_lower_rate_and_loses_it_by_suspicion() -> None:
    policy = Policy()
    rates = [host_ppm(clean, False, policy) for clean in range(3000)]
    assert rates[0] == 200_000
    assert rates == sorted(rates, reverse=True)
    assert min(rates) == 10_000
    assert any(rate <= 20_000 for rate in rates)
    for clean in (0, 5, 2999):
        assert host_ppm(clean, True, policy) == min(10 * rates[clean], 1_000_000)
    assert host_ppm(5000, False, Policy(least_ppm=500_000)) == 500_000


def test_a_host_that_does_not_open_is_asked_three_times_and_then_only_suspect() -> None:
    policy = Policy(opening_pause=300)
    for tries in range(1, OPENING_TRIES):
        before, asked = Asked(tries - 1), Asked(tries, at=1000)
        assert must_ask_again(before, asked, H)
        assert must_ask_again(before, asked, U)
        assert not must_ask_again(before, asked, G), "a proof needs no sketch"
        assert not must_ask_again(asked, asked, U), "an auditor that never came to the opening is not asked for ever"
        assert not may_check(asked, policy, 1299)
        assert may_check(asked, policy, 1300)
        assert not is_silent(asked)
    last = Asked(OPENING_TRIES, at=1000)
    assert is_silent(last)
    assert not must_ask_again(Asked(OPENING_TRIES - 1), last, H)
    assert may_check(last, policy, 1000)
    opened = Asked(2, at=1000, opened=True)
    assert not is_silent(opened)
    assert not must_ask_again(Asked(1), opened, H)
    assert not must_ask_again(Asked(), Asked(), H), "nothing was sketched"


def trial(phase: Phase, *, seats: int = 3, revealed: int = 0) -> Trial:
    return Trial(phase, draw_block=10, reveal_by=100, appeal_by=200, seats=seats, revealed=revealed)


STEPS = [
    (trial(Phase.NONE), 0, 0, Step.WAIT),
    (trial(Phase.DRAWING), 0, 10, Step.WAIT),
    (trial(Phase.DRAWING), 0, 11, Step.DRAW),
    (trial(Phase.VOTING), 99, 11, Step.WAIT),
    (trial(Phase.VOTING, revealed=3), 50, 11, Step.TALLY),
    (trial(Phase.VOTING, seats=0), 50, 11, Step.WAIT),
    (trial(Phase.VOTING), 100, 11, Step.TALLY),
    (trial(Phase.RULED), 199, 11, Step.WAIT),
    (trial(Phase.RULED), 200, 11, Step.EXECUTE),
    (trial(Phase.CLOSED), 0, 0, Step.END),
    (trial(Phase.VOID), 0, 0, Step.END),
]


@pytest.mark.parametrize(("state", "now", "head", "step"), STEPS)
def test_the_next_step_of_a_dispute(state: Trial, now: int, head: int, step: Step) -> None:
    assert next_step(state, now, head) is step
