"""Who cheats how, in which market, and what it comes to in wei.

What an audit shows of a cheat is measured (audit_shares): of a tolerant class (bf16), and of an exact one (f32) where
the name says so; of two models the one that shows less.
"""

from __future__ import annotations

from fractions import Fraction
from statistics import fmean, stdev

import msgspec

from lading_coordinator.core.audits import Policy
from lading_protocol.economics import MILLION, SHIPPED, AuditRates, share
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price, attempt_amount

from .audit_shares import shown
from .audit_world import Career, Cheat, Crowd, Rules, Tally

COIN = 10**18
# What a node asks unless it is told otherwise (0.001 and 0.002 coins per 1,000 tokens), for 128 tokens in and out.
JOB = attempt_amount(Price(Wei(COIN // 1_000), Wei(COIN // 500)), 128, 0, 128)
HONEST_COST_PPM = 900_000
INTEREST_PPM = 100_000
YEAR = 365


class Market(msgspec.Struct, frozen=True):
    """`price` of a job in wei, `jobs` a day for `days`; an honest job costs nine tenths of its price to serve."""

    name: str
    price: Wei = JOB
    jobs: int = 1_000
    days: int = 90
    stake: Wei = SHIPPED.court.min_stake

    @property
    def turnover(self) -> Wei:
        return Wei(self.price * self.jobs * self.days)

    def of_stake(self, ppm_a_day: int) -> Market:
        """With a price at which a day's turnover is this share of the stake."""
        return msgspec.structs.replace(self, price=Wei(self.stake * ppm_a_day // MILLION // self.jobs))


HOME = Market("home")
SMALL = Market("small", jobs=100)
# A day brings a tenth of the stake.
LARGE = Market("large").of_stake(100_000)


def profit(tally: Tally, cheat: Cheat, market: Market, rules: Rules) -> Wei:
    """What is left of a career in wei. A second stake, locked until its cooldown is over, costs interest; so does the
    first, to honest and cheat alike, and it is left out."""
    paid = (tally.jobs - tally.forfeited) * market.price
    work = tally.jobs * market.price * HONEST_COST_PPM // MILLION
    saved = tally.cheated * market.price * cheat.saving_ppm // MILLION
    lost = tally.convicted * rules.court.slash(market.stake)
    days = (tally.names - 1) * (rules.court.cooldown // 86_400)
    return Wei(paid - work + saved - lost - market.stake * INTEREST_PPM * days // MILLION // YEAR)


class Found(msgspec.Struct, frozen=True):
    """Profit as a share of what an honest host turns over: mean, and half of its 95 % interval."""

    mean: float
    half: float
    n: int
    tallies: list[Tally]

    @property
    def high(self) -> float:
        return self.mean + self.half


def careers(cheat: Cheat, crowd: Crowd, rules: Rules, market: Market, runs: int) -> list[Tally]:
    return [Career(cheat, crowd, rules, seed).run(market.jobs, market.days) for seed in range(1, runs + 1)]


def found(tallies: list[Tally], cheat: Cheat, market: Market, rules: Rules) -> Found:
    shares = [float(Fraction(profit(one, cheat, market, rules), market.turnover)) for one in tallies]
    spread = stdev(shares) if len(shares) > 1 else 0.0
    return Found(fmean(shares), 1.96 * spread / len(shares) ** 0.5, len(shares), tallies)


def cheat(name: str, case: str, saving_ppm: int, *, kind: str = "forged", precision: str = "bf16") -> Cheat:
    caught, drift = shown(case, kind, precision)
    return Cheat(name=name, saving_ppm=saving_ppm, caught_ppm=caught, drift=drift)


INT4 = cheat("int4", "int4", 500_000)
FP8 = cheat("fp8", "fp8", 400_000)
INT8 = cheat("int8", "int8", 400_000)
EXACT_INT4 = cheat("exact_int4", "int4", 500_000, precision="f32")
EXACT_FP8 = cheat("exact_fp8", "fp8", 400_000, precision="f32")
EXACT_INT8 = cheat("exact_int8", "int8", 400_000, precision="f32")
SMALLER = cheat("small_model", "smaller model", 750_000)
REPLAY = cheat("replay", "replay", 850_000)
HONEST_HOST = Cheat(name="honest", share=0.0)


def variant(cheat: Cheat, name: str, **changes: object) -> Cheat:
    return msgspec.structs.replace(cheat, name=f"{cheat.name}_{name}", **changes)


# Every one of them has a perfect proof where it can: one prefill of the true model.
CHEATS = (
    SMALLER,
    variant(SMALLER, "on_5_percent", share=0.05),
    variant(SMALLER, "hit_and_run", leaves=True),
    variant(SMALLER, "new_names", renames=True),
    REPLAY,
    cheat("half_context", "dropped context", 300_000),
    cheat("int4_unforged", "int4", 550_000, kind="plain"),
    INT4,
    variant(INT4, "on_50_percent", share=0.5),
    variant(INT4, "on_25_percent", share=0.25),
    variant(INT4, "on_5_percent", share=0.05),
    variant(INT4, "hit_and_run", leaves=True),
    variant(INT4, "never_opens", opens=False),
    FP8,
    variant(FP8, "on_25_percent", share=0.25),
    INT8,
    variant(INT8, "on_50_percent", share=0.5),
    variant(INT8, "on_25_percent", share=0.25),
    EXACT_INT4,
    EXACT_FP8,
    EXACT_INT8,
    variant(EXACT_INT8, "on_25_percent", share=0.25),
    variant(EXACT_INT8, "on_5_percent", share=0.05),
)
RENAMING = (variant(FP8, "new_names", renames=True), variant(INT8, "new_names", renames=True))

CLEARING, FRAMING = Crowd(0.3), Crowd(0.3, frame=True)
SHIPS = Rules()
# What ships is compared with what it replaced, and with what is still to come: docs/economics.md says why.
FORGETFUL = Rules(policy=Policy(rates=AuditRates(clean_audits_to_base=90)), window=16, suspect_days=1)
FORGIVING = Rules(strikes_false=0)
AUDIT_COST_PPM = 60_000
# The court before a wrong vote cost anything, to compare with.
FREE_VOTES = msgspec.structs.replace(SHIPPED, court=msgspec.structs.replace(SHIPPED.court, vote_deposit=Wei(0)))


def of_price(ppm: int, price: Wei = JOB) -> Wei:
    return Wei(int(share(ppm) * price))
