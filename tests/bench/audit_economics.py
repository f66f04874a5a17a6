"""Whether cheating pays, by simulation with the coordinator's own policy code and by the honesty condition.

`rows(quick)` gives the results; `python -m tests.bench.audit_economics [--quick]` prints them. A ratio is the upper end
of the 95 % interval to honest profit, so "holds" says that cheating earns less even then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import fmean, stdev

import msgspec

from lading_protocol.economics import (
    MILLION,
    SHIPPED,
    Appellant,
    AuditRates,
    Temptation,
    break_even,
    detection,
    fee_for_audits,
    frame,
    frames_from,
    harm,
    least_canaries,
    least_rate,
    panel,
    safe_revenue,
    share,
)
from lading_protocol.ids import Wei

from .audit_strategies import (
    AUDIT_COST_PPM,
    CHEATS,
    CLEARING,
    COIN,
    FORGETFUL,
    FORGIVING,
    FP8,
    FRAMING,
    FREE_VOTES,
    HOME,
    HONEST_HOST,
    INT4,
    INT8,
    INTEREST_PPM,
    JOB,
    LARGE,
    RENAMING,
    REPLAY,
    SHIPS,
    SMALL,
    SMALLER,
    YEAR,
    Found,
    Market,
    careers,
    found,
    of_price,
    variant,
)
from .audit_world import AUDITORS, Cheat, Crowd, Rules, Tally
from .report import Line, emit, line

THIRD = 300_000
UNIT = "% of turnover"


def rows(quick: bool) -> Iterator[Line]:
    """Every result. `quick`: few short careers, to see that it runs."""
    runs = 3 if quick else 24
    home = msgspec.structs.replace(HOME, days=20) if quick else HOME
    yield from _honest(home, runs)
    for cheat in CHEATS:
        yield from _cheat(cheat, CLEARING, SHIPS, (home, _sized(LARGE, home)), runs)
    yield from _crowds(home, runs)
    yield from _memory(home, runs, quick)
    yield from _stakes(home, runs)
    yield from _conditions()
    yield from _accusers(home, runs)
    yield from _auditors()
    yield from _clients()


def _sized(market: Market, like: Market) -> Market:
    return msgspec.structs.replace(market, days=like.days)


def _honest(market: Market, runs: int) -> Iterator[Line]:
    """Honest hosts, left alone and among framers: what every cheat is compared with."""
    for name, crowd in (("honest", Crowd()), ("honest_among_framers", FRAMING)):
        result = found(careers(HONEST_HOST, crowd, SHIPS, market, max(runs // 4, 3)), HONEST_HOST, market, SHIPS)
        yield line(f"profit_{name}", 100 * result.mean, UNIT, n=result.n, note=_words(result, market))


def _cheat(
    cheat: Cheat, crowd: Crowd, rules: Rules, markets: tuple[Market, ...], runs: int, name: str = ""
) -> Iterator[Line]:
    """One strategy; the markets differ in price only, so that one set of careers serves all."""
    yield from _judged(careers(cheat, crowd, rules, markets[0], runs), cheat, rules, markets, name)


def _judged(
    tallies: list[Tally], cheat: Cheat, rules: Rules, markets: tuple[Market, ...], name: str = ""
) -> Iterator[Line]:
    for market in markets:
        result = found(tallies, cheat, market, rules)
        suffix = "" if market is markets[0] else f"_{market.name}"
        yield _against_honest(f"profit_{name or cheat.name}{suffix}", result, market)


def _against_honest(name: str, result: Found, market: Market) -> Line:
    honest = 1 - 0.9
    return line(
        name,
        100 * result.mean,
        UNIT,
        reference=("an honest host", 100 * honest),
        ratio=result.high / honest,
        bar="<= 1 of the reference",
        n=result.n,
        note=_words(result, market),
    )


def _words(result: Found, market: Market) -> str:
    def mean(field: str) -> float:
        return float(sum(getattr(one, field) for one in result.tallies)) / result.n

    idle = 100 * mean("idle_days") / market.days
    turnover = 100 * market.price * market.jobs / market.stake
    return (
        f"+-{100 * result.half:.3g}; {market.jobs} jobs a day for {market.days} days, a day's turnover is "
        f"{turnover:.3g} % of the stake; a career: {mean('audits'):.0f} audits, {mean('convicted'):.2f} convictions, "
        f"{mean('suspect_days'):.1f} days suspect, {idle:.0f} % of days without jobs, {mean('names'):.1f} names"
    )


def _crowds(market: Market, runs: int) -> Iterator[Line]:
    """The same cheat among fewer colluders, and among auditors that approve without looking."""
    for name, crowd in (
        ("among_no_colluders", Crowd()),
        ("among_10_percent_colluders", Crowd(0.1)),
        ("among_30_percent_lazy", Crowd(lazy=0.3)),
        ("among_30_percent_lazy_unsketched", Crowd(lazy=0.3, sketched=False)),
    ):
        yield from _cheat(INT4, crowd, SHIPS, (market,), runs, f"int4_{name}")
    tallies = careers(SMALLER, CLEARING, SHIPS, market, runs)
    seen = 1 - sum(one.missed for one in tallies) / max(sum(one.audits for one in tallies), 1)
    colluders = share(MILLION * round(0.3 * AUDITORS) // AUDITORS)
    formula = float(panel(colluders, share(SHIPPED.rates.reaudit_ppm)))
    yield line(
        "faults_seen_with_30_percent_colluders",
        100 * seen,
        "% of audits",
        reference=("the formula economics.panel, for a pool without end", 100 * formula),
        bar=">= 0.97 of the reference",
        n=sum(one.audits for one in tallies),
        note=f"{AUDITORS} auditors, {round(0.3 * AUDITORS)} of them colluders; outvoted ones rest, so more is seen",
    )


def _memory(home: Market, runs: int, quick: bool) -> Iterator[Line]:
    """Cheats that no single audit proves: small hosts, new names, and the shorter memory that we had first."""
    small, both = _sized(SMALL, home), (home, _sized(LARGE, home))
    for cheat in (FP8, INT8):
        yield from _cheat(cheat, CLEARING, SHIPS, (small,), runs, f"{cheat.name}_small_host")
    for cheat in RENAMING:
        tallies = careers(cheat, CLEARING, SHIPS, home, 2 if quick else 4)
        yield from _judged(tallies, cheat, SHIPS, both)
        yield _against_new_names(tallies, cheat)
    for cheat in (FP8, INT8):
        yield from _cheat(cheat, CLEARING, FORGETFUL, (home,), runs, f"{cheat.name}_short_memory")


def _stakes(home: Market, runs: int) -> Iterator[Line]:
    """Pay in escrow, and how much a host may turn over for its stake."""
    wary = msgspec.structs.replace(SHIPS, escrow_days=7.0)
    large = _sized(LARGE, home)
    whole = msgspec.structs.replace(home.of_stake(MILLION), name="stake_a_day")
    cheat = variant(SMALLER, "hit_and_run", leaves=True)
    yield from _cheat(cheat, CLEARING, wary, (large,), runs, "small_model_hit_and_run_escrow_large")
    greedy = variant(REPLAY, "new_names", renames=True)
    yield from _cheat(greedy, CLEARING, SHIPS, (large, whole), runs, "replay_new_names_large")
    yield from _cheat(greedy, CLEARING, wary, (whole,), runs, "replay_new_names_escrow_stake_a_day")
    safe = safe_revenue(SHIPPED.court.min_stake, 850_000, 3_600, SHIPPED.court, THIRD)
    yield line(
        "safe_turnover_a_day",
        100 * safe / SHIPPED.court.min_stake,
        "% of the stake",
        note="up to it the worst cheat (replay) loses although it goes on until the court has ruled; 30 % colluders",
    )


def _conditions() -> Iterator[Line]:
    """The honesty condition in figures."""
    court = SHIPPED.court
    for cheat in (SMALLER, INT4):
        for prices in (100, 1_000, 10_000):
            price = Wei(COIN)
            loss = court.slash(Wei(prices * price))
            rate = least_rate(of_price(cheat.saving_ppm, price), loss, Wei(0), detection(cheat.caught_ppm, THIRD))
            yield line(
                f"least_rate_{cheat.name}_{prices}",
                rate,
                "ppm of jobs",
                reference=("the floor of the audit rate", SHIPPED.rates.floor_ppm),
                bar="<= 1 of the reference" if prices >= 1_000 else None,
                note=f"a stake of {prices:,} job prices, half of it slashed, 30 % colluders; without jail",
            )
    for escrow in (0, 1):
        caught = share(SHIPPED.rates.floor_ppm) * detection(INT4.caught_ppm, THIRD)
        tempted = Temptation(of_price(500_000), court.slash(Wei(10_000 * JOB)), Wei(escrow * JOB), caught)
        jobs = break_even(tempted)
        yield line(
            f"hit_and_run_pays_from{'_with_escrow' if escrow else ''}",
            jobs,
            "jobs",
            note="forged int4, a stake of 10,000 job prices; "
            + (f"{jobs:,} jobs before the court has ruled" if jobs else "with all pay in escrow it never does"),
        )


def _accusers(market: Market, runs: int) -> Iterator[Line]:
    """Framing: what colluders expect from it, what it costs who accuses, and what it does to the host."""
    stake, court = SHIPPED.court.min_stake, SHIPPED.court
    for by in Appellant:
        yield from _framing(stake, by)
        yield from _framers(market, by, max(runs // 2, 3))
    for name, rules in (("", SHIPS), ("_forgiving", FORGIVING)):
        tallies = careers(HONEST_HOST, FRAMING, rules, market, max(runs // 4, 3))
        n = len(tallies)
        lost = sum(court.bond * one.acquitted - fee(court.slash(stake)) * one.convicted for one in tallies)
        acquitted, convicted, accused = (
            sum(getattr(one, field) for one in tallies) / n for field in ("acquitted", "convicted", "accused")
        )
        yield line(
            f"framing_costs_the_accuser{name}",
            lost / n / COIN,
            "coins",
            n=n,
            note=f"bonds lost for one honest host in {market.days} days, less finder's fees: {accused:.0f} false "
            f"accusations, {acquitted:.0f} acquittals, {convicted:.2f} convictions",
        )


def _framing(stake: Wei, by: Appellant) -> Iterator[Line]:
    """By who appeals: what colluding jurors expect of an audit, and from which share of them on it pays."""
    name = by.name.lower()
    who = f"a wrong conviction is appealed by {by.value}"
    for suffix, rules in (("", SHIPPED), ("_free_votes", FREE_VOTES)):
        one = frame(THIRD, stake, by, rules)
        yield line(
            f"framing_pays_{name}{suffix}",
            float(one.colluders / COIN),
            "coins per audit",
            bar=None if suffix or by is Appellant.NOBODY else "<= 0",
            note=f"30 % colluders accuse an honest host; {who}; of its audits {float(one.accused):.3f} end in court, "
            f"{float(one.slashed):.2g} in a slash; an outvoted juror loses {rules.court.vote_deposit / COIN:g} coins",
        )
    for suffix, ring in (("", False), ("_with_the_accuser", True)):
        yield line(
            f"framing_pays_from_{name}{suffix}",
            frames_from(stake, by, ring=ring),
            "% of jurors",
            bar=None if by is Appellant.NOBODY else ">= 31",
            note=f"{who}; the smallest share of colluders at which "
            + (
                "jurors and accuser together, who lose its bond too, gain" if ring else "jurors gain, at another's bond"
            ),
        )


def _framers(market: Market, by: Appellant, runs: int) -> Iterator[Line]:
    """The same with the coordinator's own policy: what it accuses of, and whom it stops believing."""
    for percent in (10, 30):
        rules = msgspec.structs.replace(SHIPS, appeals=by)
        tallies = careers(HONEST_HOST, Crowd(percent / 100, frame=True), rules, market, runs)
        got = [one.framers / COIN for one in tallies]
        cases = sum(one.acquitted + one.convicted for one in tallies) / len(tallies)
        yield line(
            f"framers_earn_{by.name.lower()}_{percent}",
            fmean(got),
            "coins",
            bar=None if by is Appellant.NOBODY else "<= 0",
            n=len(got),
            note=f"colluding jurors, {percent} % of operators and auditors, at one honest host in {market.days} days; "
            f"a wrong conviction is appealed by {by.value}; {cases:.0f} cases, "
            f"{sum(one.convicted for one in tallies) / len(tallies):.2f} convictions; +-{_half(got):.3g}",
        )


