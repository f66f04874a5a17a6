"""Disputes about receipts, as typed verbs. The re-execution and the judgement happen elsewhere; this carries votes."""

from enum import IntEnum
from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, Digest, Wei
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Receipt, SignedReceipt


class Phase(IntEnum):
    """Void may be opened again; Closed is for ever."""

    NONE = 0
    DRAWING = 1
    VOTING = 2
    RULED = 3
    CLOSED = 4
    VOID = 5


class Verdict(IntEnum):
    NONE = 0
    HONEST = 1
    GUILTY = 2


class CourtParams(msgspec.Struct, frozen=True, kw_only=True):
    """Fixed at deployment; field order is the contract's. `bond` in wei; windows, age and jail in seconds.

    Shares in hundredths of a percent: `slash_bps` of the stake; `reward_bps`, `finder_bps`, `burn_bps` of the slash.
    """

    bond: Wei
    slash_bps: int
    burn_bps: int
    reward_bps: int
    finder_bps: int
    committee_size: int
    quorum: int
    draw_delay_blocks: int
    commit_window: int
    reveal_window: int
    appeal_window: int
    receipt_max_age: int
    jail_time: int


class Dispute(msgspec.Struct, frozen=True):
    """A dispute and its current round. Deadlines are Unix seconds, exclusive; 0 when not set."""

    phase: Phase
    verdict: Verdict
    appeals: int
    round: int
    host: Address
    challenger: Address
    signer: Address
    amount: Wei
    receipt_digest: Digest
    draw_block: int
    commit_by: int
    reveal_by: int
    appeal_by: int
    seats: int
    committed: int
    revealed: int
    guilty: int
    honest: int


class Vote(msgspec.Struct, frozen=True):
    """A seat on a committee; `verdict` is NONE until revealed."""

    seated: bool
    verdict: Verdict
    commitment: Digest


class Ballot(msgspec.Struct, frozen=True):
    """What a juror thinks, before it is sealed. `salt` is 32 random bytes that the juror keeps until it reveals."""

    verdict: Verdict
    evidence: Digest
    salt: bytes

    def commitment(self, dispute: bytes, round_: int, juror: Address) -> Digest:
        types = ("bytes32", "uint32", "address", "uint8", "bytes32", "bytes32")
        values = (dispute, round_, juror, int(self.verdict), self.evidence, self.salt)
        return keccak256(abi.encode(types, values))


def dispute_id(receipt: Receipt, challenger: Address) -> Digest:
    """One per attempt and challenger, computed without asking the chain."""
    types = ("address", "bytes32", "uint32", "address")
    return keccak256(abi.encode(types, (receipt.host, receipt.job, receipt.attempt, challenger)))


class AuditCourt(Contract):
    NAME = "AuditCourt"

    async def anchor(self, signer: Signer, root: bytes, count: int) -> TxReceipt:
        """Puts the Merkle root of `count` receipt digests on record. The anchor's number is in the Anchored event."""
        return await self._write(signer, "anchor", root, count)

    async def open(self, signer: Signer, receipt: SignedReceipt) -> Digest:
        """Opens a dispute with the bond (needs an allowance: see Coin.allow). Returns its id."""
        await self._write(signer, "open", _tuple(receipt.value), receipt.signature)
        return dispute_id(receipt.value, signer.address)

    async def draw(self, signer: Signer, dispute: bytes) -> TxReceipt:
        return await self._write(signer, "draw", dispute)

    async def commit(self, signer: Signer, dispute: bytes, commitment: bytes) -> TxReceipt:
        return await self._write(signer, "commit", dispute, commitment)

    async def reveal(self, signer: Signer, dispute: bytes, ballot: Ballot) -> TxReceipt:
        return await self._write(signer, "reveal", dispute, int(ballot.verdict), ballot.evidence, ballot.salt)

    async def tally(self, signer: Signer, dispute: bytes) -> TxReceipt:
        return await self._write(signer, "tally", dispute)

    async def appeal(self, signer: Signer, dispute: bytes) -> TxReceipt:
        """With twice the last bond (needs an allowance)."""
        return await self._write(signer, "appeal", dispute)

    async def execute(self, signer: Signer, dispute: bytes) -> TxReceipt:
        return await self._write(signer, "execute", dispute)

    async def dispute(self, dispute: bytes) -> Dispute | None:
        phase, verdict, *rest = (await self._view("disputes", dispute))[0]
        found = Dispute(Phase(phase), Verdict(verdict), *rest)
        return None if found.phase is Phase.NONE else found

    async def jurors(self, dispute: bytes, round_: int) -> tuple[Address, ...]:
        return tuple((await self._view("jurorsOf", dispute, round_))[0])

    async def vote(self, dispute: bytes, round_: int, juror: Address) -> Vote:
        seated, verdict, commitment = (await self._view("votes", dispute, round_, juror))[0]
        return Vote(seated, Verdict(verdict), commitment)

    async def params(self) -> CourtParams:
        values = (await self._view("params"))[0]
        return CourtParams(**dict(zip(CourtParams.__struct_fields__, values, strict=True)))


def _tuple(receipt: Receipt) -> tuple[Any, ...]:
    return msgspec.structs.astuple(receipt)
