"""Follows the chain's events and hands each to whoever depends on it. An outage is noted once and waited out."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainError
from lading_contracts.events import Event
from lading_contracts.follower import Cursor, Follower
from lading_coordinator.metrics import Metrics

log = logging.getLogger(__name__)
Listener = Callable[[Event], None]


class ChainWatch:
    """`head` is the newest block seen, `up` whether the chain answered last. Starts at the chain's present: everything
    older is asked for by those who need it."""

    def __init__(
        self, contracts: Contracts, metrics: Metrics, listeners: Sequence[Listener], poll: float = 1.0
    ) -> None:
        self._contracts = contracts
        self._metrics = metrics
        self._listeners = listeners
        self._poll = poll
        self._follower = Follower(contracts.chain, contracts.deployment.watched())
        self._cursor: Cursor | None = None
        self.up: bool | None = None
        self.head = 0

    async def run(self) -> None:
        while True:
            try:
                idle = await self.step()
                self._say(True, "")
            except ChainError as error:
                idle = True
                self._say(False, str(error))
            if idle:
                await asyncio.sleep(self._poll)

    async def step(self) -> bool:
        """One look; True when there was nothing new. Raises ChainError."""
        if self._cursor is None:
            block = await self._contracts.chain.block()
            if block is None:
                return True
            self._cursor = Cursor(block.number + 1)
            self.head = block.number
            return False
        batch = await self._follower.step(self._cursor)
        if batch is None:
            return True
        self._cursor = batch.cursor
        self.head = self._cursor.next - 1
        for entry in batch.entries:
            for listener in self._listeners:
                listener(entry.event)
        return False

    def _say(self, up: bool, why: str) -> None:
        if up != self.up:
            self.up = up
            self._metrics.chain_up.set(int(up))
            if up:
                log.info("The chain answers (chain %d)", self._contracts.chain.chain_id)
            else:
                log.warning("The chain does not answer; serving goes on, settling waits. %s", why)
