"""What both courts share, in memory: draw, votes, rulings, appeals and bonds. The contract's checks in its order."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec
from msgspec.structs import astuple, replace

from lading_contracts import abi
from lading_contracts.committee import Ballot, Verdict, Vote
from lading_contracts.fake.lottery import pick
from lading_contracts.fake.parameters import ParametersModel
from lading_contracts.fake.payments import PaymentsModel
from lading_contracts.fake.staking import StakingModel
from lading_contracts.fake.world import Book, World, require
from lading_contracts.parameters import CourtParams
from lading_protocol.court import Phase
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from lading_protocol.keys import keccak256

_MAX_APPEALS = 2
_NO_VOTE = Vote(False, Verdict.NONE, Digest(ZERO_DIGEST))


class Case(msgspec.Struct, frozen=True):
    """A dispute between its rounds."""

    accused: Address = ZERO_ADDRESS
    phase: Phase = Phase.NONE
    verdict: Verdict = Verdict.NONE
    appeals: int = 0
    round: int = 0
    first_round: int = 0
    challenger: Address = ZERO_ADDRESS
    amount: int = 0
    signer: Address = ZERO_ADDRESS
    draw_block: int = 0
    appeal_by: int = 0
    payer: Address = ZERO_ADDRESS
    as_of: int = 0
    version: int = 0
    subject: bytes = ZERO_DIGEST


class Round(msgspec.Struct, frozen=True):
    """One committee's work, and the bond of whoever asked for it."""

    backer: Address = ZERO_ADDRESS
    bond: int = 0
    side: Verdict = Verdict.NONE
    ruled: bool = False
    committed: int = 0
    revealed: int = 0
    guilty: int = 0
    honest: int = 0
    commit_by: int = 0
    reveal_by: int = 0
    deposit: int = 0
    jurors: tuple[Address, ...] = ()


