"""Which terms an agent is sold under: checked on the chain, or found there when the operator names none."""

from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower
from lading_node.errors import NoTerms
from lading_protocol.ids import AgentId, TermsId, digest, short


async def find_terms(contracts: Contracts, agent: AgentId, named: str) -> TermsId:
    """The terms `named` (0x-hex), or when empty the newest table of the agent. Raises NoTerms, ChainError."""
    if named:
        try:
            wanted = TermsId(digest(named))
        except ValueError as error:
            raise NoTerms(f"The terms id is wrong: {error}.") from None
        found = await contracts.registry.terms(wanted)
        if found is None:
            raise NoTerms(f"There are no terms {short(wanted)} on this chain.")
        if found.agent != agent:
            raise NoTerms(f"The terms {short(wanted)} belong to agent {short(found.agent)}, not to {short(agent)}.")
        return wanted
    newest = await _newest(contracts, agent)
    if newest is None:
        raise NoTerms(f"Agent {short(agent)} has no terms on this chain; it was not published here.")
    return newest


async def _newest(contracts: Contracts, agent: AgentId) -> TermsId | None:
    record = contracts.deployment
    follower = Follower(contracts.chain, {record.registry: record.names()[record.registry]})
    cursor, newest = Cursor(record.block), None
    while (batch := await follower.step(cursor)) is not None:
        for entry in batch.entries:
            if isinstance(entry.event, events.TermsAgreed) and entry.event.agent == agent:
                newest = entry.event.id
        cursor = batch.cursor
    return newest
