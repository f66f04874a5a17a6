"""What this node puts up in court from its operator key: the surety of its votes, and the bond of an appeal.

Owns how much, and the two verbs of the chain for it; says in words why it did not. When to vote or to appeal is others'
business (core/duty, and the court's own events for a host that was convicted).
"""

import asyncio
import logging

from lading_contracts import events
from lading_contracts.court import Dispute, Phase, Verdict
from lading_contracts.errors import Reverted
from lading_node.core.duty import MOST_APPEALS, worth_appealing
from lading_node.errors import NodeError
from lading_node.ports import Doors
from lading_protocol.errors import LadingError
from lading_protocol.ids import Digest, Wei, short
from lading_protocol.pricing import format_amount

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# So many votes a node pays for when its surety runs out, so that not every vote needs a transaction for it.
VOTES_AHEAD = 3


class Poor(NodeError):
    """The operator key does not hold what this takes."""

    code = "no_coins"


class Bonds:
    """`most` is the largest bond (wei) that is ever put up to appeal; 0: none."""

    def __init__(self, doors: Doors, most: Wei) -> None:
        self._doors = doors
        self._most = most
        self._convictions: set[Digest] = set()
        self._heard = asyncio.Event()

    # A juror's

    async def ready(self, dispute: Digest) -> None:
        """See to it that a vote in this dispute has its deposit. Raises Poor, ChainError."""
        court, key = self._doors.contracts.court, self._doors.key
        needed, held = (await court.params_of(dispute)).vote_deposit, await court.surety_of(key.address)
        if held >= needed:
            return
        coins = await self._doors.contracts.coin.balance(key.address)
        amount = min(VOTES_AHEAD * needed - held, coins)
        if held + amount < needed:
            raise Poor(
                f"A vote takes a surety of {self._coins(needed)}; {self._coins(held)} are lodged and the operator key"
                f" holds {self._coins(coins)}.",
                hint="Send coins to the operator key, or lodge from the owner's account: lading stake lodge.",
            )
        await self._doors.contracts.coin.allow(key, court.address, amount)
        await court.lodge(key, key.address, amount)
        log.info("lodged %s as this node's surety as a juror", self._coins(amount))

    # An appellant's

    async def appeal(self, dispute: Digest, found: Dispute) -> str:
        """Put up the bond of the next appeal if that is allowed; what came of it, in words. Raises ChainError."""
        court, coin, key = self._doors.contracts.court, self._doors.contracts.coin, self._doors.key
        bond = (await court.params_of(dispute)).bond << (found.appeals + 1)
        if bond > self._most:
            return f"not appealed: the bond of {self._coins(bond)} is more than appeal_bond allows"
        held = await coin.balance(key.address)
        if bond > held:
            return f"not appealed: the bond is {self._coins(bond)} and the operator key holds {self._coins(held)}"
        await coin.allow(key, court.address, bond)
        await court.appeal(key, dispute)
        log.warning("appealed the ruling of dispute %s with a bond of %s", short(dispute), self._coins(bond))
        return f"appealed with a bond of {self._coins(bond)}"

    def hear(self, event: events.Event) -> None:
        """A ruling; whom it is about is looked up."""
        if isinstance(event, events.Ruled) and event.verdict == Verdict.GUILTY:
            self._convictions.add(event.id)
            self._heard.set()

    async def run(self) -> None:
        """Appeal convictions of this very host, until cancelled."""
        while True:
            self._heard.clear()
            for dispute in tuple(self._convictions):
                try:
                    await self._defend(dispute)
                    self._convictions.discard(dispute)
                except Reverted as error:
                    self._convictions.discard(dispute)
                    log.info("the ruling of dispute %s was not appealed: %s", short(dispute), error.message)
                except LadingError as error:
                    log.warning("an appeal in dispute %s waits: %s", short(dispute), error)
            try:
                async with asyncio.timeout(LOOK_SECONDS if self._convictions else None):
                    await self._heard.wait()
            except TimeoutError:
                pass

    async def _defend(self, dispute: Digest) -> None:
        found = await self._doors.contracts.court.dispute(dispute)
        if found is None or found.accused != self._doors.key.address:
            return
        if found.phase is Phase.RULED and found.verdict is Verdict.GUILTY and found.appeals < MOST_APPEALS:
            log.error("this node was found guilty in dispute %s: %s", short(dispute), await self.appeal(dispute, found))

    async def worth_it(self, dispute: Digest, found: Dispute, now: int) -> bool:
        """Whether a juror whom this ruling outvoted appeals now: the host itself has the first half of the window."""
        window = (await self._doors.contracts.court.params_of(dispute)).appeal_window
        return worth_appealing(found.appeal_by, window, now)

    def _coins(self, amount: int) -> str:
        record = self._doors.contracts.deployment
        return f"{format_amount(amount, record.decimals, 4)} {record.symbol}"
