"""A host's career under spot checks, job by job, judged by the coordinator's own policy and none of its own.

Ours is what the policy meets: a crowd of auditors and operators, what a cheat saves and shows, days, and money. Chance
comes from a seed. Tokens are not modelled: what an honest auditor sees of a cheat is a share of jobs that prove it and
a drift of the long record, both measured elsewhere (docs/verification.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import sqrt

import msgspec

from lading_coordinator.audits.conduct import SUSPICION, WINDOW
from lading_coordinator.core.audits import (
    Asked,
    AskNext,
    Conclude,
    Opinion,
    Policy,
    Question,
    host_ppm,
    is_silent,
    judge,
    outvoted,
)
from lading_coordinator.core.conduct import STRIKES, AuditorRecord, host_bar, resting, struck_off
from lading_protocol.audit import Verdict, is_picked
from lading_protocol.conduct import Honest, Sums, suspicion
from lading_protocol.economics import MOST_APPEALS, SHIPPED, Appellant, CourtTerms
from lading_protocol.ids import Address

DAY = 86_400
RECEIPT_DAYS = 7
TOKENS = 128
# One signal of the long record is enough here, in units that make an honest job's sum a normal number.
HONEST = Honest(clipped=0.001, clipped_sd=0.0001)
AUDITORS, OPERATORS = 24, 100
NAMES = tuple(Address(n.to_bytes(20, "big")) for n in range(1, AUDITORS + 1))


class Cheat(msgspec.Struct, frozen=True, kw_only=True):
    """What a host does. `share` of its jobs are cheated; each saves `saving_ppm` of its price; audited, `caught_ppm`
    prove it to whoever looks, and each adds `drift` standard deviations to the long record.

    `leaves`: it ends its career with the first conviction. `renames`: jailed or barred, it goes on at once under a new
    name with another stake.
    """

    name: str
    share: float = 1.0
    saving_ppm: int = 0
    caught_ppm: int = 0
    drift: float = 0.0
    opens: bool = True
    leaves: bool = False
    renames: bool = False


class Crowd(msgspec.Struct, frozen=True):
    """Shares of all auditors and operators. Colluders clear the host, or accuse it when they `frame`; lazy ones
    approve without looking, which shows at once where answers are `sketched`, and otherwise to canaries only."""

    colluding: float = 0.0
    lazy: float = 0.0
    frame: bool = False
    sketched: bool = True


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The policy and what surrounds it. What is not shipped has its shipped value as default.

    `window` are the epochs (days) for which suspicion and long records count; suspicion lasts `suspect_days`.
    `bars_accused`: no jobs while a dispute is open. An auditor whose accusations the court contradicted `strikes_false`
    times is never asked again (0: it always is). `escrow_days` of pay are lost with a conviction. `appeals` says who
    appeals the conviction of an innocent.
    """

    policy: Policy = Policy()
    court: CourtTerms = SHIPPED.court
    window: int = WINDOW
    suspect_days: int = SUSPICION
    bars_accused: bool = False
    strikes_false: int = STRIKES
    escrow_days: float = 0.0
    appeals: Appellant = Appellant.HOST


class Tally(msgspec.Struct):
    """What a career came to. `forfeited` jobs were served and not paid; `acquitted` disputes cost the accuser.
    `framers` is what colluding jurors got and lost by cases against an innocent of the least stake (wei)."""

    jobs: int = 0
    cheated: int = 0
    forfeited: int = 0
    audits: int = 0
    suspect_days: int = 0
    idle_days: int = 0
    accused: int = 0
    convicted: int = 0
    acquitted: int = 0
    names: int = 1
    missed: int = 0
    barred_on: int = -1
    framers: int = 0


class Case(msgspec.Struct, frozen=True):
    """A dispute: whether the host did it, who accused it, since when, and when the court is done (days)."""

    true: bool
    accusers: tuple[Address, ...]
    since: float
    ends: float = 0.0


class Name(msgspec.Struct):
    """What a coordinator knows of a host under one name: audits without a fault since the last suspicion, the
    epochs in which it became suspect, the long record by day and auditor, and its sums as of a day."""

    clean: int = 0
    suspect_on: list[int] = []
    record: list[tuple[int, Address, Sums]] = []
    sums: dict[Address, Sums] = {}
    sums_of: int = -1
    jailed_until: float = -1.0


