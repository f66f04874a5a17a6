"""Lineage of agents and the split tables agreed for them. Holds no money; of a table only its sunset ever changes.

Nobody stands in a table against its will: each party consents by a policy, by a signature, or by being its owner.
What only the auctions and the lineage court may call (agreeAuctioned, adopt) has no verb here.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import ZERO_DIGEST, Address, AgentId, TermsId
from lading_protocol.keys import keccak256

WHOLE_BPS = 10_000
MAX_PARTIES = 16
MAX_LINEAGE_BPS = 5_000
"""What the ancestors of an agent may ask together."""
MAX_ANCESTORS = 17


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
    """`parent` and `successor` are zero when there is none; `sunset_at` is 0 until the agent's end is announced."""

    owner: Address
    parent: AgentId
    royalty_bps: int
    depth: int
    registered_at: int
    sunset_at: int = 0
    successor: AgentId = AgentId(ZERO_DIGEST)


class Terms(msgspec.Struct, frozen=True):
    """An agreed split table. `royalty_bps` is the parties' sum; the host keeps the rest.

    `tag` are 20 bytes that the agent's digest hashes to. `sunset_at` is a second, 0 until a sunset is announced.
    """

    tag: bytes
    royalty_bps: int
    parties: int
    agreed_at: int
    sunset_at: int = 0

    def belongs_to(self, agent: bytes) -> bool:
        return self.tag == tag_of(agent)

    def is_open(self, moment: float) -> bool:
        """Whether money may be locked under these terms at Unix second `moment`."""
        return self.sunset_at == 0 or moment < self.sunset_at


class Consents(msgspec.Struct, frozen=True):
    """Signatures of TermsConsent, all for the same deadline (a Unix second, exclusive), by the party that signed.

    65 bytes, or 64 (ERC-2098, see lading_protocol.receipts.compact), or what a party that is a contract accepts.
    """

    deadline: int = 0
    signatures: Mapping[Address, bytes] = {}

    def arguments(self, parties: Sequence[Party]) -> tuple[int, list[bytes]]:
        """Deadline and consents as the contracts' ABI wants them: one for each party, or none at all."""
        if not any(party.payee in self.signatures for party in parties):
            return 0, []
        return self.deadline, [self.signatures.get(party.payee, b"") for party in parties]


def terms_id(agent: bytes, parties: Sequence[Party]) -> TermsId:
    """The id that a table has or would have, computed without asking the chain."""
    return TermsId(keccak256(abi.encode(("bytes32", "(address,uint8,uint16)[]"), (agent, rows(parties)))))


def tag_of(agent: bytes) -> bytes:
    """What the terms of this agent carry instead of its digest."""
    return keccak256(agent)[:20]


def rows(parties: Sequence[Party]) -> list[tuple[Address, int, int]]:
    """A table as the contracts' ABI wants it."""
    return [(party.payee, int(party.role), party.bps) for party in parties]


def table(values: Sequence[tuple[Any, ...]]) -> tuple[Party, ...]:
    """The inverse of `rows`."""
    return tuple(Party(payee, Role(role), bps) for payee, role, bps in values)


class AgentRegistry(Contract):
    NAME = "AgentRegistry"

    # --- owners ---

    async def register(
        self, signer: Signer, agent: bytes, parent: bytes = ZERO_DIGEST, royalty_bps: int = 0
    ) -> TxReceipt:
        """`royalty_bps` is what every later descendant must give the signer."""
        return await self._write(signer, "register", agent, parent, royalty_bps)

    async def supersede(self, signer: Signer, agent: bytes, successor: bytes) -> TxReceipt:
        """Names the next version of the signer's agent, another agent of the signer's."""
        return await self._write(signer, "supersede", agent, successor)

    async def sunset_agent(self, signer: Signer, agent: bytes, moment: int) -> TxReceipt:
        """From second `moment` on: no new terms, no descendants. Needs `notice()` seconds; 0 calls it off."""
        return await self._write(signer, "sunsetAgent", agent, moment)

    async def sunset_terms(self, signer: Signer, terms: bytes, agent: bytes, moment: int) -> TxReceipt:
        """From second `moment` on nothing is locked under the terms. Needs `notice()` seconds; 0 calls it off."""
        return await self._write(signer, "sunsetTerms", terms, agent, moment)

    async def agree_terms(
        self, signer: Signer, agent: bytes, parties: Sequence[Party], consents: Consents | None = None
    ) -> TermsId:
        """By the agent's owner. Returns the table's id; agreeing the same table again is allowed and changes nothing.

        A party consents by being the signer, as an ancestor's owner, by its policy, or by its signature in `consents`.
        """
        given = (consents or Consents()).arguments(parties)
        await self._write(signer, "agreeTerms", agent, rows(parties), *given)
        return terms_id(agent, parties)

    # --- parties, and anyone ---

    async def set_policy(self, signer: Signer, role: Role, min_bps: int) -> TxReceipt:
        """The signer's standing consent to any table that gives it at least `min_bps` in `role`; 0 ends it."""
        return await self._write(signer, "setPolicy", int(role), min_bps)

    async def condemn(self, signer: Signer, agent: bytes, parties: Sequence[Party]) -> TxReceipt:
        """Sunsets a table that pays the agent's ancestors too little since it was adopted; by anyone."""
        return await self._write(signer, "condemn", agent, rows(parties))

    # --- views ---

    async def agent(self, agent: bytes) -> Agent | None:
        found = Agent(*await self._view("agents", agent))
        return found if any(found.owner) else None

    async def ancestors(self, agent: bytes) -> tuple[Agent, ...]:
        """From the nearest up, one question each: those whom a table of `agent` may owe."""
        found = await self.agent(agent)
        above: list[Agent] = []
        while found is not None and any(found.parent) and len(above) < MAX_ANCESTORS:
            found = await self.agent(found.parent)
            if found is not None:
                above.append(found)
        return tuple(above)

    async def terms(self, terms: bytes) -> Terms | None:
        found = Terms(*await self._view("terms", terms))
        return found if found.royalty_bps else None

    async def is_open(self, terms: bytes) -> bool:
        """Whether money may be locked under these terms now: agreed, and not past their sunset."""
        return bool((await self._view("isOpen", terms))[0])

    async def policy_of(self, party: Address, role: Role) -> int:
        """The least share (bps) that `party` accepts in `role` without a signature; 0 is nothing."""
        return int((await self._view("policyOf", party, int(role)))[0])

    async def check_table(
        self, agent: bytes, sender: Address, parties: Sequence[Party], consents: Consents | None = None
    ) -> int:
        """The parties' sum (bps). Raises Reverted as `agree_terms` by `sender` would."""
        given = (consents or Consents()).arguments(parties)
        return int((await self._view("checkTable", agent, sender, rows(parties), *given))[0])

    async def notice(self) -> int:
        """Seconds that a sunset must be announced ahead."""
        return int((await self._view("NOTICE"))[0])

    async def auctions(self) -> Address:
        return Address((await self._view("auctions"))[0])

    async def lineage_court(self) -> Address:
        return Address((await self._view("lineageCourt"))[0])
