"""What a job came to: the account of each attempt, and of all together."""

from typing import TYPE_CHECKING

from lading.dispatch.attempt import Attempt
from lading.dispatch.events import Ended, Part
from lading_protocol.ids import Digest

if TYPE_CHECKING:
    from lading.dispatch.running import Run


def part_of(attempt: Attempt, wanted: bool) -> Part:
    """`wanted`: the consumer has what it delivered."""
    return Part(
        attempt.offer.host,
        attempt.offer,
        attempt.number,
        attempt.first,
        attempt.count,
        attempt.promised,
        attempt.receipt if wanted else b"",
        attempt.marks if wanted else (),
        attempt.settling,
    )


def account_of(run: "Run") -> Ended:
    state = run.state
    return Ended(
        job=state.spec.job,
        request=state.spec.request,
        agent=run.ask.agent,
        payer=run.payer.payer,
        signer=run.payer.key.address,
        finish=state.finish,
        prompt_tokens=state.prompt_tokens,
        prompt_hash=Digest(state.prompt_hash),
        emitted=tuple(state.emitted),
        vectors=state.vectors,
        parts=tuple([part_of(attempt, wanted) for attempt, wanted in run.settled]),
        given=len(run.ask.emitted),
    )
