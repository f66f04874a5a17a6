"""AgentRegistry in memory: lineage and split tables."""

from typing import Any

from lading_contracts import abi
from lading_contracts.fake.world import Book, Model, World, require
from lading_contracts.registry import Agent, Terms
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, AgentId, TermsId
from lading_protocol.keys import keccak256

MAX_DEPTH = 8
MAX_LINEAGE_BPS = 5_000
MAX_PARTIES = 16
WHOLE_BPS = 10_000

Table = tuple[tuple[Address, int, int], ...]
_NO_AGENT = Agent(ZERO_ADDRESS, AgentId(ZERO_DIGEST), 0, 0, 0)
_NO_TERMS = Terms(AgentId(ZERO_DIGEST), 0, 0, 0)


def table_id(agent: bytes, parties: Table) -> TermsId:
    return TermsId(keccak256(abi.encode(("bytes32", "(address,uint8,uint16)[]"), (agent, parties))))


class RegistryModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        self._agents: Book[bytes, Agent] = Book(world, _NO_AGENT)
        self._above: Book[bytes, int] = Book(world, 0)
        self._terms: Book[bytes, Terms] = Book(world, _NO_TERMS)

    def agents(self, _sender: Address, agent: bytes) -> tuple[Any, ...]:
        a = self._agents[agent]
        return a.owner, a.parent, a.royalty_bps, a.depth, a.registered_at

    def terms(self, _sender: Address, terms: bytes) -> tuple[Any, ...]:
        t = self._terms[terms]
        return t.agent, t.royalty_bps, t.parties, t.agreed_at

    def royalty_bps(self, terms: bytes) -> int:
        return self._terms[terms].royalty_bps

    def register(self, sender: Address, agent: bytes, parent: bytes, royalty_bps: int) -> None:
        require(any(agent), "ZeroAgent")
        require(self._agents[agent].owner == ZERO_ADDRESS, "AlreadyRegistered", agent)
        require(royalty_bps <= MAX_LINEAGE_BPS, "RoyaltyTooHigh", royalty_bps)
        depth = ancestors = 0
        if any(parent):
            above = self._agents[parent]
            require(above.owner != ZERO_ADDRESS, "UnknownAgent", parent)
            require(above.depth < MAX_DEPTH, "LineageTooDeep", parent)
            depth = above.depth + 1
            ancestors = self._above[parent] + above.royalty_bps
            require(ancestors <= MAX_LINEAGE_BPS, "RoyaltyTooHigh", ancestors)
        self._agents[agent] = Agent(sender, AgentId(parent), royalty_bps, depth, self.world.now)
        self._above[agent] = ancestors
        self.emit("AgentRegistered", agent, sender, parent, royalty_bps)

    def agree_terms(self, sender: Address, agent: bytes, parties: Table) -> bytes:
        owner = self._agents[agent].owner
        require(owner != ZERO_ADDRESS, "UnknownAgent", agent)
        require(owner == sender, "NotOwner", sender)
        require(0 < len(parties) <= MAX_PARTIES, "BadPartyCount", len(parties))
        terms = table_id(agent, parties)
        if self._terms[terms].royalty_bps:
            return terms
        total = _sum_of_shares(parties)
        self._check_ancestors(agent, parties)
        self._terms[terms] = Terms(AgentId(agent), total, len(parties), self.world.now)
        self.emit("TermsAgreed", terms, agent, parties)
        return terms

    def _check_ancestors(self, agent: bytes, parties: Table) -> None:
        """What an owner of several ancestors asks adds up."""
        asked: dict[Address, int] = {}
        ancestor = self._agents[agent].parent
        while any(ancestor):
            found = self._agents[ancestor]
            asked[found.owner] = asked.get(found.owner, 0) + found.royalty_bps
            offered = sum(bps for payee, _, bps in parties if payee == found.owner)
            require(offered >= asked[found.owner], "AncestorUnderpaid", ancestor, asked[found.owner], offered)
            ancestor = found.parent


def _sum_of_shares(parties: Table) -> int:
    seen: set[tuple[Address, int]] = set()
    for at, (payee, role, bps) in enumerate(parties):
        require(payee != ZERO_ADDRESS and 0 < role <= 4 and bps != 0, "BadParty", at)
        require((payee, role) not in seen, "DuplicateParty", at)
        seen.add((payee, role))
    total = sum(bps for _, _, bps in parties)
    require(total < WHOLE_BPS, "SharesTooHigh", total)
    return total
