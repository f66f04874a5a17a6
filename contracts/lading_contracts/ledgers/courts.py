"""Disputes, their bonds and what is still to be paid out of them: one ledger for each of the two courts."""

from msgspec.structs import replace

from lading_contracts import abi, events
from lading_contracts.committee import Dispute, Verdict
from lading_contracts.ledgers.journal import Amounts, Journal, Ledger
from lading_protocol.court import Phase
from lading_protocol.ids import ZERO_ADDRESS, Address, AgentId, Digest, Wei
from lading_protocol.keys import keccak256

_NEVER = Dispute(
    phase=Phase.NONE,
    verdict=Verdict.NONE,
    appeals=0,
    round=0,
    accused=ZERO_ADDRESS,
    challenger=ZERO_ADDRESS,
    signer=ZERO_ADDRESS,
    amount=Wei(0),
    subject=Digest(bytes(32)),
    draw_block=0,
    commit_by=0,
    reveal_by=0,
    appeal_by=0,
    seats=0,
    committed=0,
    revealed=0,
    guilty=0,
    honest=0,
)


class CourtLedger:
    """Disputes as the court shows them, with one gap: a ruling that stands because an appeal found no quorum may be
    executed at once, which is shown as an `appeal_by` of zero, because no event says when that was."""

    def __init__(self, journal: Journal) -> None:
        self.disputes: Ledger[Digest, Dispute] = Ledger(journal, _NEVER)
        self.pots: Amounts[Digest] = Amounts(journal)
        """Bonds, deposits of votes, and what a slash brought, until they are paid or free again."""
        self.sureties: Amounts[Address] = Amounts(journal)
        """What each juror's next votes can set aside."""
        self.bonds: Amounts[Digest] = Amounts(journal)
        """The bond of each dispute, under the parameters that it was opened with."""
        self._deposits: Amounts[Digest] = Amounts(journal)
        self._now: Amounts[str] = Amounts(journal)
        self._owners: Ledger[AgentId, Address] = Ledger(journal, ZERO_ADDRESS)

    def note(self, event: events.Event) -> None:
        """An event of this court, or one of the registry or the parameters that it depends on."""
        match event:
            case events.CourtParamsSet(params=params):
                self._now["bond"], self._now["deposit"] = params.bond, params.vote_deposit
            case events.AgentRegistered(agent=agent, owner=owner):
                self._owners[agent] = owner
            case events.Opened(id=id_, challenger=challenger, receipt=receipt):
                self._open(id_, Phase.DRAWING, receipt.host, challenger)
                found = replace(self.disputes[id_], signer=receipt.signer, amount=receipt.amount)
                self.disputes[id_] = replace(found, subject=event.receipt_digest, draw_block=event.draw_block)
            case events.Contested(id=id_, agent=agent, parent=parent, challenger=challenger, evidence=evidence):
                self._open(id_, Phase.ASKED, self._owners[agent], challenger)
                claim = abi.encode(("bytes32", "bytes32", "bytes32"), (agent, parent, evidence))
                self._change(id_, subject=keccak256(claim))
            case events.Answered(id=id_, draw_block=draw_block):
                self._arm(id_, draw_block, self.bonds[id_])
            case events.Appealed(id=id_, bond=bond, draw_block=draw_block):
                self._change(id_, appeals=self.disputes[id_].appeals + 1)
                self._arm(id_, draw_block, bond)
            case events.Executed(id=id_):
                self._change(id_, phase=Phase.CLOSED)
                self.pots.add(id_, event.slashed - event.burnt - event.refunded)
            case events.Upheld(id=id_) | events.Moot(id=id_):
                self._change(id_, phase=Phase.CLOSED, verdict=Verdict.GUILTY)
            case events.Dismissed(id=id_):
                self._change(id_, phase=Phase.CLOSED)
            case events.Paid(id=id_, amount=amount):
                self.pots.add(id_, -amount)
            case events.Lodged(juror=juror, amount=amount):
                self.sureties.add(juror, amount)
            case events.TakenBack(juror=juror, amount=amount):
                self.sureties.add(juror, -amount)
            case _:
                self._note_round(event)

    def owed(self) -> int:
        """What the court must hold for disputes and jurors; payments that a coin refused are the books' business."""
        return self.pots.total() + self.sureties.total()

    # --- inside ---

    def _note_round(self, event: events.Event) -> None:
        match event:
            case events.Rearmed(id=id_, draw_block=draw_block):
                self._change(id_, draw_block=draw_block)
            case events.Drawn(id=id_, jurors=jurors, commit_by=commit_by, reveal_by=reveal_by):
                self._change(id_, phase=Phase.VOTING, seats=len(jurors), commit_by=commit_by, reveal_by=reveal_by)
            case events.Committed(id=id_, juror=juror):
                self._change(id_, committed=self.disputes[id_].committed + 1)
                self._set_aside(id_, juror, self._deposits[id_])
            case events.Freed(id=id_, juror=juror, amount=amount):
                self._set_aside(id_, juror, -amount)
            case events.Revealed(id=id_, verdict=verdict):
                found = self.disputes[id_]
                guilty, honest = found.guilty + (verdict == Verdict.GUILTY), found.honest + (verdict == Verdict.HONEST)
                self._change(id_, revealed=found.revealed + 1, guilty=guilty, honest=honest)
            case events.Ruled(id=id_, verdict=verdict, appeal_by=appeal_by):
                self._change(id_, phase=Phase.RULED, verdict=Verdict(verdict), appeal_by=appeal_by)
            case events.Stands(id=id_):
                self._change(id_, phase=Phase.RULED, appeal_by=0)
            case events.Voided(id=id_):
                self._change(id_, phase=Phase.VOID)
            case _:
                pass

    def _set_aside(self, id_: Digest, juror: Address, amount: int) -> None:
        self.sureties.add(juror, -amount)
        self.pots.add(id_, amount)

    def _change(self, id_: Digest, **fields: object) -> None:
        self.disputes[id_] = replace(self.disputes[id_], **fields)

    def _open(self, id_: Digest, phase: Phase, accused: Address, challenger: Address) -> None:
        round_ = self.disputes[id_].round + 1
        self.disputes[id_] = replace(_NEVER, phase=phase, round=round_, accused=accused, challenger=challenger)
        self.bonds[id_], self._deposits[id_] = self._now["bond"], self._now["deposit"]
        self.pots.add(id_, self.bonds[id_])

    def _arm(self, id_: Digest, draw_block: int, bond: int) -> None:
        """A new round: its committee is to be drawn."""
        found = self.disputes[id_]
        kept = replace(_NEVER, accused=found.accused, challenger=found.challenger, signer=found.signer)
        kept = replace(kept, amount=found.amount, subject=found.subject, verdict=found.verdict, appeals=found.appeals)
        self.disputes[id_] = replace(kept, phase=Phase.DRAWING, round=found.round + 1, draw_block=draw_block)
        self.pots.add(id_, bond)
