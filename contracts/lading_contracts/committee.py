"""What both courts share: disputes, committees drawn by later randomness, sealed votes, appeals. Times: Unix seconds.

The re-execution and the judgement happen elsewhere; this carries votes.
"""

from enum import IntEnum

import msgspec

from lading_contracts import abi
from lading_contracts.parameters import CourtParams, from_tuple
from lading_contracts.payments import Payments
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.court import Phase
from lading_protocol.ids import Address, Digest, Wei
from lading_protocol.keys import keccak256


class Verdict(IntEnum):
    NONE = 0
    HONEST = 1
    GUILTY = 2


class Dispute(msgspec.Struct, frozen=True):
    """A dispute and its current round; field order is the contract's. Deadlines are exclusive; 0 when not set.

    `subject` is what it is about: the digest of a receipt, or of a claim of lineage. `signer` and `amount` (wei) are
    the receipt's.
    """

    phase: Phase
    verdict: Verdict
    appeals: int
    round: int
    accused: Address
    challenger: Address
    signer: Address
    amount: Wei
    subject: Digest
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


class Committee(Payments):
    """The verbs of a dispute, whatever it is about."""

    async def draw(self, signer: Signer, dispute: bytes) -> TxReceipt:
        """From the draw block on; by anyone."""
        return await self._write(signer, "draw", dispute)

    async def commit(self, signer: Signer, dispute: bytes, commitment: bytes) -> TxReceipt:
        return await self._write(signer, "commit", dispute, commitment)

    async def reveal(self, signer: Signer, dispute: bytes, ballot: Ballot) -> TxReceipt:
        return await self._write(signer, "reveal", dispute, int(ballot.verdict), ballot.evidence, ballot.salt)

    async def tally(self, signer: Signer, dispute: bytes) -> TxReceipt:
        return await self._write(signer, "tally", dispute)

    async def appeal(self, signer: Signer, dispute: bytes) -> TxReceipt:
        """By the side that lost or a juror whom the ruling outvoted, with twice the last bond (needs an allowance: see
        Coin.allow)."""
        return await self._write(signer, "appeal", dispute)

    async def execute(self, signer: Signer, dispute: bytes) -> TxReceipt:
        """After the appeal window; by anyone."""
        return await self._write(signer, "execute", dispute)

    async def lodge(self, signer: Signer, juror: Address, amount: int) -> TxReceipt:
        """Adds to the surety of an operator that somebody has staked for; by anyone (needs an allowance)."""
        return await self._write(signer, "lodge", juror, amount)

    async def take_back(self, signer: Signer, juror: Address, amount: int) -> TxReceipt:
        """By the operator's owner: what no vote has set aside."""
        return await self._write(signer, "takeBack", juror, amount)

    # --- views ---

    async def dispute(self, dispute: bytes) -> Dispute | None:
        phase, verdict, *rest = (await self._view("disputes", dispute))[0]
        found = Dispute(Phase(phase), Verdict(verdict), *rest)
        return None if found.phase is Phase.NONE else found

    async def jurors(self, dispute: bytes, round_: int) -> tuple[Address, ...]:
        return tuple((await self._view("jurorsOf", dispute, round_))[0])

    async def vote(self, dispute: bytes, round_: int, juror: Address) -> Vote:
        seated, verdict, commitment = (await self._view("votes", dispute, round_, juror))[0]
        return Vote(seated, Verdict(verdict), commitment)

    async def surety_of(self, juror: Address) -> Wei:
        """What its next votes can set aside."""
        return Wei((await self._view("suretyOf", juror))[0])

    async def params(self) -> CourtParams:
        """Under which a dispute would be opened now."""
        return from_tuple(CourtParams, (await self._view("params"))[0])

    async def params_of(self, dispute: bytes) -> CourtParams:
        """Under which this dispute is carried out."""
        return from_tuple(CourtParams, (await self._view("paramsOf", dispute))[0])
