"""What honesty is worth: the shipped numbers of spot checks and court, and when a cheat loses by them. Pure.

Amounts are wei, shares are millionths (ppm) where a program sets them and fractions where they are derived, so that no
rounding decides who gains; where one must be rounded it is in the cheat's favour. docs/economics.md tells it in words.
"""

from enum import Enum
from fractions import Fraction
from math import ceil, comb, floor

import msgspec

from lading_protocol.ids import Wei

MILLION = 1_000_000
_BPS = 10_000
_COIN = 10**18
_HOUR, _DAY = 3_600, 86_400
# As often as the court lets rulings be appealed.
MOST_APPEALS = 2
# Powers are kept to so many binary places, rounded up.
_PLACES = 1 << 96


class AuditRates(msgspec.Struct, frozen=True):
    """How often who is checked, in millionths. Every coordinator's policy reads these numbers from here.

    A new host's share is `new_ppm`. It falls with every audit without a fault: to `base_ppm` after
    `clean_audits_to_base` of them, on towards zero, and never below `floor_ppm`. A suspect host's share is
    `suspect_factor` times as high. `reaudit_ppm` of clean findings get a second auditor, and for each `canary_ppm` of
    audits there is one more, of a known fault.
    """

    base_ppm: int = 20_000
    new_ppm: int = 200_000
    floor_ppm: int = 10_000
    suspect_factor: int = 10
    reaudit_ppm: int = 100_000
    canary_ppm: int = 10_000
    clean_audits_to_base: int = 1_080

    def host_ppm(self, clean: int, suspect: bool) -> int:
        """The share of a host's receipts that is checked after `clean` audits without a fault."""
        way = self.clean_audits_to_base * self.base_ppm
        share = max(self.new_ppm * way // (way + clean * (self.new_ppm - self.base_ppm)), self.floor_ppm)
        return min(share * (self.suspect_factor if suspect else 1), MILLION)


class CourtTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain holds and takes. Every deployment reads these numbers from here.

    `min_stake` and `bond` in wei. `slash_bps` of the stake is taken; of that, `reward_bps` go to jurors and
    `finder_bps` to the accuser, `burn_bps` are destroyed, and the consumer is refunded from what is left. Each vote of
    a juror sets `vote_deposit` (wei) of its surety aside, and loses it to the right side when it is outvoted in the
    end. Windows and times in seconds.
    """

    min_stake: Wei = Wei(1_000 * _COIN)
    cooldown: int = 21 * _DAY
    bond: Wei = Wei(100 * _COIN)
    slash_bps: int = 5_000
    burn_bps: int = 3_000
    reward_bps: int = 3_000
    finder_bps: int = 2_000
    committee_size: int = 3
    quorum: int = 2
    commit_window: int = 6 * _HOUR
    reveal_window: int = 6 * _HOUR
    appeal_window: int = _DAY
    jail_time: int = 7 * _DAY
    vote_deposit: Wei = Wei(10 * _COIN)

    @property
    def verdict_seconds(self) -> int:
        """From a dispute's opening to its end when everybody uses every second and nobody appeals."""
        return self.commit_window + self.reveal_window + self.appeal_window

    def slash(self, stake: Wei) -> Wei:
        return Wei(stake * self.slash_bps // _BPS)


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """All that the honesty condition depends on and a program sets.

    `escrow` is for how many seconds pay can be forfeited after it was earned: none, because a voucher pays whoever
    holds it and no court can take it back. `audit_pay_ppm` of a job's price is what an auditor gets for a finding.
    """

    rates: AuditRates = AuditRates()
    court: CourtTerms = CourtTerms()
    escrow: int = 0
    audit_pay_ppm: int = 100_000


SHIPPED = Shipped()


# ---- who sees a fault


def panel(colluding: Fraction, reaudit: Fraction) -> Fraction:
    """The chance that a fault which every honest auditor sees is taken to court: two of three must call it that.

    With a share r of colluders who clear each other, and p2 of clean findings looked at twice: the first auditor is
    honest (1-r), then the second (1-r) or else the third (r(1-r)) agrees; or the first colludes (r), a second look
    comes (p2), and both others are honest ((1-r)^2). Together (1-r)^2 (1 + r + r p2). Were one honest word enough, it
    would be 1 - r(1 - p2(1-r)): the price of never accusing on one auditor's word.
    """
    honest = 1 - colluding
    return honest**2 * (1 + colluding + colluding * reaudit)


def framed(colluding: Fraction, reaudit: Fraction) -> Fraction:
    """The chance that colluders take an honest receipt that is audited to court: `panel` with the sides exchanged,
    except that an honest first word mostly ends it. r^2 (2 - r + p2 (1-r))."""
    return colluding**2 * (2 - colluding + reaudit * (1 - colluding))


def committee(honest: Fraction, size: int, quorum: int) -> Fraction:
    """The chance that a committee drawn from all operators rules as its honest members do."""
    return sum((comb(size, k) * honest**k * (1 - honest) ** (size - k) for k in range(quorum, size + 1)), Fraction(0))


def convicted(honest: Fraction, terms: CourtTerms, appeals: int) -> Fraction:
    """The chance that a last committee after `appeals` finds right. Each appeal makes 2n + 1 jurors of n; only the
    last ruling counts."""
    size = ((terms.committee_size + 1) << appeals) - 1
    return committee(honest, size, max(size // 2 + 1, terms.quorum))


def detection(caught_ppm: int, colluding_ppm: int, rules: Shipped = SHIPPED) -> Fraction:
    """d_eff: the chance that an audited job with a fault ends in a slash. `caught_ppm` of such jobs show evidence that
    proves it; then the panel and the first committee must both rule against the colluders among them."""
    r = share(colluding_ppm)
    return share(caught_ppm) * panel(r, share(rules.rates.reaudit_ppm)) * committee(1 - r, *_sizes(rules.court))


# ---- a host


class Temptation(msgspec.Struct, frozen=True):
    """One cheated job: what is saved (wei), what a conviction takes whenever it comes (`loss`, wei), what it takes for
    each job whose pay is not settled (`forfeit`, wei), and the chance that a job convicts (audit rate x d_eff)."""

    saving: Wei
    loss: Wei
    forfeit: Wei
    caught: Fraction


def least_rate(saving: Wei, loss: Wei, forfeit: Wei, seen: Fraction, false_ppm: int = 0) -> int | None:
    """p_min: the smallest audit rate (ppm) at which the next cheated job costs more than it saves; None: no rate does.

    A job saves g. Audited (p), it is convicted with d_eff = `seen` and costs S + R; an honest host, too, loses S with
    the false rate f. Cheating loses when p (d_eff (S + R) - f S) > g. The left side is linear in the number of jobs,
    so cheating on a part of them gains nothing either. (PoSP, arXiv 2405.00295, is the case d = 1, f = 0.)
    """
    at_risk = seen * (loss + forfeit) - share(false_ppm) * loss
    if at_risk <= 0:
        return None
    rate = floor(Fraction(saving) / at_risk * MILLION) + 1
    return rate if rate <= MILLION else None


def gain(tempted: Temptation, jobs: int) -> Fraction:
    """What `jobs` cheated jobs bring over honest ones before anybody can stop them, in wei: a stake is lost only once.

    N g - (S + N R) (1 - (1 - q)^N); never less than it truly is.
    """
    undetected = _power(1 - tempted.caught, jobs)
    return jobs * tempted.saving - (tempted.loss + jobs * tempted.forfeit) * (1 - undetected)


def break_even(tempted: Temptation) -> int | None:
    """From how many jobs on hit-and-run pays; None: it never does.

    Where the first job does not pay, the gain falls while the stake is likely to be kept, and rises by g - R for each
    job once it is as good as lost: it crosses zero once, or never when R >= g.
    """
    if gain(tempted, 1) > 0:
        return 1
    if tempted.forfeit >= tempted.saving:
        return None
    high = 2
    while gain(tempted, high) <= 0:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gain(tempted, middle) > 0 else (middle, high)
    return high


def safe_revenue(stake: Wei, saving_ppm: int, seconds: int, terms: CourtTerms, colluding_ppm: int) -> Wei:
    """The revenue a day up to which a host that cheats on every job until the court has ruled loses by it.

    `saving_ppm` of its revenue are saved; it is found after `seconds`, and acquitted cases follow each other until one
    convicts: 1 / P(convicted) of them. What is saved until then must not exceed the slash.
    """
    trials = 1 / committee(1 - share(colluding_ppm), *_sizes(terms))
    days = (seconds + terms.verdict_seconds * trials) / _DAY
    return Wei(floor(terms.slash(stake) / (share(saving_ppm) * days)))


# ---- an auditor


def least_canaries(cost: Wei, pay: Wei, at_stake: Wei, noticed_ppm: int) -> int | None:
    """kappa: the smallest share of canaries (ppm) at which approving without looking loses, or None.

    Looking costs c. Not looking saves it, and loses pay B and whatever an auditor has at stake when it meets a canary
    and that is noticed: kappa x noticed x (B + S_v) > c.
    """
    at_risk = share(noticed_ppm) * (pay + at_stake)
    if at_risk <= 0:
        return None
    rate = floor(Fraction(cost) / at_risk * MILLION) + 1
    return rate if rate <= MILLION else None


def fee_for_audits(pay: Wei, price: Wei, rate_ppm: int, rates: AuditRates) -> int:
    """The share of turnover (ppm) that pays `pay` for every finding: audits, second looks and canaries."""
    looks = share(rate_ppm) * (1 + share(rates.reaudit_ppm) + share(rates.canary_ppm))
    return ceil(looks * Fraction(pay, price) * MILLION)


# ---- false accusers, and clients


class Appellant(Enum):
    """Who appeals a wrong conviction, as often as the court lets it."""

    HOST = "the host"
    MINORITY = "an honest juror, if one sits"
    NOBODY = "nobody"


class Frame(msgspec.Struct, frozen=True):
    """What comes of one audit of an honest receipt when colluders accuse: the chance that a court hears of it, that the
    stake is lost in the end, and what accuser (its bond) and colluding jurors may expect from it, in wei.

    `ring` is what a case brings to jurors and accuser when they are one gang, which needs no auditor to accuse.
    """

    accused: Fraction
    slashed: Fraction
    accuser: Fraction
    colluders: Fraction
    ring: Fraction


def frame(colluding_ppm: int, stake: Wei, by: Appellant, rules: Shipped = SHIPPED) -> Frame:
    """A false accusation of an honest host of which the share `colluding_ppm` of auditors and jurors is part.

    It is slashed only when every committee errs. While a wrong vote costs nothing (`vote_deposit` 0) a case is a
    lottery ticket to them that somebody else paid.
    """
    r = share(colluding_ppm)
    accused = framed(r, share(rules.rates.reaudit_ppm))
    case = _rounds(_Jury(r, by, rules.court, rules.court.slash(stake)), 0, 0, 0, 0)
    return Frame(
        accused=accused,
        slashed=accused * case.slashed,
        accuser=accused * case.accuser,
        colluders=accused * case.jurors,
        ring=case.accuser + case.jurors,
    )


def frames_from(stake: Wei, by: Appellant, *, ring: bool = False, rules: Shipped = SHIPPED) -> int | None:
    """The smallest share of colluders, in whole percent, at which framing brings more than it costs; None: at none."""
    for percent in range(1, 100):
        found = frame(percent * 10_000, stake, by, rules)
        if (found.ring if ring else found.colluders) > 0:
            return percent
    return None


class _Jury(msgspec.Struct, frozen=True):
    colluding: Fraction
    by: Appellant
    court: CourtTerms
    slashed: Wei


class _Case(msgspec.Struct, frozen=True):
    """Expected of a case: that the stake is lost, what its accuser and what colluding jurors get or lose (wei)."""

    slashed: Fraction
    accuser: Fraction
    jurors: Fraction


def _rounds(jury: _Jury, appeals: int, liars: int, honest: int, bonds: int) -> _Case:
    """From the draw of a committee on, after `appeals` whose committees had `liars` and `honest` in all; those who
    appealed have `bonds` (wei) at stake. Over every number of colluders that can be drawn."""
    court, r = jury.court, jury.colluding
    size = ((court.committee_size + 1) << appeals) - 1
    slashed = accuser = jurors = Fraction(0)
    for drawn in range(size + 1):
        chance = comb(size, drawn) * r**drawn * (1 - r) ** (size - drawn)
        so_far = liars + drawn, honest + size - drawn
        if drawn < max(size // 2 + 1, court.quorum):
            case = _Case(Fraction(0), Fraction(-court.bond), Fraction(-court.vote_deposit * so_far[0]))
        elif appeals < MOST_APPEALS and _appealed(jury.by, size - drawn):
            case = _rounds(jury, appeals + 1, *so_far, bonds + (court.bond << (appeals + 1)))
        else:
            case = _convicted(jury, so_far[1], bonds)
        slashed, accuser = slashed + chance * case.slashed, accuser + chance * case.accuser
        jurors += chance * case.jurors
    return _Case(slashed, accuser, jurors)


def _appealed(by: Appellant, honest: int) -> bool:
    return by is Appellant.HOST or (by is Appellant.MINORITY and honest > 0)


def _convicted(jury: _Jury, honest: int, bonds: int) -> _Case:
    """All colluders voted as ruled: they share the reward, what honest jurors lost, and half of the lost bonds; the
    accuser has its fee and the other half."""
    court, slashed = jury.court, jury.slashed
    reward, fee = Fraction(court.reward_bps * slashed, _BPS), Fraction(court.finder_bps * slashed, _BPS)
    return _Case(Fraction(1), fee + Fraction(bonds, 2), reward + court.vote_deposit * honest + Fraction(bonds, 2))


def harm(done: Wei, spent: Wei) -> Fraction:
    """Griefing: wei of damage for each wei that the attacker spends. Below 1 it costs the attacker more."""
    return Fraction(done, spent)


def share(ppm: int) -> Fraction:
    return Fraction(ppm, MILLION)


def _sizes(terms: CourtTerms) -> tuple[int, int]:
    return terms.committee_size, max(terms.committee_size // 2 + 1, terms.quorum)


def _power(base: Fraction, exponent: int) -> Fraction:
    """At least base ** exponent, for a base between 0 and 1, in bounded size."""
    result, square = _PLACES, ceil(base * _PLACES)
    while exponent:
        if exponent & 1:
            result = -(-result * square // _PLACES)
        square = -(-square * square // _PLACES)
        exponent >>= 1
    return Fraction(result, _PLACES)
