"""The registry's agents in memory: owners, parents, versions, sunsets, and what ancestors are owed."""

import msgspec
from msgspec.structs import replace

from lading_contracts.fake.world import Book, Model, World, require
from lading_protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address

NOTICE = 7 * 86_400
_MAX_DEPTH = 8
_MAX_LINEAGE_BPS = 5_000
_MAX_ANCESTORS = 17

Table = tuple[tuple[Address, int, int], ...]


class Node(msgspec.Struct, frozen=True):
    """An agent, in the order in which the contract shows it."""

    owner: Address = ZERO_ADDRESS
    parent: bytes = ZERO_DIGEST
    royalty_bps: int = 0
    depth: int = 0
    registered_at: int = 0
    sunset_at: int = 0
    successor: bytes = ZERO_DIGEST


class Owed(msgspec.Struct):
    """What each owner of ancestors asks in all, and the first ancestor, from below, that is offered less than that."""

    asked: dict[Address, int]
    short: bytes = ZERO_DIGEST
    wanted: int = 0
    offered: int = 0


class LineageModel(Model):
    def __init__(self, world: World, address: Address, court: Address) -> None:
        super().__init__(world, address)
        self._court = court
        self._agents: Book[bytes, Node] = Book(world, Node())

    def register(self, sender: Address, agent: bytes, parent: bytes, royalty_bps: int) -> None:
        require(any(agent), "ZeroAgent")
        require(self._agents[agent].owner == ZERO_ADDRESS, "AlreadyRegistered", agent)
        require(royalty_bps <= _MAX_LINEAGE_BPS, "RoyaltyTooHigh", royalty_bps)
        depth = 0
        if any(parent):
            above = self._known(parent)
            require(not self._has_sunset(above), "AgentSunset", parent)
            require(above.depth < _MAX_DEPTH, "LineageTooDeep", parent)
            depth = above.depth + 1
            asked = self._asked_from(parent)
            require(asked <= _MAX_LINEAGE_BPS, "RoyaltyTooHigh", asked)
        self._agents[agent] = Node(sender, parent, royalty_bps, depth, self.world.now)
        self.emit("AgentRegistered", agent, sender, parent, royalty_bps)

    def supersede(self, sender: Address, agent: bytes, successor: bytes) -> None:
        before, after = self._owned(agent, sender), self._agents[successor]
        later = after.owner == sender and after.registered_at >= before.registered_at
        require(later, "BadSuccessor", successor)
        require(not self._has_sunset(after), "AgentSunset", successor)
        found = successor
        while any(found) and self._agents[found].registered_at == before.registered_at:
            require(found != agent, "BadSuccessor", successor)
            found = self._agents[found].successor
        self._agents[agent] = replace(before, successor=successor)
        self.emit("Superseded", agent, successor)

    def sunset_agent(self, sender: Address, agent: bytes, moment: int) -> None:
        node = self._owned(agent, sender)
        require(not self._has_sunset(node), "AgentSunset", agent)
        self._require_notice(moment)
        self._agents[agent] = replace(node, sunset_at=moment)
        self.emit("AgentSunsetSet", agent, moment)

    def adopt(self, sender: Address, agent: bytes, parent: bytes) -> None:
        require(sender == self._court, "NotCourt", sender)
        child, above = self._known(agent), self._known(parent)
        fit = not any(child.parent) and above.registered_at < child.registered_at
        require(fit, "NotAdoptable", agent)
        self._agents[agent] = replace(child, parent=parent, depth=min(above.depth + 1, _MAX_ANCESTORS))
        self.emit("Adopted", agent, parent)

    # --- views ---

    def agents(self, _sender: Address, agent: bytes) -> tuple[object, ...]:
        return msgspec.structs.astuple(self._agents[agent])

    def notice(self, _sender: Address) -> int:
        return NOTICE

    NOTICE = notice

    def lineage_court(self, _sender: Address) -> Address:
        return self._court

    # --- for other models ---

    def node(self, agent: bytes) -> Node:
        return self._agents[agent]

    def lives(self, agent: bytes) -> bool:
        node = self._agents[agent]
        return node.owner != ZERO_ADDRESS and not self._has_sunset(node)

    def owner_above(self, agent: bytes) -> Address:
        """The owner of the agent's parent; zero if it has none."""
        return self._agents[self._agents[agent].parent].owner

    # --- inside ---

    def _known(self, agent: bytes) -> Node:
        node = self._agents[agent]
        require(node.owner != ZERO_ADDRESS, "UnknownAgent", agent)
        return node

    def _owned(self, agent: bytes, caller: Address) -> Node:
        node = self._known(agent)
        require(node.owner == caller, "NotOwner", caller)
        return node

    def _has_sunset(self, node: Node) -> bool:
        return node.sunset_at != 0 and self.world.now >= node.sunset_at

    def _require_notice(self, moment: int) -> None:
        earliest = self.world.now + NOTICE
        require(moment == 0 or moment >= earliest, "NoticeTooShort", earliest)

    def _asked_from(self, agent: bytes) -> int:
        asked = 0
        for _ in range(_MAX_ANCESTORS):
            asked += self._agents[agent].royalty_bps
            agent = self._agents[agent].parent
        return asked

    def _owed_by(self, agent: bytes, parties: Table) -> Owed:
        """Ancestors count from the nearest, up to half of the revenue; what an owner of several asks adds up."""
        owed = Owed({})
        left = _MAX_LINEAGE_BPS
        ancestor = self._agents[agent].parent
        for _ in range(_MAX_ANCESTORS):
            node = self._agents[ancestor]
            asked = min(node.royalty_bps, left)
            if asked:
                left -= asked
                wanted = owed.asked.get(node.owner, 0) + asked
                owed.asked[node.owner] = wanted
                offered = sum(bps for payee, _, bps in parties if payee == node.owner)
                if offered < wanted and not any(owed.short):
                    owed.short, owed.wanted, owed.offered = ancestor, wanted, offered
            ancestor = node.parent
        return owed
