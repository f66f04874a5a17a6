"""Which terms an agent is sold under: checked on the chain, or found there when the operator names none.

Terms may sunset: from then on nothing is locked under them. The watch hears of it, and goes on to newer terms where the
operator left the choice to the node.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower
from lading_contracts.registry import Terms
from lading_node.agents import LANDING_SECONDS, Serving
from lading_node.errors import NoTerms
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId, TermsId, digest, short

log = logging.getLogger(__name__)
LOOK_SECONDS = 15.0


class Found(msgspec.Struct, frozen=True):
    """Terms, and the second from which nothing is locked under them (0: none is announced)."""

    terms: TermsId
    sunset_at: int = 0


class Seller(Protocol):
    """An agent of this node, as the watch sees it."""

    serving: Serving

    def sell_under(self, terms: TermsId, sunset_at: int) -> None: ...


class Tables:
    """The tables that were agreed for each agent, oldest first, read from the registry's events as far as they go."""

    def __init__(self, contracts: Contracts) -> None:
        record = contracts.deployment
        self._registry = contracts.registry
        self._follower = Follower(contracts.chain, {record.registry: record.names()[record.registry]})
        self._start = Cursor(record.block)
        self._cursor = self._start
        self._known: dict[AgentId, list[TermsId]] = {}
        self._turn = asyncio.Lock()

    async def newest(self, agent: AgentId, now: float) -> Found | None:
        """The newest terms of the agent that can be sold under now. Raises NoTerms when all have sunset, ChainError."""
        async with self._turn:
            await self._read()
        known = self._known.get(agent, [])
        for terms in reversed(known):
            found = await self._registry.terms(terms)
            if found is not None and sellable(found, now):
                return Found(terms, found.sunset_at)
        if known:
            raise NoTerms(
                f"All terms of agent {short(agent)} have sunset: nothing can be locked under them any more.",
                hint="Wait until its owner agrees new ones.",
            )
        return None

    async def _read(self) -> None:
        while (batch := await self._follower.step(self._cursor)) is not None:
            if batch.undo_above is not None:
                # What a reorganisation took back is not worth keeping the means to undo it: read again.
                self._known, self._cursor = {}, self._start
                continue
            for entry in batch.entries:
                if isinstance(entry.event, events.TermsAgreed):
                    self._known.setdefault(entry.event.agent, []).append(entry.event.id)
            self._cursor = batch.cursor


def sellable(terms: Terms, now: float) -> bool:
    """Whether a lock under these terms could still land."""
    return terms.is_open(now + LANDING_SECONDS)


async def find_terms(contracts: Contracts, agent: AgentId, named: str, now: float) -> Found:
    """The terms `named` (0x-hex), or when empty the newest table of the agent. Raises NoTerms, ChainError."""
    if not named:
        newest = await Tables(contracts).newest(agent, now)
        if newest is None:
            raise NoTerms(f"Agent {short(agent)} has no terms on this chain; it was not published here.")
        return newest
    try:
        wanted = TermsId(digest(named))
    except ValueError as error:
        raise NoTerms(f"The terms id is wrong: {error}.") from None
    found = await contracts.registry.terms(wanted)
    if found is None:
        raise NoTerms(f"There are no terms {short(wanted)} on this chain.")
    if not found.belongs_to(agent):
        raise NoTerms(f"The terms {short(wanted)} belong to another agent, not to {short(agent)}.")
    if not sellable(found, now):
        raise NoTerms(
            f"The terms {short(wanted)} have sunset: nothing can be locked under them any more.",
            hint="Name the agent's present terms, or none: then the newest are taken.",
        )
    return Found(wanted, found.sunset_at)


class TermsWatch:
    """Tells each agent when its terms sunset, and moves those whose terms the operator did not name to newer ones."""

    def __init__(self, contracts: Contracts, sellers: Sequence[Seller], clock: Callable[[], float]) -> None:
        self._contracts = contracts
        self._sellers = sellers
        self._clock = clock
        self.tables = Tables(contracts)

    async def run(self) -> None:
        """Until cancelled. An outage only makes it wait."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for seller in tuple(self._sellers):
                try:
                    await self.look(seller)
                except LadingError as error:
                    log.debug("agent %s: its terms are not looked up now: %s", short(seller.serving.agent), error)

    async def look(self, seller: Seller) -> None:
        """Raises NoTerms, ChainError."""
        serving = seller.serving
        present = await self._contracts.registry.terms(serving.terms)
        if present is not None:
            seller.sell_under(serving.terms, present.sunset_at)
        if serving.named:
            return
        newest = await self.tables.newest(serving.agent, self._clock())
        if newest is not None and newest.terms != serving.terms:
            seller.sell_under(newest.terms, newest.sunset_at)
