"""Vouchers into money: brings locks to the chain, redeems in batches, and asks payers for what they still owe.

Everything here may be repeated after a crash: the chain skips stale rows, and what it says was redeemed is believed
over our own books. An unreachable chain only delays. docs/decisions/0006 says why it is done in this way.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

import msgspec

from lading_contracts.errors import NoFunds, NotIncluded, Replaced, Reverted, TxRefused
from lading_contracts.port import Note, Signed, TxReceipt
from lading_contracts.settlement import Batch, Row
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_node.channels import Channels
from lading_node.core import sending
from lading_node.core.channel import ChannelId, read_lock
from lading_node.core.policy import Claim, Policy, Transaction, plan
from lading_node.core.sending import Sending, landed
from lading_node.jobs import Desk
from lading_node.ports import Doors
from lading_node.store import ChannelRow
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, TermsId, short
from lading_protocol.messages import SETTLE, VOUCHER_PAGE, Collect, Vouchers
from lading_protocol.receipts import Voucher

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# Papers come one by one, and a look is at all channels that are due: at most this share of the time goes into looking.
LOOKING = 0.05
COLLECT_SECONDS = 30.0
COLLECT_PATIENCE = 10.0
LOCK_RETRY_SECONDS = 60.0
LONGEST_BACKOFF = 60.0

_vouchers = msgspec.msgpack.Decoder(Vouchers)


class Settler:
    """`status` says in words what keeps it from working, "" when nothing does; `on_the_way` what it watches.

    Any step may be the last one before a crash. What is signed is written down before it is broadcast, and a
    transaction whose fate is open is followed to its end before anything else is sent.
    """

    def __init__(self, doors: Doors, channels: Channels, policy: Policy) -> None:
        self.status = ""
        self.transactions = 0
        self._doors = doors
        self._channels = channels
        self._policy = policy
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._backoff = 0.0
        self._lock_tried: dict[tuple[ChannelId, int], float] = {}
        self._sendings: dict[int, Sending] = {}
        self._number = 0
        self._loaded = False
        self._looked = -LOOK_SECONDS
        self._rest = 0.0

    def poke(self, id: ChannelId | None = None) -> None:
        """A paper came in, or the chain said something: look soon."""
        self._wake.set()

    @property
    def on_the_way(self) -> list[str]:
        """What is watched, in words."""
        return [sending.words(one, self._doors.clock()) for one in self._sendings.values() if one.signed]

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
            await asyncio.sleep(self._rest)

    async def settle(self, force: str = "") -> bool:
        """Send what is due; `force` gives a reason to redeem all. False when the chain kept us from it."""
        async with self._turn:
            try:
                refused = await self._settle(force)
            except NoFunds as error:
                self._wait(f"This node's key {short(self._doors.key.address)} cannot pay for gas: {error}")
                return False
            except NotIncluded as error:
                self._wait(" ".join([*self._open_words(), error.message]))
                return False
            except LadingError as error:
                self._wait(str(error))
                return False
            if refused:
                self._wait(refused)
                return False
            self.status, self._backoff = "", 0.0
            return True

    async def _settle(self, force: str) -> str:
        """One turn; says why the chain refused a batch, "" when it refused none. Raises LadingError."""
        if not self._loaded:
            self._sendings = {one.number: one for one in await self._doors.ledger.sendings()}
            self._number = max(self._sendings, default=0)
            self._loaded = True
        if self._doors.clock() - self._looked >= LOOK_SECONDS or any(one.open for one in self._sendings.values()):
            await self._reconcile()
            await self._channels.recheck()
            self._looked = self._doors.clock()
        clock = asyncio.get_running_loop().time
        began = clock()
        rows = {row.id: row for row in await self._doors.ledger.due()}
        planned = plan(self._claims(rows), self._policy, self._doors.clock(), force=force)
        self._rest = min((clock() - began) / LOOKING, LOOK_SECONDS)
        if planned and self._sendings:
            await self._reconcile()  # what was taken back must not be sent a second time beside itself
            planned = plan(self._claims(rows), self._policy, self._doors.clock(), force=force)
        return " ".join([words for batch in planned if (words := await self._send(batch, rows))])

    def _claims(self, rows: dict[ChannelId, ChannelRow]) -> list[Claim]:
        now = self._doors.clock()
        locks, vouchers = landed(self._sendings.values(), now)
        claims = []
        for id, row in rows.items():
            lock = row.lock.value.cumulative if row.lock is not None else 0
            tried = now - self._lock_tried.get((id, lock), -LOCK_RETRY_SECONDS) < LOCK_RETRY_SECONDS
            if tried or lock <= locks.get(id, 0):
                lock = 0
            seen = self._channels.get(id)
            redeemed = max(seen.redeemed, vouchers.get(id, 0))
            channel = msgspec.structs.replace(seen, signed=row.signed, redeemed=redeemed)
            claims.append(Claim(channel, lock, row.changed))
        return claims

    def _wait(self, words: str) -> None:
        if words != self.status:
            log.warning("settling waits: %s", words)
        self.status = words
        self._backoff = min(LONGEST_BACKOFF, 2 * self._backoff or 1.0)

    def _open_words(self) -> list[str]:
        return [sending.words(one, self._doors.clock()) for one in self._sendings.values() if one.open and one.signed]

    # What is on its way

    async def _reconcile(self) -> None:
        """Find out what became of all that was sent and is not beyond doubt. Raises LadingError while it is open."""
        for number in sorted(self._sendings):
            one = self._sendings[number]
            if not one.open:
                block = await self._doors.contracts.chain.block(one.block)
                if block is not None and block.hash == one.block_hash:
                    if sending.final(one, self._doors.clock()):
                        await self._drop(one)
                    continue
                log.warning("the chain took back block %d, which had a batch of ours", one.block)
                one = await self._keep(sending.reopen(one))
                self._channels.doubt()
            await self._follow(one, self._doors.contracts.chain.resume(self._doors.key, one.signed, self._noting(one)))

    async def _follow(self, one: Sending, way: Awaitable[TxReceipt]) -> str:
        """Await the end of a transaction and book it; says why the chain refuses its rows, "" when it does not.

        Raises NotIncluded (or, of an older one, ChainUnreachable) while its fate is open, and what kept it at home.
        """
        try:
            receipt = await way
        except (Reverted, Replaced) as error:
            # Someone else may have sent the rows (anyone may), or the chain refuses them for good.
            log.warning("a batch of %d rows came to nothing: %s", len(one.locks) + len(one.vouchers), error)
            await self._drop(one)
            await self._after(one)
            return f"The chain refuses a batch: {error}" if isinstance(error, Reverted) and self._due(one) else ""
        except (NoFunds, TxRefused):
            await self._drop(one)
            raise
        one = self._sendings.get(one.number, one)
        first = not one.block
        await self._keep(sending.include(one, receipt, self._doors.clock()))
        self.transactions += first
        await self._after(one)
        log.info("block %d has a batch of %d vouchers", receipt.block, len(one.vouchers))
        return ""

    def _due(self, one: Sending) -> bool:
        """Whether a voucher of it would still move money, as far as we know."""
        seen = [(self._channels.get(ChannelId(who, one.terms, one.epoch)), amount) for who, amount in one.vouchers]
        return any(min(amount, channel.locked) > channel.redeemed for channel, amount in seen)

    def _noting(self, one: Sending) -> Note:
        """Writes down what is signed for this sending, before it goes out."""

        async def note(signed: Signed) -> None:
            await self._keep(sending.sign(self._sendings.get(one.number, one), signed))

        return note

    async def _keep(self, one: Sending) -> Sending:
        await self._doors.ledger.put_sending(one)
        self._sendings[one.number] = one
        return one

    async def _drop(self, one: Sending) -> None:
        """Its rows are due again, as far as the chain does not say otherwise."""
        self._sendings.pop(one.number, None)
        await self._doors.ledger.drop_sending(one)

    # Sending

    async def _send(self, planned: Transaction, rows: dict[ChannelId, ChannelRow]) -> str:
        """One batch. The chain is asked first, for others may have sent its rows. Says why the chain refused it."""
        before = {id: await self._channels.refresh(id) for id in dict.fromkeys((*planned.locks, *planned.vouchers))}
        locks = [
            (id, lock.value.cumulative, lock.signature)
            for id in planned.locks
            if (lock := rows[id].lock) is not None and lock.value.cumulative > before[id].locked
        ]
        vouchers = [
            (id, voucher.value.cumulative, voucher.signature)
            for id in planned.vouchers
            if (voucher := rows[id].voucher) is not None and voucher.value.cumulative > before[id].redeemed
        ]
        if not locks and not vouchers:
            return ""
        self._number += 1
        one = Sending(
            self._number,
            planned.terms,
            planned.epoch,
            tuple((id.signer, cumulative) for id, cumulative, _ in locks),
            tuple((id.signer, cumulative) for id, cumulative, _ in vouchers),
            self._doors.clock(),
        )
        return await self._follow(one, self._first(one, [row[1:] for row in locks], [row[1:] for row in vouchers]))

    async def _first(self, one: Sending, locks: list[Row], vouchers: list[Row]) -> TxReceipt:
        """A batch as a new transaction. Raises what `send` raises; forgets the batch when nothing went out."""
        key = self._doors.key
        contract = self._doors.contracts.settlement.noting(self._noting(one))
        batch = Batch(key.address, one.terms, one.epoch)
        try:
            if not vouchers:
                return await contract.lock(key, batch, locks)
            if not locks:
                return await contract.redeem(key, batch, vouchers)
            return await contract.lock_and_redeem(key, batch, locks, vouchers)
        except (NotIncluded, Reverted, Replaced):
            raise
        except LadingError:
            await self._drop(one)
            raise

    async def _after(self, one: Sending) -> None:
        """Read the truth back. A lock that the chain skipped counts no longer; it is tried again after a while."""
        for id in one.channels:
            await self._channels.refresh(id)
        for signer, cumulative in one.locks:
            id = ChannelId(signer, one.terms, one.epoch)
            if self._channels.get(id).locked < cumulative:
                self._lock_tried[id, cumulative] = self._doors.clock()
                self._channels.lock_failed(id)
                log.warning("a lock of %s did not land: its deposit or cap does not cover it", short(signer))


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
