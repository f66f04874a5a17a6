"""Jury duty: follows the court, fetches the case, votes by commit and reveal, and finishes what nobody else finishes.

A vote is written down before it is committed, so that a restart in between can still reveal it. What to do next is
core/duty's decision; what to think of a case is audit's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from lading_contracts import events
from lading_contracts.court import Ballot, Dispute, Verdict
from lading_contracts.errors import Reverted
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_net.sketches import receive_sketch
from lading_node.audit import Abstained, Auditor
from lading_node.bonds import Bonds, Poor
from lading_node.core.duty import Docket, Next, Seat, next_step
from lading_node.errors import CaseMismatch
from lading_node.ports import Doors
from lading_node.store import Vote
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Digest, short
from lading_protocol.messages import CASE, Case, Finding, FromChallenger, GetCase, Sketch, encode, finding_hash
from lading_protocol.receipts import Receipt

log = logging.getLogger(__name__)

STEP_SECONDS = 2.0
CASE_SECONDS = 15.0

_from_challenger = msgspec.msgpack.Decoder(FromChallenger)


class Duty(msgspec.Struct):
    """One seat that this node was drawn for. `note` says in words where it stands."""

    dispute: Digest
    seat: Seat
    challenger: Address = Address(b"")
    receipt_digest: Digest = Digest(b"")
    finding: Finding | None = None
    note: str = "drawn"


class Juror:
    """`link_to` finds or dials a link to a peer; it may fail. `bonds` puts up what votes and appeals take."""

    def __init__(
        self, doors: Doors, auditor: Auditor, bonds: Bonds, link_to: Callable[[Address], Awaitable[Link]]
    ) -> None:
        self._doors = doors
        self._bonds = bonds
        self._auditor = auditor
        self._link_to = link_to
        self._votes: dict[tuple[Digest, int], Vote] = {}
        self._wake = asyncio.Event()
        self._saved: list[tuple[Digest, int, int]] | None = None
        self.duties: dict[tuple[Digest, int], Duty] = {}

    async def load(self) -> None:
        """Take up the votes and duties of the last run."""
        for vote in await self._doors.ledger.votes():
            self._votes[vote.dispute, vote.round] = vote
        for dispute, round, number in msgspec.msgpack.decode(await self._doors.ledger.note("duties") or b"\x90"):
            self._draw(Digest(dispute), round, number)

    async def save(self) -> None:
        """Write down what we were drawn for, before the events that said so are forgotten."""
        duties = [(duty.dispute, duty.seat.round, duty.seat.number) for duty in self.duties.values()]
        if duties != self._saved:
            await self._doors.ledger.put_note("duties", msgspec.msgpack.encode(duties))
            self._saved = duties

    def hear(self, event: events.Event) -> None:
        """An event of the court."""
        if isinstance(event, events.Drawn) and self._doors.key.address in event.jurors:
            self._draw(event.id, event.round, event.jurors.index(self._doors.key.address))
            log.info("drawn as a juror in dispute %s", short(event.id))

    def _draw(self, dispute: Digest, round: int, number: int) -> None:
        vote = self._votes.get((dispute, round))
        seat = Seat(round, number) if vote is None else Seat(round, number, vote.stage, vote.verdict)
        self.duties.setdefault((dispute, round), Duty(dispute, seat))
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            await self.step()
            try:
                async with asyncio.timeout(STEP_SECONDS if self.duties else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def step(self) -> None:
        for key, duty in list(self.duties.items()):
            try:
                if await self._advance(duty):
                    del self.duties[key]
            except Reverted as error:
                duty.note = f"the court refused a step: {error.message}"
                log.info("dispute %s: %s", short(duty.dispute), duty.note)
            except (LadingError, TimeoutError) as error:
                duty.note = str(error) or "the challenger does not answer"
                log.warning("dispute %s waits: %s", short(duty.dispute), duty.note)

    async def _advance(self, duty: Duty) -> bool:
        """One step of one duty; True when it is over."""
        court, key = self._doors.contracts.court, self._doors.key
        dispute, head = await asyncio.gather(court.dispute(duty.dispute), self._doors.contracts.chain.block())
        if head is None:
            return False
        if dispute is not None:
            duty.challenger, duty.receipt_digest = dispute.challenger, dispute.subject
        match next_step(_docket(dispute), duty.seat, head.timestamp):
            case Next.WAIT:
                return False
            case Next.DONE:
                return True
            case Next.DECIDE:
                await self._decide(duty)
                self._wake.set()
            case Next.COMMIT:
                vote = self._votes[duty.dispute, duty.seat.round]
                if not any((await court.vote(duty.dispute, duty.seat.round, key.address)).commitment):
                    await self._bonds.ready(duty.dispute)
                    sealed = _ballot(vote).commitment(duty.dispute, duty.seat.round, key.address)
                    await court.commit(key, duty.dispute, sealed)
                await self._advance_vote(duty, vote, "committed")
            case Next.REVEAL:
                vote = self._votes[duty.dispute, duty.seat.round]
                seen = await court.vote(duty.dispute, duty.seat.round, key.address)
                if seen.verdict is Verdict.NONE:
                    await court.reveal(key, duty.dispute, _ballot(vote))
                await self._advance_vote(duty, vote, "revealed")
            case Next.TALLY:
                await court.tally(key, duty.dispute)
            case Next.APPEAL:
                assert dispute is not None
                await self._appeal(duty, dispute, head.timestamp)
            case Next.EXECUTE:
                await court.execute(key, duty.dispute)
        return False

    async def _decide(self, duty: Duty) -> None:
        """Fetch, re-run, and write the vote down; a case that cannot be had yet is tried again until the deadline."""
        case, opened = await self._fetch(duty)
        try:
            finding = await self._auditor.examine(case, opened)
        except Abstained as error:
            self._abstain(duty, str(error))
            return
        if finding.verdict not in (Verdict.HONEST, Verdict.GUILTY):
            self._abstain(duty, finding.reason)
            return
        duty.finding = finding
        vote = Vote(
            dispute=duty.dispute,
            round=duty.seat.round,
            verdict=finding.verdict,
            evidence=finding_hash(finding),
            salt=self._doors.rng.randbytes(32),
            finding=encode(finding),
            stage="decided",
            at=self._doors.clock(),
        )
        await self._advance_vote(duty, vote, "decided")

    async def _appeal(self, duty: Duty, found: Dispute, now: int) -> None:
        """Bring a larger committee, once it is clear that the host does not."""
        if await self._bonds.worth_it(duty.dispute, found, now):
            try:
                words = await self._bonds.appeal(duty.dispute, found)
            except Poor as error:
                words = f"not appealed: {error.message}"
            duty.note = f"outvoted; {words}"
            duty.seat = msgspec.structs.replace(duty.seat, stage="outvoted")
            log.warning("dispute %s: %s", short(duty.dispute), duty.note)

    def _abstain(self, duty: Duty, why: str) -> None:
        log.warning("no vote in dispute %s: %s", short(duty.dispute), why)
        duty.seat, duty.note = msgspec.structs.replace(duty.seat, stage="abstained"), f"abstained: {why}"

    async def _advance_vote(self, duty: Duty, vote: Vote, stage: str) -> None:
        vote = msgspec.structs.replace(vote, stage=stage, at=self._doors.clock())
        await self._doors.ledger.put_vote(vote)
        self._votes[duty.dispute, duty.seat.round] = vote
        duty.seat, duty.note = msgspec.structs.replace(duty.seat, stage=stage, said=vote.verdict), stage
        self._wake.set()

    async def _fetch(self, duty: Duty) -> tuple[Case, bytes | None]:
        """The challenger's evidence, checked against the receipt that the court holds, and what the host opened to it,
        if it did. Raises LadingError."""
        link = await self._link_to(duty.challenger)
        stream = await link.open(CASE)
        try:
            async with asyncio.timeout(CASE_SECONDS):
                messages: MessageStream[FromChallenger] = MessageStream(stream, _from_challenger)
                messages.send(GetCase(duty.dispute))
                await messages.drain()
                answer = await messages.recv()
                opened = await _opened(messages, answer)
        except TimeoutError:
            raise CaseMismatch("The challenger does not show the case.", hint="It is asked again.") from None
        finally:
            await stream.close()
        if not isinstance(answer, Case):
            raise CaseMismatch(f"The challenger does not show the case: {getattr(answer, 'message', 'no answer')}.")
        receipt = unpack(Receipt, answer.receipt)
        if receipt.value.digest(self._doors.contracts.deployment.court_domain) != duty.receipt_digest:
            raise CaseMismatch("The challenger shows another receipt than the one on the chain.")
        return answer, opened


async def _opened(messages: MessageStream[FromChallenger], case: object) -> bytes | None:
    """What follows a case. Its size is the challenger's word: what it does not commit to counts for nothing anyway."""
    if not isinstance(case, Case):
        return None
    first = await messages.recv()
    if not isinstance(first, Sketch):
        return None
    size = len(first.data) + first.left
    return await receive_sketch(messages, first, size)


def _docket(dispute: Dispute | None) -> Docket | None:
    if dispute is None:
        return None
    named = {name: int(getattr(dispute, name)) for name in Docket.__struct_fields__ if name != "phase"}
    return Docket(phase=dispute.phase, **named)


def _ballot(vote: Vote) -> Ballot:
    return Ballot(Verdict(vote.verdict), vote.evidence, vote.salt)