def _half(values: list[float]) -> float:
    """Half of the 95 % interval of their mean."""
    return 1.96 * stdev(values) / len(values) ** 0.5


def fee(slashed: Wei) -> Wei:
    return Wei(slashed * SHIPPED.court.finder_bps // 10_000)


def _auditors() -> Iterator[Line]:
    """The verifier's dilemma: an audit costs its prefill; what does looking bring, and not looking cost?"""
    cost, pay = of_price(AUDIT_COST_PPM), of_price(SHIPPED.audit_pay_ppm)
    yield line(
        "auditor_earns",
        100 * (pay - cost) / JOB,
        "% of a job's price",
        bar=">= 0",
        note="per audit, against 0 for one that refuses every case; a re-run costs 6 % of the job's price",
    )
    kappa = least_canaries(cost, pay, Wei(pay * 1_000), MILLION)
    yield line(
        "least_canaries",
        kappa,
        "ppm of audits",
        reference=("shipped", SHIPPED.rates.canary_ppm),
        bar="<= 1 of the reference",
        note="where nothing is sketched; an audit is paid a tenth of the job's price, and whoever is struck off loses "
        "the pay of 1,000 more audits. With sketches every audit is a canary",
    )
    for name, rates in (("", SHIPPED.rates), ("_short_memory", FORGETFUL.policy.rates)):
        yield line(
            f"fee_for_audits{name}",
            fee_for_audits(pay, JOB, mean_rate(rates, 90_000), rates) / 10_000,
            "% of turnover",
            bar="<= 2",
            note="of a new host's first 90,000 jobs, when an audit is paid a tenth of the job's price",
        )


def mean_rate(rates: AuditRates, jobs: int) -> int:
    """The share of an honest host's first `jobs` that is checked, in ppm, on average."""
    clean, done = 0, 0.0
    while done < jobs:
        done += MILLION / rates.host_ppm(clean, False)
        clean += 1
    return int(clean * MILLION / done)


def _clients() -> Iterator[Line]:
    """Griefing by consumers, and by hosts that come back under new names."""
    yield line(
        "griefing_by_bought_audits",
        float(harm(of_price(AUDIT_COST_PPM), JOB)),
        "wei per wei",
        bar="<= 1",
        note="only one's own paid jobs can be ordered, ten an epoch and session: work made per wei spent",
    )
    yield line(
        "griefing_by_not_paying",
        (4_096 + 2 * 512) / (128 + 2 * 128),
        "job prices",
        note="what a host works unpaid, at most, per session and terms before it refuses: the most that one can steal",
    )


def _against_new_names(tallies: list[Tally], cheat: Cheat) -> Line:
    """The stake whose rest costs as much as a name saves before it is barred."""
    jobs = sum(one.jobs for one in tallies) // sum(one.names for one in tallies)
    return line(
        f"stake_against_{cheat.name}",
        jobs * cheat.saving_ppm * YEAR / (INTEREST_PPM * (SHIPPED.court.cooldown // 86_400)),
        "job prices",
        reference=("the least stake at a node's default prices", SHIPPED.court.min_stake / JOB),
        bar="<= 1 of the reference",
        note=f"a name that serves {jobs:,} jobs before it is barred saves 40 % of them; then its stake rests "
        "21 days at 10 % interest a year",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for one in rows(parser.parse_args().quick):
        emit(one)


if __name__ == "__main__":
    main()