class CommitteeModel(PaymentsModel, ABC):
    def __init__(self, world: World, address: Address, coin: Address, staking: Address, parameters: Address) -> None:
        super().__init__(world, address, coin)
        self._staking: StakingModel = world.contracts[staking]
        self._parameters: ParametersModel = world.contracts[parameters]
        require(self._staking.coin(address) == coin, "BadParams")
        self._cases: Book[bytes, Case] = Book(world, Case())
        self._rounds: Book[tuple[bytes, int], Round] = Book(world, Round())
        self._votes: Book[tuple[bytes, int, Address], Vote] = Book(world, _NO_VOTE)
        self._sureties: Book[Address, int] = Book(world, 0)

    # --- what a court decides ---

    @abstractmethod
    def _accused_owner(self, accused: Address) -> Address:
        """Whom the accused belongs to: it may appeal, and gets what the accused wins."""

    @abstractmethod
    def _carry_out(self, id_: bytes, case: Case) -> int:
        """Does what the final verdict says; returns what it adds to the jurors' pot."""

    def _release(self, case: Case) -> None:
        """The dispute is void; its bonds go back afterwards."""

    # --- verbs ---

    def draw(self, _sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.DRAWING)
        require(self.world.number > case.draw_block, "TooEarlyBlock", case.draw_block + 1)
        p = self._params(case)
        if self.world.number - case.draw_block > 256:
            self._cases[id_] = case = self._set_draw_block(case)
            self.emit("Rearmed", id_, case.draw_block)
            return
        size = p.committee_size
        for _ in range(case.appeals):
            size = 2 * size + 1
        types = ("bytes32", "bytes32", "uint32")
        seed = keccak256(abi.encode(types, (self.world.block_hash(case.draw_block), id_, case.round)))
        listed = self._staking.active_at(case.as_of)
        jurors = pick(listed, seed, size, self._excluded(id_, case), self._owner_of)
        if len(jurors) < p.quorum:
            self._no_quorum(id_, case)
            return
        commit_by = self.world.now + p.commit_window
        reveal_by = commit_by + p.reveal_window
        self._cases[id_] = replace(case, phase=Phase.VOTING)
        held = self._rounds[id_, case.round]
        held = replace(held, jurors=jurors, commit_by=commit_by, reveal_by=reveal_by, deposit=p.vote_deposit)
        self._rounds[id_, case.round] = held
        for juror in jurors:
            self._votes[id_, case.round, juror] = replace(_NO_VOTE, seated=True)
        self.emit("Drawn", id_, case.round, jurors, commit_by, reveal_by)

    def commit(self, sender: Address, id_: bytes, commitment: bytes) -> None:
        case = self._in(id_, Phase.VOTING)
        held = self._rounds[id_, case.round]
        require(self.world.now < held.commit_by, "TooLate", held.commit_by)
        vote = self._votes[id_, case.round, sender]
        require(vote.seated and not any(vote.commitment) and any(commitment), "NoSeat", sender)
        require(self._sureties[sender] >= held.deposit, "NoSurety", sender, held.deposit)
        self._sureties[sender] -= held.deposit
        self._votes[id_, case.round, sender] = replace(vote, commitment=Digest(commitment))
        self._rounds[id_, case.round] = replace(held, committed=held.committed + 1)
        self.emit("Committed", id_, case.round, sender)

    def reveal(self, sender: Address, id_: bytes, verdict: int, evidence: bytes, salt: bytes) -> None:
        case = self._in(id_, Phase.VOTING)
        held = self._rounds[id_, case.round]
        complete = held.committed == len(held.jurors)
        require(self.world.now >= held.commit_by or complete, "TooEarly", held.commit_by)
        require(self.world.now < held.reveal_by, "TooLate", held.reveal_by)
        vote = self._votes[id_, case.round, sender]
        require(any(vote.commitment) and vote.verdict is Verdict.NONE, "NoSeat", sender)
        require(verdict in (Verdict.HONEST, Verdict.GUILTY), "BadReveal")
        ballot = Ballot(Verdict(verdict), Digest(evidence), salt)
        require(vote.commitment == ballot.commitment(id_, case.round, sender), "BadReveal")
        self._votes[id_, case.round, sender] = replace(vote, verdict=ballot.verdict)
        guilty = held.guilty + (ballot.verdict is Verdict.GUILTY)
        honest = held.honest + (ballot.verdict is Verdict.HONEST)
        self._rounds[id_, case.round] = replace(held, revealed=held.revealed + 1, guilty=guilty, honest=honest)
        self.emit("Revealed", id_, case.round, sender, verdict, evidence)

    def tally(self, _sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.VOTING)
        held, p = self._rounds[id_, case.round], self._params(case)
        seats = len(held.jurors)
        committing = self.world.now < held.commit_by and held.committed < seats
        revealing = self.world.now < held.reveal_by and held.revealed < held.committed
        require(not committing and not revealing, "TooEarly", held.commit_by if committing else held.reveal_by)
        quorum = max(seats // 2 + 1, p.quorum)
        if held.guilty < quorum and held.honest < quorum:
            self._no_quorum(id_, case)
            return
        verdict = Verdict.GUILTY if held.guilty >= quorum else Verdict.HONEST
        appeal_by = self.world.now + p.appeal_window
        self._rounds[id_, case.round] = replace(held, ruled=True)
        self._cases[id_] = replace(case, verdict=verdict, phase=Phase.RULED, appeal_by=appeal_by)
        self.emit("Ruled", id_, case.round, int(verdict), appeal_by)

    def appeal(self, sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.RULED)
        require(self.world.now < case.appeal_by, "TooLate", case.appeal_by)
        guilty = case.verdict is Verdict.GUILTY
        losers = self._accused_side(case) if guilty else (case.challenger,)
        said = self._votes[id_, case.round, sender].verdict
        lost = sender in losers or said not in (Verdict.NONE, case.verdict)
        require(lost and case.appeals < _MAX_APPEALS, "MayNotAppeal", sender)
        case = replace(case, appeals=case.appeals + 1)
        bond = self._params(case).bond << case.appeals
        case = self._pledge(sender, id_, case, Verdict.HONEST if guilty else Verdict.GUILTY, bond)
        self._cases[id_] = case = self._arm(case)
        self.emit("Appealed", id_, case.round, sender, bond, case.draw_block)
        self._pull(sender, bond)

    def execute(self, _sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.RULED)
        require(self.world.now >= case.appeal_by, "TooEarly", case.appeal_by)
        self._cases[id_] = replace(case, phase=Phase.CLOSED)
        self._settle_bonds(id_, case, self._carry_out(id_, case))

    def lodge(self, sender: Address, juror: Address, amount: int) -> None:
        require(self._owner_of(juror) != ZERO_ADDRESS, "NotYours", juror)
        self._sureties[juror] += amount
        self.emit("Lodged", juror, sender, amount)
        self._pull(sender, amount)

    def take_back(self, sender: Address, juror: Address, amount: int) -> None:
        require(self._owner_of(juror) == sender, "NotYours", juror)
        require(self._sureties[juror] >= amount, "NoSurety", juror, amount)
        self._sureties[juror] -= amount
        self.emit("TakenBack", juror, sender, amount)
        self._send(sender, amount)

    # --- views ---

    def disputes(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        c = self._cases[id_]
        r = self._rounds[id_, c.round]
        sides = (c.accused, c.challenger, c.signer, c.amount, c.subject)
        counts = (len(r.jurors), r.committed, r.revealed, r.guilty, r.honest)
        deadlines = (c.draw_block, r.commit_by, r.reveal_by, c.appeal_by)
        return (c.phase, c.verdict, c.appeals, c.round, *sides, *deadlines, *counts)

    def jurors_of(self, _sender: Address, id_: bytes, round_: int) -> tuple[Address, ...]:
        return self._rounds[id_, round_].jurors

    def votes(self, _sender: Address, id_: bytes, round_: int, juror: Address) -> tuple[Any, ...]:
        return astuple(self._votes[id_, round_, juror])

    def surety_of(self, _sender: Address, juror: Address) -> int:
        return self._sureties[juror]

    def params(self, _sender: Address) -> tuple[Any, ...]:
        return astuple(self._parameters.court_params(self._parameters.court_version()))

    def params_of(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        return astuple(self._params(self._cases[id_]))

    def vote_commitment(
        self, _sender: Address, id_: bytes, round_: int, juror: Address, verdict: int, evidence: bytes, salt: bytes
    ) -> bytes:
        types = ("bytes32", "uint32", "address", "uint8", "bytes32", "bytes32")
        return keccak256(abi.encode(types, (id_, round_, juror, verdict, evidence, salt)))

    def staking(self, _sender: Address) -> Address:
        return self._staking.address

    def parameters(self, _sender: Address) -> Address:
        return self._parameters.address

    # --- for the courts ---

    def _in(self, id_: bytes, phase: Phase) -> Case:
        case = self._cases[id_]
        require(case.phase is phase, "WrongPhase", int(case.phase))
        return case

    def _params(self, case: Case) -> CourtParams:
        return self._parameters.court_params(case.version)

    def _begin(self, case: Case) -> Case:
        """A dispute starts, or one that was void once more, under the version in force."""
        version = self._parameters.court_version()
        return replace(case, version=version, verdict=Verdict.NONE, first_round=case.round + 1)

    def _pledge(self, sender: Address, id_: bytes, case: Case, side: Verdict, bond: int) -> Case:
        """A round begins with the sender's bond; the courts take the coins last."""
        case = replace(case, round=case.round + 1)
        self._rounds[id_, case.round] = Round(backer=sender, bond=bond, side=side)
        return case

    def _arm(self, case: Case) -> Case:
        return self._set_draw_block(replace(case, phase=Phase.DRAWING, appeal_by=0))

    def _pay(self, id_: bytes, to: Address, amount: int) -> None:
        if amount:
            self.emit("Paid", id_, to, amount)
            self._send(to, amount)

    # --- inside ---

    def _set_draw_block(self, case: Case) -> Case:
        block = self.world.number + self._params(case).draw_delay_blocks
        return replace(case, draw_block=block, as_of=self.world.now - 1)

    def _owner_of(self, operator: Address) -> Address:
        return self._staking.owner_of(self.address, operator)

    def _accused_side(self, case: Case) -> tuple[Address, Address]:
        return case.accused, self._accused_owner(case.accused)

    def _excluded(self, id_: bytes, case: Case) -> set[Address]:
        """The parties, the appellant, the consumer, and whoever owned one of them when the round was armed."""

        def owner_then(who: Address) -> Address:
            return self._staking.owner_at(self.address, who, case.as_of)

        owner = self._accused_owner(case.accused)
        out = {case.accused, owner_then(owner) if owner == case.accused else owner}
        appellant = self._rounds[id_, case.round].backer if case.appeals else ZERO_ADDRESS
        for who in (case.challenger, case.signer, case.payer, appellant):
            out |= {who, owner_then(who)}
        return out - {ZERO_ADDRESS}

    def _no_quorum(self, id_: bytes, case: Case) -> None:
        if case.appeals:
            self._cases[id_] = replace(case, phase=Phase.RULED, appeal_by=self.world.now)
            self.emit("Stands", id_, case.round, int(case.verdict))
            return
        self._cases[id_] = replace(case, phase=Phase.VOID)
        self.emit("Voided", id_, case.round)
        self._release(case)
        for n in range(case.first_round, case.round + 1):
            self._pay(id_, self._rounds[id_, n].backer, self._rounds[id_, n].bond)
        self._settle_void(id_, case)

    def _settle_void(self, id_: bytes, case: Case) -> None:
        held = self._rounds[id_, case.round]
        pot, opened = _forfeited(held, Verdict.NONE), held.revealed
        self._pay(id_, case.challenger, pot % opened if opened else pot)
        self._settle_votes(id_, case.round, Verdict.NONE, pot // opened if opened else 0)

    def _settle_bonds(self, id_: bytes, case: Case, pot: int) -> None:
        guilty = case.verdict is Verdict.GUILTY
        opponent = case.challenger if guilty else self._accused_owner(case.accused)
        to_opponent = winners = 0
        rounds = range(case.first_round, case.round + 1)
        for n in rounds:
            held = self._rounds[id_, n]
            winners += held.guilty if guilty else held.honest
            pot += _forfeited(held, case.verdict)
            if held.ruled and held.side != case.verdict:
                to_opponent += held.bond // 2
                pot += held.bond - held.bond // 2
            else:
                brought = n != case.first_round and held.side == case.verdict
                if brought and held.backer not in self._accused_side(case):
                    opponent = held.backer
                self._pay(id_, held.backer, held.bond)
        self._pay(id_, opponent, to_opponent + pot % winners)
        for n in rounds:
            self._settle_votes(id_, n, case.verdict, pot // winners)

    def _settle_votes(self, id_: bytes, n: int, verdict: Verdict, each: int) -> None:
        held = self._rounds[id_, n]
        for juror in held.jurors:
            vote = self._votes[id_, n, juror]
            if vote.verdict is Verdict.NONE:
                if not held.ruled and any(vote.commitment):
                    self._free(id_, juror, held.deposit - held.deposit // 2)
                continue
            right = verdict in (Verdict.NONE, vote.verdict)
            if right or not held.ruled:
                self._free(id_, juror, held.deposit)
            if right:
                self._pay(id_, self._owner_of(juror), each)

    def _free(self, id_: bytes, juror: Address, amount: int) -> None:
        self._sureties[juror] += amount
        self.emit("Freed", id_, juror, amount)


def _forfeited(held: Round, verdict: Verdict) -> int:
    """What the votes of a round lose; see the contract."""
    silent = held.committed - held.revealed
    if not held.ruled:
        return silent * (held.deposit // 2)
    return (silent + (held.honest if verdict is Verdict.GUILTY else held.guilty)) * held.deposit
