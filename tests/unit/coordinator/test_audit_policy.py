"""The policy of audits as values: whom to ask, when to conclude, and what a dispute needs next."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.core.audits import (
    AskNext,
    Conclude,
    Opinion,
    Phase,
    Policy,
    Step,
    Trial,
    Wait,
    judge,
    next_step,
    picked,
)
from lading_protocol.audit import Verdict
from lading_protocol.ids import Address

POLICY = Policy(rate_ppm=100_000, tries=4)
HOSTS = [Address(bytes([i]) * 20) for i in range(1, 6)]
SEED, LEAF = b"\x09" * 32, b"\x0a" * 32


def said(*verdicts: Verdict) -> list[Opinion]:
    return [Opinion(host, verdict) for host, verdict in zip(HOSTS, verdicts, strict=False)]


def rule(opinions: list[Opinion], candidates: list[Address]) -> AskNext | Conclude | Wait:
    return judge(opinions, candidates, SEED, LEAF, POLICY)


H, G, U = Verdict.HONEST, Verdict.GUILTY, Verdict.UNKNOWN


def test_nobody_to_ask_waits() -> None:
    assert isinstance(rule([], []), Wait)


def test_one_honest_word_is_enough() -> None:
    assert rule(said(H), HOSTS) == Conclude(H, "1 of 1 auditors found it right")


def test_a_guilty_word_is_confirmed_where_it_can_be() -> None:
    assert isinstance(rule(said(G), HOSTS), AskNext)
    assert rule(said(G), HOSTS[:1]) == Conclude(G, "1 of 1 auditors found it wrong")
    assert rule(said(G, G), HOSTS) == Conclude(G, "2 of 2 auditors found it wrong")


def test_disagreement_asks_on_and_never_accuses_on_a_tie() -> None:
    assert isinstance(rule(said(G, H), HOSTS), AskNext)
    assert isinstance(rule(said(G, H), HOSTS[:2]), Wait)
    assert rule(said(G, H, H), HOSTS).verdict is H  # type: ignore[union-attr]
    assert rule(said(G, H, G, H), HOSTS) == Conclude(U, "the auditors disagree")


def test_cannot_say_never_accuses() -> None:
    for count in range(5):
        answer = rule(said(*[U] * count), HOSTS)
        assert not (isinstance(answer, Conclude) and answer.verdict is G)
    assert rule(said(U, U, U, U), HOSTS) == Conclude(U, "the auditors could not say")


@pytest.mark.parametrize("verdicts", list(itertools.product([H, G, U], repeat=4)))
def test_every_course_of_opinions_ends(verdicts: tuple[Verdict, ...]) -> None:
    """Asking as told, with the answers given, ends within the tries, and GUILTY only with more guilty than honest."""
    opinions: list[Opinion] = []
    for verdict in verdicts:
        answer = rule(opinions, HOSTS)
        if not isinstance(answer, AskNext):
            break
        assert answer.auditor not in {one.auditor for one in opinions}
        opinions.append(Opinion(answer.auditor, verdict))
    answer = rule(opinions, HOSTS)
    assert isinstance(answer, Conclude)
    heard = [one.verdict for one in opinions]
    if answer.verdict is G:
        assert heard.count(G) >= 2
        assert heard.count(G) > heard.count(H)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 1_000_000))
def test_picks_depend_on_the_randomness_alone_and_follow_the_rate(randomness: bytes, rate: int) -> None:
    leaves = [i.to_bytes(32, "big") for i in range(200)]
    chosen = picked(leaves, randomness, Policy(rate_ppm=rate))
    assert chosen == picked(leaves, randomness, Policy(rate_ppm=rate))
    assert set(chosen) <= set(picked(leaves, randomness, Policy(rate_ppm=min(rate + 50_000, 1_000_000))))
    assert rate > 0 or not chosen
    assert rate < 1_000_000 or chosen == leaves


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
