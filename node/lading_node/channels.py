"""The channels in memory: what the ledger and the chain said last, who works on them, and who must hear of a change.

Owns the freshness of chain facts. What may be earned on a channel is core/channel's decision.
"""

import asyncio
from collections.abc import Callable

import msgspec

from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainError
from lading_contracts.settlement import ChannelKey
from lading_node.core import channel as core
from lading_node.core.admission import Account
from lading_node.core.channel import Channel, ChannelId
from lading_node.store import ChannelRow, Ledger
from lading_protocol.ids import MAX_U96, Address, Wei, short

# How long a channel's facts are good without asking again; closes are announced by events long before they matter.
FRESH_SECONDS = 60.0
# When facts that are new to us are looked at again: the block that said so may be taken back without anybody telling.
DOUBT_SECONDS = (0.0, 15.0, 60.0, 240.0, 900.0)
# How many of them are looked at in one turn, and how many questions are under way at a time.
DOUBTS_A_TURN = 200
ASK_AT_ONCE = 8
MOST_STRANGERS = 1024


class LookUp(msgspec.Struct, frozen=True):
    """What an Open is decided on. `account` is None when it was not needed or the chain did not answer (`error`)."""

    channel: Channel
    account: Account | None
    error: str = ""


class Doubt(msgspec.Struct, frozen=True):
    """Facts that became known at `since` and were confirmed by so many `looks` after that."""

    since: float
    looks: int = 0

    @property
    def due(self) -> float:
        return self.since + DOUBT_SECONDS[self.looks]


