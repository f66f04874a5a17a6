"""What this node puts up in court from its operator key: the surety of its votes, and the bond of an appeal.

Owns how much, and the two verbs of the chain for it; says in words why it did not. When to vote or to appeal is others'
business (core/duty, and the court's own events for a host that was convicted).
"""

import asyncio
import logging

import msgspec

from lading_contracts import events
from lading_contracts.court import Dispute, Verdict
from lading_node.core.duty import MOST_APPEALS, worth_appealing
from lading_node.errors import NodeError
from lading_node.ports import Doors
from lading_protocol.court import Phase
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
        self._saved: list[Digest] = []
        self._heard = asyncio.Event()
        # An allowance is one number: nobody else sets it between the approval and what it is for.
        self._turn = asyncio.Lock()
        self._said = ""

    async def load(self) -> None:
        """Take up the convictions of the last run that were not dealt with."""
        self._saved = msgspec.msgpack.decode(await self._doors.ledger.note("convictions") or b"\x90", type=list[Digest])
        self._convictions.update(self._saved)

    async def save(self) -> None:
        """Write down which rulings are to be looked at, before the events that said so are forgotten."""
        waiting = sorted(self._convictions)
        if waiting != self._saved:
            await self._doors.ledger.put_note("convictions", msgspec.msgpack.encode(waiting))
            self._saved = waiting

    # A juror's

    async def ready(self, dispute: Digest) -> None:
        """See to it that a vote in this dispute has its deposit. Raises Poor, ChainError."""
        async with self._turn:
            await self._ready(dispute)

    async def _ready(self, dispute: Digest) -> None:
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
        """Put up the bond of the next appeal if that is allowed; what came of it, in words. Raises Poor, ChainError."""
        court, coin, key = self._doors.contracts.court, self._doors.contracts.coin, self._doors.key
        bond = (await court.params_of(dispute)).bond << (found.appeals + 1)
        if bond > self._most:
            return f"not appealed: the bond of {self._coins(bond)} is more than appeal_bond allows"
        async with self._turn:
            held = await coin.balance(key.address)
            if bond > held:
                raise Poor(
                    f"An appeal takes a bond of {self._coins(bond)} and the operator key holds {self._coins(held)}.",
                    hint=f"Send coins to the operator key 0x{key.address.hex()}.",
                )
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
        """Appeal convictions of this very host, until cancelled: each until it is appealed or its window is over."""
        while True:
            self._heard.clear()
            for dispute in tuple(self._convictions):
                try:
                    if await self._defend(dispute):
                        self._convictions.discard(dispute)
                except LadingError as error:
                    self._say(f"an appeal in dispute {short(dispute)} waits: {error}")
            try:
                async with asyncio.timeout(LOOK_SECONDS if self._convictions else None):
                    await self._heard.wait()
            except TimeoutError:
                pass

    async def _defend(self, dispute: Digest) -> bool:
        """Whether nothing is left to do. Raises LadingError where it may be done later."""
        found, head = await asyncio.gather(
            self._doors.contracts.court.dispute(dispute), self._doors.contracts.chain.block()
        )
        if found is None or found.accused != self._doors.key.address:
            return True
        ruled = found.phase is Phase.RULED and found.verdict is Verdict.GUILTY and found.appeals < MOST_APPEALS
        if not ruled or head is None or head.timestamp >= found.appeal_by:
            return head is not None
        words = await self.appeal(dispute, found)
        log.error("this node was found guilty in dispute %s: %s", short(dispute), words)
        return True

    def _say(self, words: str) -> None:
        """Once, however often it is tried."""
        if words != self._said:
            log.error("%s", words)
        self._said = words

    async def worth_it(self, dispute: Digest, found: Dispute, now: int) -> bool:
        """Whether a juror whom this ruling outvoted appeals now: the host itself has the first half of the window."""
        window = (await self._doors.contracts.court.params_of(dispute)).appeal_window
        return worth_appealing(found.appeal_by, window, now)

    def _coins(self, amount: int) -> str:
        record = self._doors.contracts.deployment
        return f"{format_amount(amount, record.decimals, 4)} {record.symbol}"
