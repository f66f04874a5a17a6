"""Runs the three parts of auditing side by side, each in its own rhythm; what fails waits for its next turn."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lading_coordinator.audits.checks import Checks
from lading_coordinator.audits.disputes import Disputes
from lading_coordinator.audits.rounds import Rounds
from lading_protocol.errors import LadingError

log = logging.getLogger(__name__)


class Auditor:
    """`period` and `pulse` are seconds between rounds, and between looks at checks and disputes."""

    def __init__(self, rounds: Rounds, checks: Checks, disputes: Disputes, period: float, pulse: float = 1.0) -> None:
        self._rounds = rounds
        self._checks = checks
        self._disputes = disputes
        self._period = period
        self._pulse = min(pulse, period)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_forever("anchoring", self._rounds.step, self._period))
            tasks.create_task(_forever("checking", self._checks.step, self._pulse))
            tasks.create_task(_forever("disputes", self._disputes.step, self._pulse))


async def _forever(what: str, step: Callable[[], Awaitable[None]], pause: float) -> None:
    said = ""
    while True:
        try:
            await step()
            said = ""
        except LadingError as error:
            if error.code != said:
                log.warning("Auditing (%s) waits: %s", what, error)
            said = error.code
        await asyncio.sleep(pause)
