"""The policy of spot checks: what is picked, whom to ask next, when to accuse, and a dispute's next step. Pure.

Nobody is accused on "cannot say", and one auditor's word is confirmed by a second wherever there is one: the bond at
stake is the coordinator's own.
"""

from collections.abc import Sequence
from enum import Enum, IntEnum

import msgspec

from lading_protocol.audit import Verdict, choose, is_picked
from lading_protocol.ids import Address


class Policy(msgspec.Struct, frozen=True):
    """`rate_ppm` of all receipts are checked; `beacon_blocks` lie between an anchor and its randomness.

    At most `tries` auditors are asked about one receipt.
    """

    rate_ppm: int = 20_000
    beacon_blocks: int = 1
    tries: int = 4


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


def picked(leaves: Sequence[bytes], randomness: bytes, policy: Policy) -> list[bytes]:
    return [leaf for leaf in leaves if is_picked(randomness, leaf, policy.rate_ppm)]


def judge(
    opinions: Sequence[Opinion], candidates: Sequence[Address], randomness: bytes, leaf: bytes, policy: Policy
) -> AskNext | Conclude | Wait:
    """What to do about one receipt, given what was said so far and who could be asked."""
    guilty = sum(1 for one in opinions if one.verdict is Verdict.GUILTY)
    honest = sum(1 for one in opinions if one.verdict is Verdict.HONEST)
    asked = {one.auditor for one in opinions}
    left = [Address(who) for who in choose(randomness, leaf, candidates, len(candidates)) if who not in asked]
    if honest > guilty:
        return Conclude(Verdict.HONEST, f"{honest} of {len(opinions)} auditors found it right")
    if guilty - honest >= 2 or (guilty > honest and not left):
        return Conclude(Verdict.GUILTY, f"{guilty} of {len(opinions)} auditors found it wrong")
    if len(opinions) >= policy.tries:
        return Conclude(Verdict.UNKNOWN, "the auditors could not say" if not guilty else "the auditors disagree")
    if left:
        return AskNext(left[0])
    return Wait("no other host that is linked here serves this agent")


class Phase(IntEnum):
    """The court's phases of a dispute."""

    NONE = 0
    DRAWING = 1
    VOTING = 2
    RULED = 3
    CLOSED = 4
    VOID = 5


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
        case Phase.NONE:
            return Step.WAIT
        case Phase.CLOSED | Phase.VOID:
            return Step.END
