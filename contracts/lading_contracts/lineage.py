"""Disputes about hidden parents, as typed verbs: contested by the parent's owner, answered by the agent's, judged."""

import msgspec

from lading_contracts import abi
from lading_contracts.committee import Committee
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, AgentId, Digest
from lading_protocol.keys import keccak256


class Contest(msgspec.Struct, frozen=True):
    """What is contested; answered before second `answer_by`, or admitted. The rest is in the dispute of the same id."""

    agent: AgentId
    parent: AgentId
    answer_by: int


def contest_id(agent: bytes, parent: bytes, challenger: Address) -> Digest:
    """Computed without asking the chain."""
    return keccak256(abi.encode(("bytes32", "bytes32", "address"), (agent, parent, challenger)))


class LineageCourt(Committee):
    NAME = "LineageCourt"

    async def contest(self, signer: Signer, agent: bytes, parent: bytes, evidence: bytes) -> Digest:
        """Claims, as owner of `parent`, that the root `agent` derives from it. Takes the bond (needs an allowance).

        `evidence` is the digest of what the jurors will be shown. Returns the contest's id.
        """
        await self._write(signer, "contest", agent, parent, evidence)
        return contest_id(agent, parent, signer.address)

    async def answer(self, signer: Signer, contest: bytes) -> TxReceipt:
        """Denies it, as the agent's owner, with the same bond (needs an allowance): a committee is drawn."""
        return await self._write(signer, "answer", contest)

    async def uphold(self, signer: Signer, contest: bytes) -> TxReceipt:
        """Upholds a contest that was not answered in time; by anyone."""
        return await self._write(signer, "uphold", contest)

    async def contest_of(self, contest: bytes) -> Contest | None:
        found = Contest(*await self._view("contests", contest))
        return found if any(found.agent) else None