class Career:
    """`run` it once, `jobs` a day for `days`. `marks` then say how many jobs had been served when a day began."""

    def __init__(self, cheat: Cheat, crowd: Crowd, rules: Rules, seed: int) -> None:
        self._cheat = cheat
        self._crowd = crowd
        self._rules = rules
        self._rng = random.Random(seed)
        self._friends = set(NAMES[: round(crowd.colluding * AUDITORS)])
        self._idle = set(NAMES[AUDITORS - round(crowd.lazy * AUDITORS) :])
        self._struck: set[Address] = set()
        self._broken: dict[Address, int] = {}
        self._outvoted: dict[Address, int] = {}
        self._contradicted: dict[Address, int] = {}
        self._name = Name()
        self._open: Case | None = None
        self._queue: list[Case] = []
        self.marks: list[tuple[int, int]] = []
        self._settled = 0
        self.tally = Tally()

    def run(self, jobs: int, days: int) -> Tally:
        for day in range(days):
            self._broken, self._outvoted = {}, {}
            self._settle(float(day))
            if self._kept_out(day):
                self.tally.idle_days += 1
                continue
            self.marks.append((day, self.tally.jobs))
            for now in self._serve(day, jobs):
                self._settle(now)
                if self._name.jailed_until > now or (self._rules.bars_accused and self._open):
                    break
            if self._cheat.leaves and self.tally.convicted:
                break
        while self._open is not None:  # what is under way when the career ends is still ruled on
            self._settle(self._open.ends)
        return self.tally

    # ---- jobs

    def _serve(self, day: int, jobs: int) -> Iterator[float]:
        rng, cheat, tally, policy = self._rng, self._cheat, self.tally, self._rules.policy
        randomness, secret = rng.randbytes(32), rng.randbytes(32)
        rate, known = self._rate(day), (self._name.clean, len(self._name.suspect_on))
        for n in range(jobs):
            cheats = rng.random() < cheat.share
            leaf = rng.randbytes(32)
            tally.jobs += 1
            tally.cheated += cheats
            if is_picked(randomness, leaf, rate):
                tally.audits += 1
                now = day + (n + 1) / jobs
                self._audit(Question(randomness, leaf, secret), cheats, now)
                self._canary(policy, day)
                if (self._name.clean, len(self._name.suspect_on)) != known:
                    rate, known = self._rate(day), (self._name.clean, len(self._name.suspect_on))
                yield now
            elif self._open is not None and self._open.ends <= day + n / jobs:
                yield day + n / jobs

    def _rate(self, day: int) -> int:
        return host_ppm(self._name.clean, self._is_suspect(day), self._rules.policy)

    def _is_suspect(self, day: int) -> bool:
        return any(day - on < self._rules.suspect_days for on in self._name.suspect_on)

    # ---- audits

    def _audit(self, question: Question, cheats: bool, now: float) -> None:
        proven = cheats and self._rng.random() < self._cheat.caught_ppm / 1_000_000
        truth = Verdict.GUILTY if proven else Verdict.HONEST
        opinions = self._panel(question, truth, about_friend=True)
        verdict = opinions[1]
        for who in outvoted(opinions[0], verdict):
            self._outvoted[who] = self._outvoted.get(who, 0) + 1
        if proven and verdict is Verdict.HONEST:
            self.tally.missed += 1
        day = int(now - 1e-9)
        if not self._cheat.opens and is_silent(Asked(tries=3)):
            self._suspect(day)
        if verdict is Verdict.GUILTY:
            self._name.clean = 0
            self.tally.accused += 1
            accusers = tuple(one.auditor for one in opinions[0] if one.verdict is Verdict.GUILTY)
            self._queue.append(Case(proven, accusers, now))
            self._next_case(now)
        elif verdict is Verdict.HONEST:
            self._name.clean += 1
            first = next(one.auditor for one in opinions[0] if one.verdict is Verdict.HONEST)
            self._learn(first, cheats, day)

    def _panel(self, question: Question, truth: Verdict, about_friend: bool) -> tuple[list[Opinion], Verdict]:
        """Ask until the policy concludes."""
        stakes = {who: 1 for who in NAMES if not self._excluded(who)}
        opinions: list[Opinion] = []
        while True:
            match judge(question, opinions, stakes, self._rules.policy):
                case AskNext(who):
                    opinions.append(Opinion(who, self._word(who, truth, about_friend)))
                case Conclude(verdict, _):
                    return opinions, verdict
                case _:
                    return opinions, Verdict.UNKNOWN

    def _word(self, who: Address, truth: Verdict, about_friend: bool) -> Verdict:
        if who in self._friends and about_friend:
            return Verdict.GUILTY if self._crowd.frame else Verdict.HONEST
        if who in self._idle:
            if not self._crowd.sketched:
                return Verdict.HONEST
            self._broken[who] = self._broken.get(who, 0) + 1
            return Verdict.UNKNOWN  # what it shows cannot be what a real re-run gives
        return truth

    def _excluded(self, who: Address) -> bool:
        missed = int(who in self._struck)
        record = AuditorRecord(
            missed=missed, broken_now=self._broken.get(who, 0), outvoted_now=self._outvoted.get(who, 0)
        )
        return bool(struck_off(record) or resting(record))

    def _canary(self, policy: Policy, day: int) -> None:
        """One audit in so many comes with a canary, which may meet any auditor of the agent."""
        if self._rng.random() >= policy.rates.canary_ppm / 1_000_000:
            return
        question = Question(self._rng.randbytes(32), self._rng.randbytes(32), b"", Verdict.GUILTY)
        opinions, verdict = self._panel(question, Verdict.GUILTY, about_friend=False)
        if verdict is Verdict.GUILTY:
            self._struck |= {one.auditor for one in opinions if one.verdict is Verdict.HONEST}

    # ---- the long record

    def _learn(self, auditor: Address, cheats: bool, day: int) -> None:
        drift = self._cheat.drift if cheats and auditor not in self._friends | self._idle else 0.0
        z = self._rng.gauss(0.0, 1.0) + drift
        clipped = max(TOKENS * HONEST.clipped + HONEST.clipped_sd * sqrt(TOKENS) * z, 0.0)
        added = Sums(audits=1, tokens=TOKENS, clipped=clipped)
        name = self._name
        if name.sums_of != day:
            self._open_day(day)
        name.record.append((day, auditor, added))
        name.sums[auditor] = name.sums.get(auditor, Sums()) + added
        if day not in name.suspect_on and suspicion(name.sums, HONEST):
            self._suspect(day)

    def _open_day(self, day: int) -> None:
        """As audits.conduct: an epoch in which the host became suspect is spent, with all before it."""
        name = self._name
        first = max(day - self._rules.window, max(name.suspect_on, default=-1))
        name.record = [one for one in name.record if one[0] > first]
        name.sums, name.sums_of = {}, day
        for _, who, one in name.record:
            name.sums[who] = name.sums.get(who, Sums()) + one

    def _suspect(self, day: int) -> None:
        if day in self._name.suspect_on:
            return
        self._name.suspect_on.append(day)
        self._name.clean = 0

    def _kept_out(self, day: int) -> bool:
        """Whether the host gets no jobs this day; with a new name it does."""
        self.tally.suspect_days += self._is_suspect(day)
        if self._rules.bars_accused and self._open is not None:
            return True
        epochs = sum(on > day - self._rules.window for on in self._name.suspect_on)
        barred = bool(host_bar(epochs, twins=False))
        if barred and self.tally.barred_on < 0:
            self.tally.barred_on = day
        if not barred and self._name.jailed_until <= day:
            return False
        if not self._cheat.renames:
            return True
        self._name = Name()
        self._queue, self._open = [], None
        self.tally.names += 1
        return False

    # ---- the court

    def _next_case(self, now: float) -> None:
        """One case at a time; the court takes no old receipt."""
        if self._open is not None:
            return
        self._queue = [case for case in self._queue if now - case.since <= RECEIPT_DAYS]
        if self._queue:
            case = self._queue.pop(0)
            self._open = msgspec.structs.replace(case, ends=now + self._rules.court.verdict_seconds / DAY)

    def _settle(self, now: float) -> None:
        """Rule on what is due."""
        while self._open is not None and self._open.ends <= now:
            case, self._open = self._open, None
            if self._rule(case.true):
                self._convict(case.ends)
            else:
                self.tally.acquitted += 1
                self._contradict(case.accusers)
                self._next_case(case.ends)

    def _contradict(self, accusers: tuple[Address, ...]) -> None:
        for who in accusers:
            self._contradicted[who] = self._contradicted.get(who, 0) + 1
            if 0 < self._rules.strikes_false <= self._contradicted[who]:
                self._struck.add(who)

    def _convict(self, at: float) -> None:
        self.tally.convicted += 1
        self._name.jailed_until = at + self._rules.court.jail_time / DAY
        self._queue = []
        if self._rules.escrow_days:
            since = max(self._settled, self._jobs_at(at - self._rules.escrow_days))
            self.tally.forfeited += self.tally.jobs - since
            self._settled = self.tally.jobs

    def _jobs_at(self, moment: float) -> int:
        """How many jobs had been served by then, with those of a day spread over it."""
        ends = [*(served for _, served in self.marks[1:]), self.tally.jobs]
        for (day, served), end in zip(self.marks, ends, strict=True):
            if day + 1 > moment:
                return served + int((end - served) * max(moment - day, 0.0))
        return self.tally.jobs

    def _rule(self, true: bool) -> bool:
        """Whether the host is convicted in the end: an innocent's conviction is appealed as often as may be."""
        terms, size, by = self._rules.court, self._rules.court.committee_size, self._rules.appeals
        lied = honest = bonds = 0
        for appeals in range(MOST_APPEALS + 1):
            jurors = self._rng.sample(range(OPERATORS), size)
            liars = sum(juror < self._crowd.colluding * OPERATORS for juror in jurors)
            lied, honest = lied + liars, honest + size - liars
            wrong = liars >= max(size // 2 + 1, terms.quorum)
            guilty = self._crowd.frame if wrong else true
            if not guilty:
                self._pay_framers(true, -lied * terms.vote_deposit)
                return False
            appealed = by is Appellant.HOST or (by is Appellant.MINORITY and liars < size)
            if true or not appealed or appeals == MOST_APPEALS:
                break
            bonds += terms.bond << (appeals + 1)
            size = 2 * size + 1
        reward = terms.slash(terms.min_stake) * terms.reward_bps // 10_000
        self._pay_framers(true, reward + honest * terms.vote_deposit + bonds // 2)
        return True

    def _pay_framers(self, true: bool, amount: int) -> None:
        if self._crowd.frame and not true:
            self.tally.framers += amount
