"""Vouchers into money: brings locks to the chain, redeems in batches, and asks payers for what they still owe.

Everything here may be repeated after a crash: the chain skips stale rows, and what it says was redeemed is believed
over our own books. An unreachable chain only delays.
"""

import asyncio
import contextlib
import logging

import msgspec

from lading_contracts.errors import NoFunds, Reverted
from lading_contracts.settlement import Batch
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_node.channels import Channels
from lading_node.core.channel import Channel, ChannelId, read_lock
from lading_node.core.policy import Claim, Policy, Transaction, plan
from lading_node.jobs import Desk
from lading_node.ports import Doors
from lading_node.store import ChannelRow, Redemption
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, TermsId, Wei, short
from lading_protocol.messages import SETTLE, VOUCHER_PAGE, Collect, Vouchers
from lading_protocol.receipts import Voucher

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
COLLECT_SECONDS = 30.0
COLLECT_PATIENCE = 10.0
LOCK_RETRY_SECONDS = 60.0
LONGEST_BACKOFF = 60.0

_vouchers = msgspec.msgpack.Decoder(Vouchers)


class Settler:
    """`status` says in words what keeps it from working, "" when nothing does."""

    def __init__(self, doors: Doors, channels: Channels, policy: Policy) -> None:
        self.status = ""
        self.redeemed = 0
        self.transactions = 0
        self._doors = doors
        self._channels = channels
        self._policy = policy
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._backoff = 0.0
        self._lock_tried: dict[tuple[ChannelId, int], float] = {}

    def poke(self, id: ChannelId | None = None) -> None:
        """A paper came in, or the chain said something: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            await self.settle()
            if self._backoff:
                await asyncio.sleep(self._backoff)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def settle(self, force: str = "") -> bool:
        """Send what is due; `force` gives a reason to redeem all. False when the chain kept us from it."""
        async with self._turn:
            try:
                rows = {row.id: row for row in await self._doors.ledger.channels()}
                for batch in plan(self._claims(rows), self._policy, self._doors.clock(), force=force):
                    await self._send(batch, rows)
            except NoFunds as error:
                self._wait(f"This node's key {short(self._doors.key.address)} cannot pay for gas: {error}")
                return False
            except LadingError as error:
                self._wait(str(error))
                return False
            self.status, self._backoff = "", 0.0
            return True

    def _claims(self, rows: dict[ChannelId, ChannelRow]) -> list[Claim]:
        now = self._doors.clock()
        claims = []
        for id, row in rows.items():
            lock = row.lock.value.cumulative if row.lock is not None else 0
            if now - self._lock_tried.get((id, lock), -LOCK_RETRY_SECONDS) < LOCK_RETRY_SECONDS:
                lock = 0
            channel = msgspec.structs.replace(self._channels.get(id), signed=row.signed)
            claims.append(Claim(channel, lock, row.changed))
        return claims

    def _wait(self, words: str) -> None:
        if words != self.status:
            log.warning("settling waits: %s", words)
        self.status = words
        self._backoff = min(LONGEST_BACKOFF, 2 * self._backoff or 1.0)

    async def _send(self, planned: Transaction, rows: dict[ChannelId, ChannelRow]) -> None:
        """One batch. The chain is asked first, for a crash may have hidden that an earlier one went through."""
        ids = dict.fromkeys((*planned.locks, *planned.vouchers))
        before = {id: await self._channels.refresh(id) for id in ids}
        locks = [rows[id].lock for id in planned.locks]
        lock_rows = [
            (lock.value.cumulative, lock.signature)
            for id, lock in zip(planned.locks, locks, strict=True)
            if lock is not None and lock.value.cumulative > before[id].locked
        ]
        vouchers = [(id, rows[id].voucher) for id in planned.vouchers if rows[id].signed > before[id].redeemed]
        voucher_rows = [(v.value.cumulative, v.signature) for _, v in vouchers if v is not None]
        if not lock_rows and not voucher_rows:
            return
        contract = self._doors.contracts.settlement
        batch = Batch(self._doors.key.address, planned.terms, planned.epoch)
        try:
            if not voucher_rows:
                sent = await contract.lock(self._doors.key, batch, lock_rows)
            elif not lock_rows:
                sent = await contract.redeem(self._doors.key, batch, voucher_rows)
            else:
                sent = await contract.lock_and_redeem(self._doors.key, batch, lock_rows, voucher_rows)
        except Reverted as error:
            # Someone else may have sent the rows (anyone may), or the chain refuses them for good.
            log.warning("the chain refused a batch of %d rows: %s", len(lock_rows) + len(voucher_rows), error)
            await self._after(before)
            self._give_up(planned, rows)
            return
        self.transactions += 1
        moved = await self._after(before)
        self._give_up(planned, rows)
        if moved:
            self.redeemed += moved
            now = self._doors.clock()
            await self._doors.ledger.put_redemption(
                Redemption(sent.tx, planned.terms, planned.epoch, len(voucher_rows), Wei(moved), now)
            )
            log.info("redeemed %d wei in one batch of %d vouchers: %s", moved, len(voucher_rows), planned.why)

    async def _after(self, before: dict[ChannelId, Channel]) -> int:
        """Read the truth back; returns what the batch moved."""
        moved = 0
        for id, channel in before.items():
            now = await self._channels.refresh(id)
            moved += now.redeemed - channel.redeemed
        return moved

    def _give_up(self, planned: Transaction, rows: dict[ChannelId, ChannelRow]) -> None:
        """A lock that the chain skipped counts no longer; it is tried again after a while."""
        for id in planned.locks:
            lock = rows[id].lock
            if lock is not None and self._channels.get(id).locked < lock.value.cumulative:
                self._lock_tried[id, lock.value.cumulative] = self._doors.clock()
                self._channels.lock_failed(id)
                log.warning("a lock of %s did not land: its deposit or cap does not cover it", short(id.signer))


class Collector:
    """Asks payers for their latest vouchers when they are linked and owe."""

    def __init__(self, doors: Doors, channels: Channels, desk: Desk) -> None:
        self._doors = doors
        self._channels = channels
        self._desk = desk
        self._since = doors.clock()

    async def run(self) -> None:
        """Every half minute, until cancelled. Fresh links are served by `collect`."""
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            for link in self._doors.transport.links():
                await self.collect(link)

    async def collect(self, link: Link) -> None:
        if link.closed.is_set() or not self._channels.owing(Address(link.peer)):
            return
        try:
            async with asyncio.timeout(COLLECT_PATIENCE):
                answer = await self._ask(link)
        except (NetError, TimeoutError) as error:
            log.debug("nothing was collected from %s: %s", short(link.peer), error)
            return
        if answer is None:
            return
        for voucher, lock in answer:
            try:
                await self._take(voucher, lock, Address(link.peer))
            except LadingError as error:
                log.warning("a voucher that %s handed over is not good: %s", short(link.peer), error)
        try:
            await self._channels.asked(Address(link.peer), self._since)
        except LadingError as error:
            log.warning("the ledger could not be written: %s", error)

    async def _ask(self, link: Link) -> list[tuple[bytes, bytes]] | None:
        """All pages of what the peer holds for us; None when it breaks off."""
        stream = await link.open(SETTLE)
        try:
            messages: MessageStream[Vouchers] = MessageStream(stream, _vouchers)
            messages.send(Collect())
            await messages.drain()
            held: list[tuple[bytes, bytes]] = []
            while (page := await messages.recv()) is not None:
                held += page.vouchers
                if len(page.vouchers) < VOUCHER_PAGE:
                    return held
            return None
        finally:
            await stream.close()

    async def _take(self, packed: bytes, packed_lock: bytes, peer: Address) -> None:
        voucher = unpack(Voucher, packed)
        domain = self._doors.contracts.deployment.settlement_domain
        id = ChannelId(voucher.signer(domain), TermsId(voucher.value.terms), voucher.value.epoch)
        if voucher.value.host != self._doors.key.address or not self._channels.known(id):
            return
        lock = read_lock(packed_lock, id, self._doors.key.address, domain) if packed_lock else None
        await self._desk.collected(id, voucher, lock, peer)
