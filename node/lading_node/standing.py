"""How this operator stands on the chain: stake, jail, disputes against it. Warns in words; changes nothing."""

import asyncio
import logging

from lading_contracts import events
from lading_contracts.staking import Operator
from lading_node.ports import Doors
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Wei, short

log = logging.getLogger(__name__)

LOOK_SECONDS = 300.0
RETRY_SECONDS = 10.0


class Standing:
    """`warning` is "" while all is well, or not yet known."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._look = asyncio.Event()
        self.operator: Operator | None = None
        self.minimum = Wei(0)
        self.warning = ""
        self.disputes: list[str] = []

    def look(self) -> None:
        self._look.set()

    def accused(self, event: events.Opened, me: Address) -> None:
        if event.host == me:
            self.disputes.append(short(event.id))
            log.error("dispute %s was opened against this node by %s", short(event.id), short(event.challenger))
            self.look()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look.clear()
            pause = LOOK_SECONDS
            try:
                await self.check()
            except LadingError:
                pause = RETRY_SECONDS  # the chain is away; node says so already
            try:
                async with asyncio.timeout(pause):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def check(self) -> None:
        """Read the stake. Raises ChainError."""
        staking, me = self._doors.contracts.staking, self._doors.key.address
        self.operator, self.minimum = await asyncio.gather(staking.operator(me), staking.min_stake())
        words = self._words()
        if words and words != self.warning:
            log.warning("%s", words)
        self.warning = words

    def _words(self) -> str:
        operator = self.operator
        if operator is None:
            return (
                "This node has no stake, so payers that ask for one pass it over. Stake with: lading node stake AMOUNT"
            )
        if operator.jailed_until > self._doors.clock():
            return "This operator was found guilty by the court and is jailed; it gets no audited work meanwhile."
        if operator.stake < self.minimum:
            return f"The stake of {operator.stake} wei is below the minimum of {self.minimum} wei. Add to it."
        return ""
