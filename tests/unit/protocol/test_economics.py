"""The honesty condition: its formulas against the notes' figures, against brute force, and against what ships."""

import random
from fractions import Fraction
from itertools import product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_contracts.deploy import Parameters
from lading_coordinator.core.audits import Policy
from lading_protocol.economics import (
    MILLION,
    SHIPPED,
    Appellant,
    AuditRates,
    CourtTerms,
    Shipped,
    Temptation,
    break_even,
    committee,
    convicted,
    detection,
    fee_for_audits,
    frame,
    framed,
    frames_from,
    gain,
    least_canaries,
    least_rate,
    panel,
    safe_revenue,
    share,
)
from lading_protocol.ids import Wei

shares = st.integers(0, MILLION).map(share)
PRICE = 1_000_000


def test_what_ships_is_what_the_conditions_are_about() -> None:
    assert Policy().rates == SHIPPED.rates
    for chain in (Parameters(), Parameters.devnet()):
        court = chain.court
        assert (chain.min_stake, court.bond, court.slash_bps) == (
            SHIPPED.court.min_stake,
            SHIPPED.court.bond,
            SHIPPED.court.slash_bps,
        )
        assert (court.committee_size, court.quorum) == (SHIPPED.court.committee_size, SHIPPED.court.quorum)
        assert court.vote_deposit == SHIPPED.court.vote_deposit
        assert (court.reward_bps, court.finder_bps, court.burn_bps) == (
            SHIPPED.court.reward_bps,
            SHIPPED.court.finder_bps,
            SHIPPED.court.burn_bps,
        )
    assert SHIPPED.court.verdict_seconds == 36 * 3600


def test_a_rate_starts_high_and_falls_through_the_base_to_the_floor() -> None:
    rates = AuditRates()
    assert rates.host_ppm(0, False) == rates.new_ppm
    assert rates.host_ppm(rates.clean_audits_to_base, False) == rates.base_ppm
    assert rates.host_ppm(10**9, False) == rates.floor_ppm
    assert rates.host_ppm(0, True) == MILLION, "a suspect newcomer is checked always"


def test_the_least_rate_is_that_of_the_notes() -> None:
    """Section 6: the whole stake at risk beside one job's pay, no colluders."""
    for saving, caught, stake, expected in (
        (750_000, 1.0, 100, 7_400),
        (750_000, 1.0, 10_000, 75),
        (500_000, 0.25, 1_000, 2_000),
        (400_000, 0.06, 1_000, 6_700),
        (400_000, 0.03, 100, 132_000),
    ):
        found = least_rate(Wei(saving), Wei(stake * PRICE), Wei(PRICE), Fraction(caught))
        assert found is not None
        assert abs(found - expected) <= 0.02 * expected


@given(st.integers(1, PRICE), st.integers(1, 10**12), st.integers(0, PRICE), shares, st.integers(0, 100))
def test_at_the_least_rate_a_cheat_loses_and_below_it_does_not(
    saving: int, loss: int, forfeit: int, seen: Fraction, false_ppm: int
) -> None:
    rate = least_rate(Wei(saving), Wei(loss), Wei(forfeit), seen, false_ppm)

    def expected_loss(ppm: int) -> Fraction:
        return share(ppm) * (seen * (loss + forfeit) - share(false_ppm) * loss)

    if rate is None:
        assert expected_loss(MILLION) <= saving
    else:
        assert expected_loss(rate) > saving
        assert expected_loss(rate - 1) <= saving


@given(shares, shares)
def test_two_of_three_by_brute_force(colluding: Fraction, again: Fraction) -> None:
    """All ways in which three auditors and the draw of a second look can fall, played as the policy plays them."""
    seen = lied = Fraction(0)
    for words in product((True, False), repeat=3):
        chance = Fraction(1)
        for friend in words:
            chance *= colluding if friend else 1 - colluding
        for second in (True, False):
            weight = chance * (again if second else 1 - again)
            seen += weight * _accused([not friend for friend in words], second)
            lied += weight * _accused(list(words), second)
    assert panel(colluding, again) == seen
    assert framed(colluding, again) == lied


def _accused(guilty: list[bool], second: bool) -> bool:
    """What three words lead to: a first "right" ends it without a second look, two of three decide otherwise."""
    if not guilty[0] and not second:
        return False
    return sum(guilty) >= 2


def test_notes_on_colluders() -> None:
    third, tenth = Fraction(3, 10), Fraction(1, 10)
    alone = 1 - third * (1 - tenth * (1 - third))
    assert panel(third, tenth) < alone, "two words of three are harder to get than one"
    assert committee(1 - third, 3, 2) == Fraction(784, 1000)
    assert convicted(1 - third, CourtTerms(), 2) > convicted(1 - third, CourtTerms(), 1) > committee(1 - third, 3, 2)
    assert detection(MILLION, 0) == 1
    assert detection(MILLION, 300_000) == panel(third, tenth) * Fraction(784, 1000)


