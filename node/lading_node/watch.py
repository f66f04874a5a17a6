"""Follows the chain's events: keeps the book of redemptions, and tells the node's parts what concerns them.

The book is the events' and nobody else's: what a reorganisation takes back leaves it, what comes again comes once. It
and the place that was read up to are written together. Knows nothing of how transactions are made.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from lading_contracts import events
from lading_contracts.errors import ChainError
from lading_contracts.follower import Cursor, Follower, Following, Progress
from lading_node.channels import Channels
from lading_node.core.channel import ChannelId
from lading_node.ports import Doors
from lading_node.store import Redemption
from lading_protocol.errors import LadingError
from lading_protocol.ids import TermsId, Wei

log = logging.getLogger(__name__)

CHAIN_RETRY_SECONDS = 5.0
CURSOR_BLOCKS = 100


async def _nothing() -> None:
    """Nobody has anything to write down."""


class Watch:
    """`trouble` is why the chain cannot be followed, "" while it can.

    `poke` is called when money may be due. `listeners` hear every event, a second time after a crash or a
    reorganisation; `before_forgetting` writes down what they made of it.
    """

    def __init__(self, doors: Doors, channels: Channels, poke: Callable[[], None], poll: float) -> None:
        self.trouble = ""
        self.listeners: list[Callable[[events.Event], None]] = []
        self.before_forgetting: Callable[[], Awaitable[None]] = _nothing
        self._doors = doors
        self._channels = channels
        self._poke = poke
        self._poll = poll
        self._saved_at = 0

    async def run(self) -> None:
        """Until cancelled."""
        deployment = self._doors.contracts.deployment
        wanted = {deployment.settlement, deployment.staking, deployment.court}
        names = {address: name for address, name in deployment.names().items() if address in wanted}
        follower = Follower(self._doors.contracts.chain, names, Following(poll=self._poll))
        saved = await self._doors.ledger.note("cursor")
        cursor = msgspec.msgpack.decode(saved, type=Cursor) if saved else Cursor(deployment.block)
        self._saved_at = cursor.next
        while True:
            try:
                batch = await follower.step(cursor)
                self.trouble = ""
                if batch is None:
                    await asyncio.sleep(self._poll)
                    continue
                await self._take(batch)
                cursor = batch.cursor
            except LadingError as error:
                if not self.trouble:
                    log.warning("the chain does not answer: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(CHAIN_RETRY_SECONDS)

    async def _take(self, batch: Progress) -> None:
        """Raises LedgerError; then the same batch is taken again."""
        if batch.undo_above is not None:
            log.warning("the chain took back what lay above block %d", batch.undo_above)
        for entry in batch.entries:
            await self._hear(entry.event)
        # Empty blocks are cheap to read again; events are not forgotten before what they led to is kept.
        if batch.entries or batch.undo_above is not None or batch.cursor.next >= self._saved_at + CURSOR_BLOCKS:
            await self.before_forgetting()
            found = [one for entry in batch.entries if (one := self._redemption(entry)) is not None]
            await self._doors.ledger.follow(msgspec.msgpack.encode(batch.cursor), batch.undo_above, found)
            self._saved_at = batch.cursor.next
        if batch.undo_above is not None:
            self._channels.doubt()
            self._poke()

    def _redemption(self, entry: events.Entry) -> Redemption | None:
        event = entry.event
        if not isinstance(event, events.Redeemed) or event.host != self._doors.key.address:
            return None
        amount = Wei(event.host_amount + event.royalty)
        where = (entry.block, entry.index, entry.tx)
        return Redemption(*where, event.terms, event.epoch, event.rows, amount, self._doors.clock())

    async def _hear(self, event: events.Event) -> None:
        if isinstance(event, events.CloseStarted | events.Closed | events.Locked):
            id = ChannelId(event.signer, TermsId(event.terms), event.epoch)
            if event.host == self._doors.key.address and self._channels.known(id):
                await self._refresh(id)
        for listener in self.listeners:
            listener(event)

    async def _refresh(self, id: ChannelId) -> None:
        try:
            await self._channels.refresh(id)
        except ChainError:
            log.debug("a channel's state is read again later")
        self._poke()
