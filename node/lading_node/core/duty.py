"""What a juror does next about one dispute: a pure decision over the court's state, its own vote and the time.

`now` is the newest block's timestamp, for that is the clock the court goes by.
"""

from enum import Enum

import msgspec

from lading_protocol.court import Phase

# Every seat waits a little longer than the one before it to tally or execute, so that not all pay for the same step.
STAGGER_SECONDS = 5
# As often as the court lets rulings be appealed.
MOST_APPEALS = 2
HONEST, GUILTY = 1, 2


class Docket(msgspec.Struct, frozen=True):
    """What the court says about a dispute's current round. Deadlines are Unix seconds, 0 when not set."""

    phase: Phase
    round: int
    commit_by: int
    reveal_by: int
    appeal_by: int
    seats: int
    committed: int
    revealed: int
    verdict: int = 0
    appeals: int = 0


class Next(Enum):
    WAIT = "wait"
    DECIDE = "decide"  # fetch the case, re-run it, write the vote down
    COMMIT = "commit"
    REVEAL = "reveal"
    TALLY = "tally"
    APPEAL = "appeal"  # a conviction that we, who re-ran the job, know to be wrong
    EXECUTE = "execute"
    DONE = "done"


class Seat(msgspec.Struct, frozen=True):
    """Our place on a committee. `stage` is that of our vote: "" none yet, decided, committed, revealed, abstained;
    "outvoted" when it is known what comes of an appeal. `said` is our verdict, 0 for none."""

    round: int
    number: int
    stage: str = ""
    said: int = 0


def next_step(dispute: Docket | None, seat: Seat, now: int) -> Next:
    if dispute is None or dispute.phase in (Phase.NONE, Phase.CLOSED, Phase.VOID):
        return Next.DONE
    if dispute.round != seat.round:
        return Next.DONE
    late = STAGGER_SECONDS * (seat.number + 1)
    if dispute.phase is Phase.RULED:
        if _wronged(dispute, seat) and now < dispute.appeal_by:
            return Next.APPEAL
        return Next.EXECUTE if now >= dispute.appeal_by + late else Next.WAIT
    if dispute.phase is not Phase.VOTING:
        return Next.WAIT
    if now < dispute.commit_by and seat.stage in ("", "decided"):
        return Next.DECIDE if not seat.stage else Next.COMMIT
    all_in = dispute.committed == dispute.seats
    if seat.stage == "committed" and (now >= dispute.commit_by or all_in) and now < dispute.reveal_by:
        return Next.REVEAL
    finished = all_in and dispute.revealed == dispute.seats
    everyone = now >= dispute.commit_by and dispute.revealed == dispute.committed
    if finished or everyone or now >= dispute.reveal_by:
        since = dispute.reveal_by if now >= dispute.reveal_by else now - late
        return Next.TALLY if now >= since + late or finished else Next.WAIT
    return Next.WAIT


def worth_appealing(appeal_by: int, window: int, now: int) -> bool:
    """A juror leaves the first half of the window to the host, whose own bond it is to put up."""
    return appeal_by - window // 2 <= now < appeal_by


def _wronged(dispute: Docket, seat: Seat) -> bool:
    """A host was convicted that we found honest. (That one was acquitted whom we found guilty is its accuser's to
    appeal: no honest juror's coins are at stake for the sake of a slash.)"""
    outvoted = dispute.verdict == GUILTY and seat.said == HONEST and seat.stage == "revealed"
    return outvoted and dispute.appeals < MOST_APPEALS
