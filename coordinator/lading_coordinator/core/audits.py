"""The policy of spot checks: what is picked, whom to ask next, when to accuse, and a dispute's next step. Pure.

One word clears a receipt; any other finding goes to three auditors, who know nothing of each other, and two of three
decide. Nobody is accused on "cannot say", on silence, or on one auditor's word.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from lading_protocol import lots
from lading_protocol.audit import Verdict
from lading_protocol.court import Phase
from lading_protocol.economics import AuditRates
from lading_protocol.ids import Address

MAJORITY = 2
# A host that does not open its sketch is asked so often; then it is suspect.
OPENING_TRIES = 3


class Policy(msgspec.Struct, frozen=True):
    """At most `tries` auditors are asked about one receipt. `least_ppm` of receipts are checked whatever the host's
    record. A host has `opening_pause` seconds between two askings for its sketch.
    """

    rates: AuditRates = AuditRates()
    least_ppm: int = 0
    tries: int = 6
    opening_pause: float = 300.0


class Question(msgspec.Struct, frozen=True):
    """A receipt that was picked. `expected` is the verdict for which one word is enough: that of a canary is GUILTY.

    `secret` is the coordinator's of the round, fixed before the randomness and told when all is over: an auditor that
    knew whether a second one looks would lie only when none does.
    """

    randomness: bytes
    leaf: bytes
    secret: bytes = b""
    expected: Verdict = Verdict.HONEST


class Opinion(msgspec.Struct, frozen=True):
    """What one auditor said; UNKNOWN also stands for a refusal and for silence."""

    auditor: Address
    verdict: Verdict


class AskNext(msgspec.Struct, frozen=True):
    auditor: Address


class Conclude(msgspec.Struct, frozen=True):
    """GUILTY means: take it to the court."""

    verdict: Verdict
    reason: str


class Wait(msgspec.Struct, frozen=True):
    """Nobody can be asked now."""

    reason: str


def host_ppm(clean: int, suspect: bool, policy: Policy) -> int:
    """The share of a host's receipts that are checked, in millionths, after `clean` audits without a fault."""
    return max(policy.rates.host_ppm(clean, suspect), policy.least_ppm)


def judge(
    question: Question, opinions: Sequence[Opinion], stakes: Mapping[Address, int], policy: Policy
) -> AskNext | Conclude | Wait:
    """What to do about one receipt, given what was said so far and the stakes of all who could be asked."""
    said: list[Verdict] = [one.verdict for one in opinions if one.verdict is not Verdict.UNKNOWN]
    settled = _settled(question, said, policy)
    if settled is not None:
        return Conclude(settled, f"{said.count(settled)} of {len(opinions)} auditors found it {WORDS[settled]}")
    asked = {one.auditor for one in opinions}
    left = {who: stake for who, stake in stakes.items() if who not in asked}
    next_ = lots.auditor(question.randomness, question.leaf, len(opinions), left)
    agreed = bool(said) and set(said) == {question.expected}
    if next_ is not None and len(opinions) < policy.tries:
        return AskNext(next_)
    if agreed:  # only the second look is missing, which is a sample anyway
        return Conclude(question.expected, f"1 of {len(opinions)} auditors found it {WORDS[question.expected]}")
    if len(opinions) >= policy.tries:
        return Conclude(Verdict.UNKNOWN, "too few auditors could say" if said else "the auditors could not say")
    if said:
        return Wait("more auditors must look, and no other one is linked here")
    return Wait("no other host that is linked here serves this agent")


WORDS = {Verdict.HONEST: "right", Verdict.GUILTY: "wrong", Verdict.UNKNOWN: "not decidable"}


def _settled(question: Question, said: Sequence[Verdict], policy: Policy) -> Verdict | None:
    for verdict in Verdict:
        if said.count(verdict) >= MAJORITY:  # "cannot say" is not among them
            return verdict
    alone = len(said) == 1 and said[0] is question.expected
    if alone and not lots.wants_second(question.secret, question.randomness + question.leaf, policy.rates.reaudit_ppm):
        return question.expected
    return None


def outvoted(opinions: Sequence[Opinion], verdict: Verdict) -> list[Address]:
    """Those who said the opposite of what a majority decided."""
    said = [one.verdict for one in opinions]
    if verdict is Verdict.UNKNOWN or said.count(verdict) < MAJORITY:
        return []
    return [one.auditor for one in opinions if one.verdict not in (verdict, Verdict.UNKNOWN)]


class Asked(msgspec.Struct, frozen=True):
    """How often a host was asked for its sketch, when last (Unix seconds), and whether it came."""

    tries: int = 0
    at: float = 0.0
    opened: bool = False


def may_check(asked: Asked, policy: Policy, now: float) -> bool:
    """Whether an auditor may be asked now: a host that did not open is given time before it is asked again."""
    return asked.opened or not 0 < asked.tries < OPENING_TRIES or now >= asked.at + policy.opening_pause


def is_silent(asked: Asked) -> bool:
    """Whether the host never opened, however often it was asked. That is suspect and proves nothing."""
    return not asked.opened and asked.tries >= OPENING_TRIES


def must_ask_again(before: Asked, asked: Asked, verdict: Verdict) -> bool:
    """Whether a finding made without the sketch is dropped, and the host asked again later. Proof needs no sketch.

    `before` is how it stood before this auditor was asked: what it says without the host having been asked counts, as
    else the same question would be put to it for ever.
    """
    missed = asked.tries > before.tries and not asked.opened
    return verdict is not Verdict.GUILTY and missed and asked.tries < OPENING_TRIES


class Trial(msgspec.Struct, frozen=True):
    """A dispute as the court shows it. Deadlines are Unix seconds, exclusive."""

    phase: Phase
    draw_block: int
    reveal_by: int
    appeal_by: int
    seats: int
    revealed: int


class Step(Enum):
    WAIT = "wait"
    DRAW = "draw"
    TALLY = "tally"
    EXECUTE = "execute"
    END = "end"


def next_step(trial: Trial, now: int, head: int) -> Step:
    """What anyone may do for the dispute at chain time `now` and block `head`; repeating it does no harm."""
    match trial.phase:
        case Phase.DRAWING:
            return Step.DRAW if head > trial.draw_block else Step.WAIT
        case Phase.VOTING:
            done = (trial.seats and trial.revealed >= trial.seats) or now >= trial.reveal_by
            return Step.TALLY if done else Step.WAIT
        case Phase.RULED:
            return Step.EXECUTE if now >= trial.appeal_by else Step.WAIT
        case Phase.NONE | Phase.ASKED:
            return Step.WAIT
        case Phase.CLOSED | Phase.VOID:
            return Step.END