class Channels:
    """One per node. Single-threaded: a channel is read and written between two awaits."""

    def __init__(self, host: Address, ledger: Ledger, contracts: Contracts, clock: Callable[[], float]) -> None:
        self._host = host
        self._ledger = ledger
        self._contracts = contracts
        self._clock = clock
        self._channels: dict[ChannelId, Channel] = {}
        self._peers: dict[ChannelId, Address] = {}
        self._checked: dict[ChannelId, float] = {}
        # Which channels a signer has, and which signers a payer; one of whom the chain was not asked pays for itself.
        self._named: dict[Address, set[ChannelId]] = {}
        self._payers: dict[Address, Address] = {}
        self._signers: dict[Address, set[Address]] = {}
        self._watchers: dict[ChannelId, list[Callable[[], None]]] = {}
        self._interrupted: set[ChannelId] = set()
        self._doubts: dict[ChannelId, Doubt] = {}

    async def load(self) -> list[ChannelRow]:
        """Take up where the last run ended."""
        rows = await self._ledger.channels()
        for row in rows:
            channel = Channel(
                row.id,
                locked=row.locked,
                redeemed=row.redeemed,
                closing=row.closing,
                signed=row.signed,
                earned=row.earned,
            )
            self._channels[row.id] = core.restored(channel)
            self._named.setdefault(row.id.signer, set()).add(row.id)
            if row.peer:
                self._peers[row.id] = row.peer
        self._interrupted = set(await self._ledger.interrupted())
        self.doubt()
        return rows

    def get(self, id: ChannelId) -> Channel:
        return self._channels.get(id) or Channel(id)

    def known(self, id: ChannelId) -> bool:
        return id in self._channels

    def all(self) -> list[Channel]:
        return list(self._channels.values())

    def peer(self, id: ChannelId) -> Address | None:
        return self._peers.get(id)

    def owing(self, peer: Address) -> bool:
        """Whether a voucher may be missing from what this peer brought."""
        return any(
            core.outstanding(self.get(id)) > 0 or id in self._interrupted
            for id, who in self._peers.items()
            if who == peer
        )

    async def asked(self, peer: Address, before: float) -> None:
        """The peer has handed over all that it holds for what a crash before that time cut off."""
        for id in [id for id in self._interrupted if self._peers.get(id) == peer]:
            await self._ledger.close_interrupted(id, before)
            self._interrupted.discard(id)

    def put(self, channel: Channel) -> None:
        """Keep the new state; those who watch the channel hear of it when it may let them go on."""
        before = self._channels.get(channel.id)
        self._channels[channel.id] = channel
        if before is None:
            self._named.setdefault(channel.id.signer, set()).add(channel.id)
        if (
            before is None
            or core.headroom(channel) > core.headroom(before)
            or len(before.running) > len(channel.running)
        ):
            for watcher in list(self._watchers.get(channel.id, ())):
                watcher()

    def beside(self, id: ChannelId) -> core.Beside:
        """The other channels of whoever pays for this one."""
        payer = self._payers.get(id.signer, id.signer)
        signers = self._signers.get(payer, set()) | {payer, id.signer}
        ids = (one for signer in signers for one in self._named.get(signer, ()) if one != id)
        return core.beside(self._channels[one] for one in ids)

    def watch(self, id: ChannelId, peer: Address, watcher: Callable[[], None]) -> None:
        """A job of `peer` runs on the channel; `watcher` is called when it may go on."""
        self._peers[id] = peer
        self._watchers.setdefault(id, []).append(watcher)

    def unwatch(self, id: ChannelId, watcher: Callable[[], None]) -> None:
        watchers = self._watchers.get(id, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(id, None)

    # The chain

    async def look_up(self, id: ChannelId, lock: int) -> LookUp:
        """The facts for an Open with a lock over `lock` wei (0: none). Old facts serve while the chain is down."""
        fresh = self._clock() - self._checked.get(id, -FRESH_SECONDS) < FRESH_SECONDS
        needs_account = lock > core.cover(self.get(id))
        if fresh and not needs_account:
            return LookUp(self.get(id), None)
        try:
            if needs_account:
                channel, account = await asyncio.gather(self.refresh(id), self._account(id))
                return LookUp(channel, account)
            return LookUp(await self.refresh(id), None)
        except ChainError as error:
            return LookUp(self.get(id), None, error.message)

    async def refresh(self, id: ChannelId) -> Channel:
        """Read the channel from the chain. Raises ChainError."""
        seen = await self._contracts.settlement.channel(ChannelKey(id.signer, self._host, id.terms, id.epoch))
        before = self.get(id)
        if not self.known(id) and not seen.locked:
            # Anyone can name a channel; one without money is not worth remembering.
            return core.see_chain(before, seen.locked, seen.redeemed, bool(seen.closes_at), seen.dead)
        self._checked[id] = now = self._clock()
        channel = core.see_chain(before, seen.locked, seen.redeemed, bool(seen.closes_at), seen.dead)
        self.put(channel)
        if (before.locked, before.redeemed, before.closing) != (channel.locked, channel.redeemed, channel.closing):
            self._doubts[id] = Doubt(now, 1)
            await self._ledger.see_chain(id, channel.locked, channel.redeemed, channel.closing)
        return channel

    def doubt(self) -> None:
        """The chain may have taken back what it told us, or a crash cut us off: look at every channel again."""
        now = self._clock()
        self._checked.clear()
        self._doubts = {id: Doubt(now) for id in self._channels}

    async def recheck(self) -> None:
        """Look again at the facts that are due for it, oldest first. Raises ChainError."""
        now = self._clock()
        waiting = [id for id, doubt in self._doubts.items() if doubt.due <= now]
        due = sorted(waiting, key=lambda id: self._doubts[id].due)[:DOUBTS_A_TURN]
        for at in range(0, len(due), ASK_AT_ONCE):
            await asyncio.gather(*(self._confirm(id) for id in due[at : at + ASK_AT_ONCE]))

    async def _confirm(self, id: ChannelId) -> None:
        doubt = self._doubts[id]
        await self.refresh(id)
        if self._doubts.get(id) is not doubt:
            return  # it has changed, and is in doubt anew
        if doubt.looks + 1 < len(DOUBT_SECONDS):
            self._doubts[id] = msgspec.structs.replace(doubt, looks=doubt.looks + 1)
        else:
            del self._doubts[id]

    async def _account(self, id: ChannelId) -> Account:
        settlement = self._contracts.settlement
        session = await settlement.session(id.signer)
        payer = session.payer if session is not None else id.signer
        self._note_payer(id.signer, payer)
        account = await settlement.account(payer)
        free = max(0, account.free - account.exit_amount - self._pending(payer, id))
        room = max(0, session.cap - session.locked) if session is not None else MAX_U96
        return Account(payer, Wei(free), Wei(room), session.expiry if session is not None else 0)

    def _note_payer(self, signer: Address, payer: Address) -> None:
        """Anyone can name a signer: of those that never had a channel here, only the newest are worth remembering."""
        if len(self._payers) >= MOST_STRANGERS + 2 * len(self._named):
            self._payers = {one: whose for one, whose in self._payers.items() if one in self._named}
            self._signers = {}
            for one, whose in self._payers.items():
                self._signers.setdefault(whose, set()).add(one)
        self._payers[signer] = payer
        self._signers.setdefault(payer, set()).add(signer)

    def _pending(self, payer: Address, but: ChannelId) -> int:
        """What locks of the same payer that we accepted for other channels will take from its deposit."""
        return sum(
            max(0, channel.pending - channel.locked)
            for id, channel in self._channels.items()
            if id != but and self._payers.get(id.signer) == payer
        )

    def lock_failed(self, id: ChannelId) -> None:
        self.put(core.lose_lock(self.get(id)))


def describe(channel: Channel) -> dict[str, object]:
    """For the status page: wei as strings."""
    return {
        "signer": short(channel.id.signer),
        "terms": short(channel.id.terms),
        "epoch": channel.id.epoch,
        "earned": str(channel.earned),
        "signed": str(channel.signed),
        "locked": str(channel.locked),
        "redeemed": str(channel.redeemed),
        "unpaid": str(core.outstanding(channel)),
        "closing": channel.closing,
        "jobs": len(channel.running),
    }
