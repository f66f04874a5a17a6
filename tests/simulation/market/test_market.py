"""Facts about routing that must hold in a market of thousands of hosts, on one trace for every policy.

Prints its seed; `make sim-large` plays the same world with a hundred thousand hosts.
"""

import pytest
from msgspec import structs

from simulation.market.report import Result, compare, play, table
from simulation.market.routers import AtRandom, GreedyStale, Lading, RoundRobin, TwoChoices
from simulation.market.traffic import Shape, digest, machines, trace

SEED = 6
OTHERS = ("random", "round robin", "two choices", "greedy stale")
MARKET = Shape(hosts=5_000, seconds=3.0, warm=1.0)
EQUAL = Shape(hosts=1_000, seconds=9.0, spread=0.0)
SPIKE = Shape(
    hosts=300, seconds=18.0, output=120, shared=(50, 500), load=0.7, batch=0.75, spike=3.0, spike_for=12.0,
    deaths=0.0, liars=0.0,
)  # fmt: skip


def told(results: dict[str, Result]) -> dict[str, Result]:
    print(f"\nseed {SEED}\n{table(list(results.values()))}")
    return results


def test_five_thousand_hosts_the_best_price_is_found_and_nobody_waits_longer_for_it() -> None:
    results, _ = compare(MARKET, SEED)
    ours = told(results)["lading"]
    assert ours.cost <= 1.05 * results["oracle"].cost
    for name in OTHERS:
        assert ours.cost <= 0.8 * results[name].cost
        assert ours.p99 <= 1.25 * results[name].p99
        assert ours.p50 <= results[name].p50
        assert ours.good >= results[name].good
    assert ours.refusals <= 2.0
    assert ours.moves <= 1.3
    assert ours.shed == 0.0
    assert ours.silent <= ours.jobs / 1000  # those whose host died without a word wait for it still


def test_at_equal_prices_whoever_read_the_prompt_before_answers_first() -> None:
    results, _ = compare(EQUAL, SEED)
    ours = told(results)["lading"]
    for name in OTHERS:
        assert ours.p50 <= 0.6 * results[name].p50
        assert ours.p99 <= results[name].p99
        assert ours.good >= results[name].good + 0.05
        assert ours.hits >= 5 * results[name].hits
    assert ours.p50 <= 1.2 * results["oracle"].p50


def test_with_old_reports_from_few_gateways_it_still_beats_the_least_loaded() -> None:
    """Reports every 3 s and none in between."""
    old = Shape(hosts=500, seconds=9.0, spread=0.0, beat=3.0, push=False)
    results, _ = compare(old, SEED, (Lading, TwoChoices, GreedyStale, AtRandom, RoundRobin))
    ours = told(results)["lading"]
    assert ours.good >= max(results[name].good for name in OTHERS)
    assert ours.p50 <= 0.6 * results["greedy stale"].p50


def test_who_insists_on_the_one_host_that_is_full_holds_up_nobody_else() -> None:
    """Three jobs in a hundred want what one host of 300 has, twice what it can do."""
    calm = Shape(hosts=300, seconds=20.0, gateways=2, liars=0.0)
    alone, beside = play(Lading, calm, SEED), play(Lading, structs.replace(calm, rare=1, picky=0.03), SEED)
    told({"alone": alone, "beside": beside})
    assert beside.good >= alone.good - 0.06
    assert beside.shed <= 0.03


def test_jobs_may_last_longer_than_the_market_is_watched() -> None:
    """Minutes each: they all find a host, and the load is what it was meant to be."""
    shape = Shape(hosts=1_000, seconds=20.0, output=8_000, gateways=2, families=400, beat=5.0)
    ours = play(Lading, shape, SEED)
    told({"lading": ours})
    assert ours.shed == 0.0
    assert ours.good >= 0.75


def test_in_a_spike_batch_work_gives_way_and_loses_next_to_nothing() -> None:
    with_, without = play(Lading, SPIKE, SEED), play(Lading, SPIKE, SEED, preemption=False)
    print(f"\nseed {SEED}: p99 {with_.p99:.2f} s against {without.p99:.2f} s, batch work done again {with_.lost:.3%}")
    assert without.p99 >= 5 * with_.p99
    assert with_.lost <= 0.01
    assert with_.good >= without.good
    assert (with_.silent, with_.shed) == (0, 0.0)


@pytest.mark.parametrize("policy", [Lading, TwoChoices])
def test_one_seed_gives_one_trace_and_one_run(policy: type[Lading] | type[TwoChoices]) -> None:
    shape = Shape(hosts=150, seconds=5.0, warm=1.0)
    slots = sum(one.slots for one in machines(SEED, shape))
    assert digest(trace(SEED, shape, slots)) == digest(trace(SEED, shape, slots))
    assert digest(trace(SEED, shape, slots)) != digest(trace(SEED + 1, shape, slots))
    assert play(policy, shape, SEED).digest == play(policy, shape, SEED).digest
