"""Keeps the notice board: replays the chain from the contracts' first block, then follows it. Nothing waits for it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from lading_contracts.deployment import Contracts
from lading_contracts.epochs import Calendar
from lading_contracts.errors import ChainError
from lading_contracts.follower import Cursor, Follower, Following
from lading_coordinator.core.market import Board
from lading_protocol.ids import Address, AgentId

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
SPAN = 5_000
Listener = Callable[[Address, int], None]


class MarketWatch:
    """`caught_up` is False until the past was read; until then the board is shown as incomplete.

    `on_floor(host, sequence)` hears below which sequence a host's offers are void.
    """

    def __init__(self, contracts: Contracts, clock: Callable[[], float], on_floor: Listener) -> None:
        self._contracts = contracts
        self._clock = clock
        self._on_floor = on_floor
        self._follower = Follower(contracts.chain, contracts.deployment.watched(), Following(span=SPAN))
        self._start = Cursor(contracts.deployment.block)
        self._cursor = self._start
        self.board = Board()
        self.calendar: Calendar | None = None
        self.caught_up = False

    async def run(self) -> None:
        """Until cancelled. An outage only makes it wait."""
        while True:
            try:
                idle = await self.step()
            except ChainError as error:
                log.debug("the notice board waits for the chain: %s", error)
                idle = True
            if idle:
                await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> bool:
        """One look; True when there was nothing new. Raises ChainError."""
        if self.calendar is None:
            self.calendar = await self._contracts.share_auctions.calendar()
        batch = await self._follower.step(self._cursor)
        if batch is None:
            self.caught_up = True
            return True
        if batch.undo_above is not None:
            # What a reorganisation took back is not worth keeping the means to undo it: read again.
            self.board, self._cursor, self.caught_up = Board(), self._start, False
            return False
        self._cursor = batch.cursor
        for entry in batch.entries:
            self.board.note(entry)
        for host, floor in self.board.floors.items():
            self._on_floor(host, floor)
        return False

    def promoted(self) -> Sequence[AgentId]:
        """The agents that are shown first now."""
        return () if self.calendar is None else self.board.promoted(self.calendar.epoch_at(int(self._clock())))
