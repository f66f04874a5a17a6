"""AuditCourt in memory: disputes, lottery, votes, appeals, the slash. The contract's checks in its order."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.court import Ballot, CourtParams, Dispute, Phase, Verdict, Vote, dispute_id
from lading_contracts.fake.coin import CoinModel
from lading_contracts.fake.settlement import SettlementModel
from lading_contracts.fake.staking import StakingModel
from lading_contracts.fake.world import Book, Model, World, require, signer_of
from lading_protocol.eip712 import Domain
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Wei
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Receipt

_MAX_APPEALS = 2
_WHOLE = 10_000
Attempt = tuple[Address, bytes, int]
_NO_VOTE = Vote(False, Verdict.NONE, Digest(ZERO_DIGEST))


class Case(msgspec.Struct, frozen=True):
    """A dispute between its rounds."""

    host: Address = Address(ZERO_ADDRESS)
    phase: Phase = Phase.NONE
    verdict: Verdict = Verdict.NONE
    appeals: int = 0
    round: int = 0
    first_round: int = 0
    challenger: Address = Address(ZERO_ADDRESS)
    amount: int = 0
    signer: Address = Address(ZERO_ADDRESS)
    draw_block: int = 0
    appeal_by: int = 0
    armed_at: int = 0
    pool: int = 0
    receipt_digest: Digest = Digest(ZERO_DIGEST)
    attempt: Attempt | None = None


class Round(msgspec.Struct, frozen=True):
    """One committee's work, and the bond of whoever asked for it."""

    backer: Address = Address(ZERO_ADDRESS)
    bond: int = 0
    side: Verdict = Verdict.NONE
    ruled: bool = False
    committed: int = 0
    revealed: int = 0
    guilty: int = 0
    honest: int = 0
    commit_by: int = 0
    reveal_by: int = 0
    jurors: tuple[Address, ...] = ()


class CourtModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        coin, staking, settlement, params = given
        self._coin: CoinModel = world.contracts[coin]
        self._staking: StakingModel = world.contracts[staking]
        self._settlement: SettlementModel = world.contracts[settlement]
        self._params = CourtParams(**dict(zip(CourtParams.__struct_fields__, params, strict=True)))
        _check(self._params, self._staking.cooldown(sender))
        require(self._staking.court(sender) == address, "BadParams")
        self._domain = Domain(world.chain_id, address)
        self._anchors: Book[str, int] = Book(world, 0)
        self._cases: Book[bytes, Case] = Book(world, Case())
        self._convicted: Book[Attempt | None, bool] = Book(world, False)
        self._rounds: Book[tuple[bytes, int], Round] = Book(world, Round())
        self._votes: Book[tuple[bytes, int, Address], Vote] = Book(world, _NO_VOTE)
        self._coin.approve(address, settlement, 2**256 - 1)

    # --- verbs ---

    def anchor(self, sender: Address, root: bytes, count: int) -> int:
        n = self._anchors["n"]
        self._anchors["n"] = n + 1
        self.emit("Anchored", sender, n, root, count)
        return n

    def open(self, sender: Address, fields: tuple[Any, ...], signature: bytes) -> bytes:
        receipt = Receipt(*fields)
        digest = receipt.digest(self._domain)
        require(signer_of(digest, signature) == receipt.host, "BadReceipt")
        last = receipt.issued_at + self._params.receipt_max_age
        require(self.world.now <= last, "ReceiptTooOld", receipt.issued_at)
        require(self._staking.slashable(sender, receipt.host) != 0, "NothingAtStake", receipt.host)
        id_ = dispute_id(receipt, sender)
        case = self._cases[id_]
        attempt = (receipt.host, receipt.job, receipt.attempt)
        free = case.phase in (Phase.NONE, Phase.VOID) and not self._convicted[attempt]
        require(free, "AlreadyOpened", id_)
        bond = self._params.bond
        case = replace(
            case,
            attempt=attempt,
            host=receipt.host,
            challenger=sender,
            signer=receipt.signer,
            amount=receipt.amount,
            receipt_digest=digest,
            verdict=Verdict.NONE,
            first_round=case.round + 1,
        )
        case = self._arm(sender, id_, case, Verdict.GUILTY, bond)
        self.emit("Opened", id_, receipt.host, sender, digest, case.draw_block, fields)
        self._staking.open_dispute(self.address, receipt.host)
        self._coin.transfer_from(self.address, sender, self.address, bond)
        return id_

    def draw(self, sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.DRAWING)
        require(self.world.number > case.draw_block, "TooEarlyBlock", case.draw_block + 1)
        if self.world.number - case.draw_block > 256:
            case = self._set_draw_block(case)
            self._cases[id_] = case
            self.emit("Rearmed", id_, case.draw_block)
            return
        size = self._params.committee_size
        for _ in range(case.appeals):
            size = 2 * size + 1
        types = ("bytes32", "bytes32", "uint32")
        seed = keccak256(abi.encode(types, (self.world.block_hash(case.draw_block), id_, case.round)))
        jurors = self._pick(seed, size, case)
        if len(jurors) < self._params.quorum:
            self._no_quorum(id_, case)
            return
        commit_by = self.world.now + self._params.commit_window
        reveal_by = commit_by + self._params.reveal_window
        self._cases[id_] = replace(case, phase=Phase.VOTING)
        held = self._rounds[id_, case.round]
        self._rounds[id_, case.round] = replace(held, jurors=jurors, commit_by=commit_by, reveal_by=reveal_by)
        for juror in jurors:
            self._votes[id_, case.round, juror] = replace(_NO_VOTE, seated=True)
        self.emit("Drawn", id_, case.round, jurors, commit_by, reveal_by)

    def commit(self, sender: Address, id_: bytes, commitment: bytes) -> None:
        case = self._in(id_, Phase.VOTING)
        held = self._rounds[id_, case.round]
        require(self.world.now < held.commit_by, "TooLate", held.commit_by)
        vote = self._votes[id_, case.round, sender]
        require(vote.seated and not any(vote.commitment) and any(commitment), "NoSeat", sender)
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

    def tally(self, sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.VOTING)
        held = self._rounds[id_, case.round]
        seats = len(held.jurors)
        committing = self.world.now < held.commit_by and held.committed < seats
        revealing = self.world.now < held.reveal_by and held.revealed < held.committed
        require(not committing and not revealing, "TooEarly", held.commit_by if committing else held.reveal_by)
        quorum = max(seats // 2 + 1, self._params.quorum)
        if held.guilty < quorum and held.honest < quorum:
            self._no_quorum(id_, case)
            return
        verdict = Verdict.GUILTY if held.guilty >= quorum else Verdict.HONEST
        appeal_by = self.world.now + self._params.appeal_window
        self._rounds[id_, case.round] = replace(held, ruled=True)
        self._cases[id_] = replace(case, verdict=verdict, phase=Phase.RULED, appeal_by=appeal_by)
        self.emit("Ruled", id_, case.round, int(verdict), appeal_by)

    def appeal(self, sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.RULED)
        require(self.world.now < case.appeal_by, "TooLate", case.appeal_by)
        guilty = case.verdict is Verdict.GUILTY
        losers = (case.host, self._staking.owner_of(sender, case.host)) if guilty else (case.challenger,)
        require(sender in losers and case.appeals < _MAX_APPEALS, "MayNotAppeal", sender)
        case = replace(case, appeals=case.appeals + 1)
        bond = self._params.bond << case.appeals
        case = self._arm(sender, id_, case, Verdict.HONEST if guilty else Verdict.GUILTY, bond)
        self.emit("Appealed", id_, case.round, sender, bond, case.draw_block)
        self._coin.transfer_from(self.address, sender, self.address, bond)

    def execute(self, sender: Address, id_: bytes) -> None:
        case = self._in(id_, Phase.RULED)
        require(self.world.now >= case.appeal_by, "TooEarly", case.appeal_by)
        self._cases[id_] = replace(case, phase=Phase.CLOSED)
        reward = 0
        if case.verdict is Verdict.GUILTY and not self._convicted[case.attempt]:
            reward = self._slash(id_, case)
        else:
            self.emit("Executed", id_, int(case.verdict), 0, 0, 0, 0, 0)
        self._staking.close_dispute(self.address, case.host)
        self._settle_bonds(id_, case, reward)

    # --- views ---

    def disputes(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        case, held = self._cases[id_], self._rounds[id_, self._cases[id_].round]
        shown = Dispute(
            phase=case.phase,
            verdict=case.verdict,
            appeals=case.appeals,
            round=case.round,
            host=case.host,
            challenger=case.challenger,
            signer=case.signer,
            amount=Wei(case.amount),
            receipt_digest=case.receipt_digest,
            draw_block=case.draw_block,
            commit_by=held.commit_by,
            reveal_by=held.reveal_by,
            appeal_by=case.appeal_by,
            seats=len(held.jurors),
            committed=held.committed,
            revealed=held.revealed,
            guilty=held.guilty,
            honest=held.honest,
        )
        return msgspec.structs.astuple(shown)

    def jurors_of(self, _sender: Address, id_: bytes, round_: int) -> tuple[Address, ...]:
        return self._rounds[id_, round_].jurors

    def votes(self, _sender: Address, id_: bytes, round_: int, juror: Address) -> tuple[Any, ...]:
        return msgspec.structs.astuple(self._votes[id_, round_, juror])

    def params(self, _sender: Address) -> tuple[Any, ...]:
        return msgspec.structs.astuple(self._params)

    # --- inside ---

    def _in(self, id_: bytes, phase: Phase) -> Case:
        case = self._cases[id_]
        require(case.phase is phase, "WrongPhase", int(case.phase))
        return case

    def _arm(self, sender: Address, id_: bytes, case: Case, side: Verdict, bond: int) -> Case:
        case = self._set_draw_block(replace(case, phase=Phase.DRAWING, appeal_by=0, round=case.round + 1))
        self._cases[id_] = case
        self._rounds[id_, case.round] = Round(backer=sender, bond=bond, side=side)
        return case

    def _set_draw_block(self, case: Case) -> Case:
        block = self.world.number + self._params.draw_delay_blocks
        return replace(case, draw_block=block, armed_at=self.world.now, pool=self._staking.operator_count(self.address))

    def _pick(self, seed: bytes, size: int, case: Case) -> tuple[Address, ...]:
        """The contract's shuffle: a Fisher-Yates over the list, stopped when the committee is full."""
        listed = self._staking.candidates()
        moved: dict[int, int] = {}
        jurors: list[Address] = []
        for i in range(min(size * 8 + 32, case.pool)):
            if len(jurors) == size:
                break
            j = i + int.from_bytes(keccak256(seed + i.to_bytes(32, "big")), "big") % (case.pool - i)
            index = moved.get(j, j)
            moved[j] = moved.get(i, i)
            if index < len(listed):
                operator, since = listed[index]
                if since <= case.armed_at and not self._excluded(operator, case):
                    jurors.append(operator)
        return tuple(jurors)

    def _excluded(self, operator: Address, case: Case) -> bool:
        owner_of = self._staking.owner_of
        me = self.address
        owner, payer = owner_of(me, operator), self._settlement.payer_of(me, case.signer)
        parties = (case.host, case.challenger, case.signer, payer)
        owners = (owner_of(me, case.host), owner_of(me, case.challenger), *parties)
        return operator in parties or owner in owners

    def _no_quorum(self, id_: bytes, case: Case) -> None:
        if case.round != case.first_round:
            self._cases[id_] = replace(case, phase=Phase.RULED, appeal_by=self.world.now)
            self.emit("Stands", id_, case.round, int(case.verdict))
            return
        self._cases[id_] = replace(case, phase=Phase.VOID)
        self.emit("Voided", id_, case.round)
        self._staking.close_dispute(self.address, case.host)
        held = self._rounds[id_, case.round]
        self._pay(id_, held.backer, held.bond)

    def _slash(self, id_: bytes, case: Case) -> int:
        """Takes and distributes the slash except for the jurors' reward, which it returns."""
        p = self._params
        self._convicted[case.attempt] = True
        slashed = self._staking.slashable(self.address, case.host) * p.slash_bps // _WHOLE
        reward = slashed * p.reward_bps // _WHOLE
        fee = slashed * p.finder_bps // _WHOLE
        refund = slashed - reward - fee - slashed * p.burn_bps // _WHOLE
        payer = self._settlement.payer_of(self.address, case.signer)
        refund = 0 if payer == ZERO_ADDRESS else min(refund, case.amount)
        burnt = slashed - reward - fee - refund
        self.emit("Executed", id_, int(Verdict.GUILTY), slashed, burnt, refund, fee, reward)
        self._staking.slash(self.address, case.host, slashed, burnt)
        self._staking.jail(self.address, case.host, self.world.now + p.jail_time)
        if refund:
            self._settlement.deposit_for(self.address, payer, refund)
        self._pay(id_, case.challenger, fee)
        return reward

    def _settle_bonds(self, id_: bytes, case: Case, pot: int) -> None:
        guilty = case.verdict is Verdict.GUILTY
        opponent = case.challenger if guilty else self._staking.owner_of(self.address, case.host)
        to_opponent = winners = 0
        rounds = range(case.first_round, case.round + 1)
        for n in rounds:
            held = self._rounds[id_, n]
            winners += held.guilty if guilty else held.honest
            if held.ruled and held.side != case.verdict:
                to_opponent += held.bond // 2
                pot += held.bond - held.bond // 2
            else:
                self._pay(id_, held.backer, held.bond)
        self._pay(id_, opponent, to_opponent + pot % winners)
        for n in rounds:
            for juror in self._rounds[id_, n].jurors:
                if self._votes[id_, n, juror].verdict is case.verdict:
                    self._pay(id_, self._staking.owner_of(self.address, juror), pot // winners)

    def _pay(self, id_: bytes, to: Address, amount: int) -> None:
        if amount:
            self.emit("Paid", id_, to, amount)
            self._coin.transfer(self.address, to, amount)


def _check(p: CourtParams, cooldown: int) -> None:
    shares = p.burn_bps + p.reward_bps + p.finder_bps
    fine = (
        0 < p.bond <= (2**96 - 1) >> _MAX_APPEALS
        and 0 < p.slash_bps <= _WHOLE
        and p.burn_bps > 0
        and shares <= _WHOLE
        and p.committee_size <= 7
        and max(2, p.committee_size // 2 + 1) <= p.quorum <= p.committee_size
        and 0 < p.draw_delay_blocks <= 200
        and min(p.commit_window, p.reveal_window, p.appeal_window, p.receipt_max_age) > 0
        and cooldown >= p.receipt_max_age
    )
    require(fine, "BadParams")
