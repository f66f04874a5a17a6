"""Whether cheating pays, in small: the careers of tests/bench/audit_economics.py, few and short, with fixed seeds."""

import msgspec
import pytest

from bench.audit_strategies import (
    CLEARING,
    EXACT_INT8,
    FORGETFUL,
    FORGIVING,
    FP8,
    FRAMING,
    HOME,
    HONEST_HOST,
    INT4,
    INT8,
    SHIPS,
    SMALLER,
    Found,
    careers,
    found,
    variant,
)
from bench.audit_world import Career, Cheat, Crowd, Rules
from lading_coordinator.core.audits import Policy
from lading_protocol.economics import Appellant, AuditRates

HONEST_SHARE = 0.1
MONTH = msgspec.structs.replace(HOME, days=30)
QUARTER = msgspec.structs.replace(HOME, jobs=300)


def of(cheat: Cheat, crowd: Crowd = CLEARING, rules: Rules = SHIPS, runs: int = 4, days: int = 0) -> Found:
    market = msgspec.structs.replace(QUARTER, days=days) if days else MONTH
    return found(careers(cheat, crowd, rules, market, runs), cheat, market, rules)


def test_an_honest_host_keeps_its_stake_and_is_never_suspect() -> None:
    result = of(HONEST_HOST, Crowd())
    assert result.mean == pytest.approx(HONEST_SHARE)
    for one in result.tallies:
        assert (one.accused, one.convicted, one.suspect_days, one.idle_days) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "cheat",
    [
        SMALLER,
        variant(SMALLER, "on_5_percent", share=0.05),
        variant(SMALLER, "hit_and_run", leaves=True),
        INT4,
        variant(INT4, "on_25_percent", share=0.25),
        variant(INT4, "never_opens", opens=False),
        EXACT_INT8,
        variant(EXACT_INT8, "on_25_percent", share=0.25),
    ],
    ids=lambda cheat: cheat.name,
)
def test_what_an_audit_proves_does_not_pay_among_a_third_of_colluders(cheat: Cheat) -> None:
    assert of(cheat).high < 0


@pytest.mark.parametrize("cheat", [FP8, INT8], ids=lambda cheat: cheat.name)
def test_what_only_the_long_record_shows_does_not_pay_either(cheat: Cheat) -> None:
    assert of(cheat, days=90).high < HONEST_SHARE


def test_it_did_pay_with_a_short_memory() -> None:
    """So the numbers of the long record are what deters here, and this test can tell."""
    assert of(INT8, rules=FORGETFUL, days=90).mean > 3 * HONEST_SHARE


def test_escrow_takes_the_pay_of_the_jobs_before_the_verdict() -> None:
    cheat = variant(SMALLER, "hit_and_run", leaves=True)
    wary = msgspec.structs.replace(SHIPS, escrow_days=7.0)
    loose, held = of(cheat), of(cheat, rules=wary)
    for free, kept in zip(loose.tallies, held.tallies, strict=True):
        assert free.jobs == kept.jobs == kept.forfeited, "the verdict comes within the week"
    assert held.mean < loose.mean


def test_lazy_auditors_are_found_out_with_sketches_and_without() -> None:
    """Without sketches it takes canaries: with none of them the lazy ones go on for ever."""
    many = Rules(policy=Policy(rates=AuditRates(canary_ppm=200_000)))
    none = Rules(policy=Policy(rates=AuditRates(canary_ppm=0)))
    seen = {}
    for name, crowd, rules in (
        ("sketched", Crowd(lazy=0.3), SHIPS),
        ("canaries", Crowd(lazy=0.3, sketched=False), many),
        ("blind", Crowd(lazy=0.3, sketched=False), none),
    ):
        tallies = of(SMALLER, crowd, rules).tallies
        seen[name] = 1 - sum(one.missed for one in tallies) / sum(one.audits for one in tallies)
    assert seen["sketched"] == 1
    assert seen["canaries"] > seen["blind"]


def test_false_accusers_cost_the_coordinator_bonds_until_they_are_struck_off() -> None:
    loose, strict = (of(HONEST_HOST, FRAMING, rules, days=30) for rules in (FORGIVING, SHIPS))
    assert sum(one.acquitted for one in strict.tallies) < sum(one.acquitted for one in loose.tallies)
    assert sum(one.accused for one in strict.tallies) < sum(one.accused for one in loose.tallies) / 2


def test_framing_loses_jurors_their_deposits_where_somebody_appeals() -> None:
    """And gains where nobody does, so that this test can tell."""
    crowd = {by: msgspec.structs.replace(FORGIVING, appeals=by) for by in Appellant}
    got = {
        by: sum(one.framers for one in of(HONEST_HOST, FRAMING, rules, days=30).tallies) for by, rules in crowd.items()
    }
    assert got[Appellant.HOST] < 0
    assert got[Appellant.MINORITY] < 0 < got[Appellant.NOBODY]


def test_the_same_seed_gives_the_same_career() -> None:
    one, other = (Career(INT4, CLEARING, SHIPS, 7).run(300, 20) for _ in range(2))
    assert one == other
    assert Career(INT4, CLEARING, SHIPS, 8).run(300, 20) != one