@settings(max_examples=60)
@given(st.integers(1, 1000), st.integers(1, 10**6), st.integers(0, 1200), st.integers(1, 50_000))
def test_hit_and_run_turns_once(saving: int, loss: int, forfeit: int, caught_ppm: int) -> None:
    tempted = Temptation(Wei(saving), Wei(loss), Wei(forfeit), share(caught_ppm))
    first = break_even(tempted)
    if first is None:
        assert forfeit >= saving
        assert all(gain(tempted, 2**n) <= 0 for n in range(30))
    elif first > 1:
        assert gain(tempted, first) > 0 >= gain(tempted, first - 1)
        assert all(gain(tempted, first * 2**n) > 0 for n in range(20))


def test_the_gain_is_never_told_too_small() -> None:
    tempted = Temptation(Wei(500), Wei(50_000), Wei(1000), Fraction(1, 300))
    for jobs in (1, 7, 100, 500):
        exact = jobs * 500 - (50_000 + jobs * 1000) * (1 - Fraction(299, 300) ** jobs)
        assert exact <= gain(tempted, jobs) <= exact + Fraction(1, 10**15)


def test_auditors_canaries_and_the_fee() -> None:
    """The notes' example: cost .08, pay .1, stake 10 give a canary in 126; without pay or stake no rate helps."""
    assert least_canaries(Wei(80), Wei(100), Wei(10_000), MILLION) == 7_921
    assert least_canaries(Wei(80), Wei(0), Wei(0), MILLION) is None
    assert least_canaries(Wei(80), Wei(10), Wei(0), MILLION) is None
    assert fee_for_audits(Wei(100), Wei(1000), 20_000, AuditRates()) == 2_220


FREE = msgspec.structs.replace(SHIPPED, court=msgspec.structs.replace(SHIPPED.court, vote_deposit=Wei(0)))
STAKE = SHIPPED.court.min_stake


def test_frames_are_lottery_tickets_where_a_wrong_vote_is_free() -> None:
    free = frame(300_000, STAKE, Appellant.HOST, FREE)
    assert free.colluders > 0 > free.accuser
    assert free.slashed < frame(300_000, STAKE, Appellant.NOBODY, FREE).slashed
    assert frame(0, STAKE, Appellant.NOBODY).accused == 0
    assert frames_from(STAKE, Appellant.HOST, rules=FREE) == 1


def test_with_deposits_framing_loses_up_to_the_stated_share() -> None:
    """The figures of docs/economics.md and SECURITY.md."""
    assert frames_from(STAKE, Appellant.HOST) == 45
    assert frames_from(STAKE, Appellant.MINORITY) == 41
    assert frames_from(STAKE, Appellant.NOBODY) == 6
    assert frames_from(STAKE, Appellant.HOST, ring=True) == 51
    assert frames_from(STAKE, Appellant.MINORITY, ring=True) == 49
    assert frames_from(STAKE, Appellant.NOBODY, ring=True) == 36


@pytest.mark.parametrize("by", Appellant)
def test_a_false_case_by_playing_it(by: Appellant) -> None:
    """The formula against the court's own rule, case by case, with a seed."""
    rng, court, cases = random.Random(f"frames {by}"), SHIPPED.court, 20_000
    slashes = jurors = accuser = 0
    for _ in range(cases):
        convicted, gained, paid = _played(rng, by, court)
        slashes, jurors, accuser = slashes + convicted, jurors + gained, accuser + paid
    found = frame(300_000, STAKE, by)
    coin = 10**18
    assert slashes / cases == pytest.approx(float(found.slashed / found.accused), abs=0.01)
    assert jurors / cases / coin == pytest.approx(float(found.colluders / found.accused) / coin, abs=2)
    assert (jurors + accuser) / cases / coin == pytest.approx(float(found.ring) / coin, abs=4)


def _played(rng: random.Random, by: Appellant, court: CourtTerms) -> tuple[bool, int, int]:
    """One case: convicted?, what colluding jurors gain, what the accuser does. 30 % of jurors collude."""
    votes: list[bool] = []
    bonds, size, appeals = 0, court.committee_size, 0
    while True:
        drawn = [rng.random() < 0.3 for _ in range(size)]
        votes += drawn
        if 2 * sum(drawn) < size:
            return False, -sum(votes) * court.vote_deposit, -court.bond
        if appeals == 2 or by is Appellant.NOBODY or (by is Appellant.MINORITY and all(drawn)):
            slash = court.slash(STAKE)
            lost = votes.count(False) * court.vote_deposit
            reward, fee = slash * court.reward_bps // 10_000, slash * court.finder_bps // 10_000
            return True, reward + lost + bonds // 2, fee + bonds // 2
        appeals += 1
        bonds, size = bonds + (court.bond << appeals), 2 * size + 1


@given(st.integers(1, MILLION), st.integers(0, 10**6), st.integers(0, 400_000))
def test_below_the_safe_revenue_a_slash_outweighs_what_is_saved_until_the_verdict(
    saving_ppm: int, seconds: int, colluding: int
) -> None:
    stake, terms = Wei(10**21), Shipped().court
    daily = safe_revenue(stake, saving_ppm, seconds, terms, colluding)
    days = Fraction(seconds + terms.verdict_seconds / committee(1 - share(colluding), 3, 2)) / 86_400
    assert share(saving_ppm) * daily * days <= terms.slash(stake)
    assert share(saving_ppm) * (daily + 1) * days > terms.slash(stake)
