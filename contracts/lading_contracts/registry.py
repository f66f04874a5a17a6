"""Lineage of agents and the split tables agreed for them. Holds no money; what is written never changes."""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from lading_contracts import abi
from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import ZERO_DIGEST, Address, AgentId, TermsId
from lading_protocol.keys import keccak256


class Role(IntEnum):
    MAKER = 1
    OEM = 2
    WEAVER = 3
    CURATOR = 4


class Party(msgspec.Struct, frozen=True):
    """One line of a split table: who gets how many hundredths of a percent of the revenue."""

    payee: Address
    role: Role
    bps: int


class Agent(msgspec.Struct, frozen=True):
    owner: Address
    parent: AgentId
    royalty_bps: int
    depth: int
    registered_at: int


class Terms(msgspec.Struct, frozen=True):
    """An agreed split table. `royalty_bps` is the parties' sum; the host keeps the rest."""

    agent: AgentId
    royalty_bps: int
    parties: int
    agreed_at: int


def terms_id(agent: bytes, parties: Sequence[Party]) -> TermsId:
    """The id that a table has or would have, computed without asking the chain."""
    return TermsId(keccak256(abi.encode(("bytes32", "(address,uint8,uint16)[]"), (agent, rows(parties)))))


def rows(parties: Sequence[Party]) -> list[tuple[Address, int, int]]:
    """A table as the contracts' ABI wants it."""
    return [(party.payee, int(party.role), party.bps) for party in parties]


class AgentRegistry(Contract):
    NAME = "AgentRegistry"

    async def agent(self, agent: bytes) -> Agent | None:
        found = Agent(*await self._view("agents", agent))
        return found if any(found.owner) else None

    async def terms(self, terms: bytes) -> Terms | None:
        found = Terms(*await self._view("terms", terms))
        return found if found.royalty_bps else None

    async def register(
        self, signer: Signer, agent: bytes, parent: bytes = ZERO_DIGEST, royalty_bps: int = 0
    ) -> TxReceipt:
        return await self._write(signer, "register", agent, parent, royalty_bps)

    async def agree_terms(self, signer: Signer, agent: bytes, parties: Sequence[Party]) -> TermsId:
        """Returns the table's id; agreeing the same table again is allowed and changes nothing."""
        await self._write(signer, "agreeTerms", agent, rows(parties))
        return terms_id(agent, parties)
