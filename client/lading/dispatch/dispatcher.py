"""Carries jobs to their end: what all of them share. One job on its way is running's.

The rules are in lading_protocol.job, lading.core.matching and lading.core.failover. Whatever ends a job, each host is
promised exactly what it delivered.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from lading.core.denials import Denials
from lading.core.failover import Failover, Limits
from lading.dispatch.attempt import Attempt
from lading.dispatch.directory import Directory
from lading.dispatch.events import (
    Ask,
    Ended,
    Event,
    Listener,
    Moved,
    Part,
    Payer,
    Piece,
    Refusal,
    Rows,
    Settling,
    Signed,
    Started,
)
from lading.dispatch.funds import Funds
from lading.dispatch.line import Line
from lading.dispatch.mailbox import one_by_one
from lading.dispatch.opening import Spoken
from lading.dispatch.purse import ChannelKey, Purse
from lading.dispatch.running import Run
from lading.dispatch.scout import Scout
from lading.dispatch.sheaves import Sheaves
from lading_contracts.deployment import Deployment
from lading_net.ports import Transport
from lading_protocol.ids import JOB_CHANCE, Address, JobId, new_job

__all__ = [
    "Ask",
    "Dispatcher",
    "Ended",
    "Event",
    "Limits",
    "Listener",
    "Moved",
    "Part",
    "Payer",
    "Piece",
    "Refusal",
    "Rows",
    "Settling",
    "Signed",
    "Started",
]


CLOSE_SECONDS = 1.0


class Dispatcher:
    """`clock` gives Unix seconds, `rng` job ids. `on_end` is called once for every job that reached a host.

    With `bare` hosts may sign receipts a moment later, many at once: who asks for them waits for `settle`.
    """

    def __init__(
        self,
        transport: Transport,
        directory: Directory,
        purse: Purse,
        network: Deployment,
        clock: Callable[[], float],
        rng: random.Random,
        limits: Limits | None = None,
        on_end: Callable[[Ended], None] = lambda ended: None,
        *,
        bare: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()  # kept: to ask for it is a system call
        self.transport = transport
        self.directory = directory
        self.purse = purse
        self.network = network
        self.court = network.court_domain
        self.clock = clock
        self.rng = rng
        self.limits = limits or Limits()
        self.on_end = on_end
        self.funds = Funds(purse, network, self.let_go)
        self.failover = Failover(self.limits)
        self.denials = Denials()
        self.line = Line()
        self.spoken = Spoken(self)
        self.scout: Scout | None = None  # who looks elsewhere for hosts, where somebody does
        self.sheaves = Sheaves(self.court, rng, self._lied) if bare else None
        self._background: set[asyncio.Task[None]] = set()
        self._leaving: deque[Attempt] = deque()
        self._closes = False

    @property
    def reserved(self) -> dict[ChannelKey, int]:
        """What running jobs may still cost (wei), by channel."""
        return self.funds.reserved

    def carry(self, payer: Payer, ask: Ask, listener: Listener, job: JobId | None = None) -> Coroutine[Any, Any, None]:
        """One job from its beginning to its end; `listener` hears of it, Ended last. Cancelling this cancels the job.

        Raises NoHost, OutOfFunds, JobLost, Quarantined, BadRequest, PurseError.
        """
        job = job or new_job(self.clock(), self.rng.randbytes(JOB_CHANCE))
        return Run(self, payer, ask, job, listener).carry()

    def run(self, payer: Payer, ask: Ask, job: JobId | None = None) -> AsyncGenerator[Event, None]:
        """As `carry`, for a caller that takes the events one by one. Closing the generator cancels the job."""
        return one_by_one(lambda listener: self.carry(payer, ask, listener, job))

    def later(self, work: "asyncio.Task[None]") -> None:
        """Keep a background task alive until it is done."""
        self._background.add(work)
        work.add_done_callback(self._background.discard)

    def let_go(self, attempts: "list[Attempt]") -> None:
        """Close the streams of attempts that are over."""
        self._leaving.extend(attempts)
        if self._leaving and not self._closes:
            self._closes = True
            self.later(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        """A moment for all, and a new one where that was not enough: a timer for each costs more than closing."""
        try:
            while self._leaving:
                try:
                    async with asyncio.timeout(CLOSE_SECONDS):
                        while self._leaving:
                            await self._leaving.popleft().close()
                except TimeoutError:
                    pass
        finally:
            self._closes = False

    async def settle(self) -> None:
        """Sign for all that is owed, and wait until all is reported that has ended."""
        self.funds.tab.sign_all()
        if self.sheaves is not None:
            await self.sheaves.settle()

    def _lied(self, host: Address) -> None:
        self.directory.failed(host, self.clock(), blame=True)

    async def close(self) -> None:
        """Wait for cancelled jobs to be accounted for, and sign for all that is owed."""
        self.funds.tab.close()
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
            self.funds.tab.close()
        if self.sheaves is not None:
            await self.sheaves.close()
