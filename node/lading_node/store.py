"""The node's ledger: channels, vouchers, locks, receipts, sendings, redemptions, jury votes in one sqlite file.

One thread writes, many writes share one sync to disk (group commit), and a write that failed waits and is tried again,
so that a full disk stops new work but loses nothing. Decides nothing about money.
"""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import msgspec

from lading_node.core.channel import ChannelId
from lading_node.core.sending import Sending
from lading_node.disk import Identity, claim, connect, open_file, translate
from lading_node.errors import LedgerError
from lading_protocol.conduct import MEMORY_SECONDS
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address, AgentId, Digest, JobId, TermsId, Wei
from lading_protocol.receipts import Lock, SignedLock, SignedVoucher, Voucher

_RETRY_SECONDS = 1.0
# How long a receipt's note may wait for the voucher to travel with, and how many attempts `seen` remembers itself.
_NOTE_SECONDS = 0.05
_NOTED = 1 << 13
# How long an audit may ask for what was committed to.
OPENING_SECONDS = 2 * 86_400.0
# How long an attempt is on record: while two receipts for it are proof against us, and a day more.
ATTEMPT_SECONDS = MEMORY_SECONDS + 86_400.0


class ChannelRow(msgspec.Struct, frozen=True):
    """A channel as written down. `peer` is who brought its jobs: the link to collect vouchers on.

    `changed` is when the oldest unredeemed voucher came (Unix seconds).
    """

    id: ChannelId
    peer: Address = Address(b"")
    earned: Wei = Wei(0)
    locked: Wei = Wei(0)
    redeemed: Wei = Wei(0)
    closing: bool = False
    voucher: SignedVoucher | None = None
    lock: SignedLock | None = None
    changed: float = 0.0

    @property
    def signed(self) -> Wei:
        return Wei(self.voucher.value.cumulative) if self.voucher else Wei(0)


class AttemptRow(msgspec.Struct, frozen=True):
    """One attempt that ran here, and the last receipt signed for it (packed)."""

    job: JobId
    attempt: int
    channel: ChannelId
    agent: AgentId
    tokens: int
    amount: Wei
    finish: int
    code: str
    receipt: bytes
    at: float


class KeptSketch(msgspec.Struct, frozen=True):
    """What stands behind an attempt's commitment, for the `peer` that brought the job."""

    peer: Address
    data: bytes


class Redemption(msgspec.Struct, frozen=True):
    """An event of the chain that paid this host, whoever sent the batch; `log` is its place in the block.

    `amount` is what its channels moved (wei), the parties' share included; `at` is when we heard of it.
    """

    block: int
    log: int
    tx: Digest
    terms: TermsId
    epoch: int
    rows: int
    amount: Wei
    at: float


class Vote(msgspec.Struct, frozen=True):
    """A juror's vote. Written before it is committed on the chain, since only the salt can reveal it."""

    dispute: Digest
    round: int
    verdict: int
    evidence: Digest
    salt: bytes
    finding: bytes
    stage: str
    at: float


Statement = tuple[str, tuple[Any, ...]]
Write = tuple[Statement, ...]
_CHANNEL = "signer, terms, epoch, peer, earned, locked, redeemed, closing, voucher, lock, changed"
_OF = "where signer=? and terms=? and epoch=?"
_LOCKS = 1 + 32 * (Lock.__struct_fields__.index("cumulative") + 1) - 12  # where a packed lock has its amount


class Ledger:
    """Open with `Ledger.open`. Every method is async and may raise LedgerError, DiskFull or LedgerBusy."""

    def __init__(self, db: sqlite3.Connection, reader: sqlite3.Connection, lock: IO[str] | None) -> None:
        self._db = db
        self._reader = reader
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, "ledger")
        # A reader of its own, so that no job's beginning waits for another one's voucher to reach the disk.
        self._reading = ThreadPoolExecutor(1, "ledger-reads") if reader is not db else self._thread
        self._waiting: list[tuple[Write, asyncio.Future[None] | None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._noted: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._closed = False
        self.trouble = ""

    @classmethod
    def open(cls, folder: Path | None, identity: Identity, *, busy_seconds: float = 2.0) -> "Ledger":
        """The ledger in `folder`, or one in memory (None). Raises FolderBusy, LedgerError."""
        lock = claim(folder) if folder is not None else None
        path = str(folder / "ledger.sqlite") if folder is not None else ":memory:"
        try:
            db = connect(path, identity, busy_seconds)
            reader = open_file(path, busy_seconds) if folder is not None else db
            return cls(db, reader, lock)
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    # Writing

    async def put_voucher(self, id: ChannelId, voucher: SignedVoucher, peer: Address, now: float) -> None:
        """Returns once the voucher is on disk. A lower one than the one held changes nothing."""
        cumulative = _wei(voucher.value.cumulative)
        # `changed` is when the oldest voucher came that is not redeemed yet; the right side sees the row as it was.
        raise_it = (
            "update channels set changed=case when cumulative>redeemed then changed else ? end, cumulative=?, voucher=?"
            f" {_OF} and cumulative<?"
        )
        values = (now, cumulative, voucher.pack(), *_key(id), cumulative)
        await self._write(*_touch(id, peer), (raise_it, values))

    async def put_lock(self, id: ChannelId, lock: SignedLock, peer: Address) -> None:
        await self._write(*_touch(id, peer), (f"update channels set lock=? {_OF}", (lock.pack(), *_key(id))))

    async def see_chain(self, id: ChannelId, locked: int, redeemed: int, closing: bool) -> None:
        values = (_wei(locked), _wei(redeemed), int(closing), *_key(id))
        await self._write(*_touch(id), (f"update channels set locked=?, redeemed=?, closing=? {_OF}", values))

    def note_attempt(self, row: AttemptRow, earned: Wei, peer: Address) -> None:
        """Written with the next batch: losing the last of these costs an account of tokens, never a voucher."""
        self._noted[bytes(row.job), row.attempt] = None
        while len(self._noted) > _NOTED:
            self._noted.popitem(last=False)
        # A receipt asks the payer for a voucher: its note waits a moment to share the sync of the disk with that.
        self._enqueue(_attempt_statements(row, earned, peer), None, lazy=bool(row.receipt))

    def note_receipt(self, job: JobId, attempt: int, receipt: bytes, now: float) -> None:
        """The last one of an attempt that was noted, signed after its end. It ends anew, for whoever asks what has."""
        keep: Statement = (
            "update attempts set receipt=?, at=? where job=? and attempt=?",
            (receipt, now, job, attempt),
        )
        self._enqueue((keep,), None, lazy=True)

    def keep_sketch(self, job: JobId, attempt: int, sketch: KeptSketch, now: float) -> None:
        """Written with the next batch. A crash before that leaves an attempt that cannot be opened, no more."""
        keep = "insert or replace into sketches values (?,?,?,?,?)"
        old: Statement = ("delete from sketches where at<?", (now - OPENING_SECONDS,))
        self._enqueue((old, (keep, (job, attempt, sketch.peer, sketch.data, now))), None)

    async def close_interrupted(self, id: ChannelId, before: float) -> None:
        """The payer has been asked about what a crash cut off."""
        sql = f"update attempts set finish=4, code='crashed' {_OF} and finish=0 and at<?"
        await self._write((sql, (*_key(id), before)))

    async def put_sending(self, sending: Sending) -> None:
        """Returns once it is on disk: only then may it be broadcast."""
        body = msgspec.json.encode(sending)  # msgpack has no numbers as wide as an amount
        await self._write(("insert or replace into sendings values (?,?)", (sending.number, body)))

    async def drop_sending(self, sending: Sending) -> None:
        await self._write(("delete from sendings where number=?", (sending.number,)))

    async def follow(self, cursor: bytes, undo_above: int | None, redemptions: Sequence[Redemption]) -> None:
        """All of it or nothing: forget what the chain took back, add what it says now, and remember up to where.

        So the redemptions are at every moment those of the blocks below the cursor, each once.
        """
        undo: Write = () if undo_above is None else (("delete from redemptions where block>?", (undo_above,)),)
        keep = "insert or replace into redemptions values (?,?,?,?,?,?,?,?)"
        rows = [(keep, (r.block, r.log, r.tx, r.terms, r.epoch, r.rows, _wei(r.amount), r.at)) for r in redemptions]
        await self._write(*undo, *rows, ("insert or replace into meta values ('cursor',?)", (cursor,)))

    async def put_vote(self, vote: Vote) -> None:
        """A vote's verdict and salt are never overwritten; only its stage moves on."""
        values = msgspec.structs.astuple(vote)
        sql = (
            "insert into votes values (?,?,?,?,?,?,?,?)"
            " on conflict (dispute, round) do update set stage=excluded.stage, at=excluded.at"
        )
        await self._write((sql, values))

    async def put_note(self, name: str, value: bytes) -> None:
        await self._write(("insert or replace into meta values (?,?)", (name, value)))

    async def flush(self) -> None:
        """Wait until all that was noted so far is on disk."""
        await self._write()

    # Reading

    async def channels(self) -> list[ChannelRow]:
        return [_channel(row) for row in await self._read(f"select {_CHANNEL} from channels")]

    async def due(self) -> list[ChannelRow]:
        """The channels whose voucher or lock is ahead of what the chain said last: few, however many there are."""
        ahead = f"cumulative>redeemed or substr(lock,{_LOCKS},12)>locked"
        return [_channel(row) for row in await self._read(f"select {_CHANNEL} from channels where {ahead}")]

    async def seen(self, job: bytes, attempt: int) -> bool:
        if (job, attempt) in self._noted:
            return True
        return bool(await self._read("select 1 from attempts where job=? and attempt=?", (job, attempt)))

    async def sketch(self, job: JobId, attempt: int) -> KeptSketch | None:
        rows = await self._read("select peer, data from sketches where job=? and attempt=?", (job, attempt))
        return KeptSketch(Address(rows[0][0]), rows[0][1]) if rows else None

    async def attempts(self, limit: int = 100) -> list[AttemptRow]:
        """The newest first."""
        sql = (
            "select job, attempt, signer, terms, epoch, agent, tokens, amount, finish, code, receipt, at"
            " from attempts order by at desc limit ?"
        )
        return [
            AttemptRow(
                JobId(row[0]),
                row[1],
                ChannelId(Address(row[2]), TermsId(row[3]), row[4]),
                AgentId(row[5]),
                row[6],
                _amount(row[7]),
                *row[8:],
            )
            for row in await self._read(sql, (limit,))
        ]

    async def ended_after(self, moment: float, limit: int) -> list[tuple[float, bytes]]:
        """The end and the last receipt of attempts that ended later than that, oldest first; those of one moment stay
        together."""
        sql = (
            "select at, receipt from attempts where finish<>0 and receipt<>x'' and at>? and at<=coalesce("
            "(select at from attempts where finish<>0 and receipt<>x'' and at>? order by at limit 1 offset ?), 1e18)"
            " order by at, job, attempt"
        )
        return [(at, bytes(receipt)) for at, receipt in await self._read(sql, (moment, moment, limit - 1))]

    async def interrupted(self) -> list[ChannelId]:
        """Channels with attempts that a crash cut off, whose payers may owe more than we know."""
        rows = await self._read("select distinct signer, terms, epoch from attempts where finish=0")
        return [ChannelId(Address(row[0]), TermsId(row[1]), row[2]) for row in rows]

    async def redemptions(self) -> list[Redemption]:
        sql = "select block, log, tx, terms, epoch, rows, amount, at from redemptions order by block, log"
        return [
            Redemption(r[0], r[1], Digest(r[2]), TermsId(r[3]), r[4], r[5], _amount(r[6]), r[7])
            for r in await self._read(sql)
        ]

    async def sendings(self) -> list[Sending]:
        """The oldest first."""
        rows = await self._read("select body from sendings order by number")
        return [msgspec.json.decode(row[0], type=Sending) for row in rows]

    async def votes(self) -> list[Vote]:
        rows = await self._read("select dispute, round, verdict, evidence, salt, finding, stage, at from votes")
        return [Vote(*row) for row in rows]

    async def note(self, name: str) -> bytes | None:
        rows = await self._read("select value from meta where name=?", (name,))
        return bytes(rows[0][0]) if rows else None

    async def close(self) -> None:
        """Writes what waits, if it can, and lets the folder go. Safe to call twice."""
        if self._closed:
            return
        try:
            if self._waiting or (self._writer is not None and not self._writer.done()):
                await self.flush()
        finally:
            self._closed = True
            if self._writer is not None:
                self._writer.cancel()
            if self._later is not None:
                self._later.cancel()
            self._thread.shutdown()
            self._reading.shutdown()
            self._reader.close()
            self._db.close()
            if self._lock is not None:
                self._lock.close()

    # The one writer

    async def _write(self, *write: Statement) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(write, done)
        await done

    def _enqueue(self, write: Write, done: asyncio.Future[None] | None, *, lazy: bool = False) -> None:
        if self._closed:
            if done is not None:
                done.set_exception(LedgerError("The ledger is closed: the node has ended."))
            return
        self._waiting.append((write, done))
        if self._writer is not None and not self._writer.done():
            return
        if not lazy:
            self._begin()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(_NOTE_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._waiting and not self._closed and (self._writer is None or self._writer.done()):
            self._writer = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._commit, [write for write, _ in batch])
            except sqlite3.Error as error:
                self._failed(batch, translate(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.trouble = ""
            for _, done in batch:
                if done is not None and not done.done():
                    done.set_result(None)

    def _failed(self, batch: list[tuple[Write, asyncio.Future[None] | None]], error: LedgerError) -> None:
        """Those who wait learn of it now; the writes themselves are kept and tried again."""
        self.trouble = str(error)
        for _, done in batch:
            if done is not None and not done.done():
                done.set_exception(error)
        self._waiting = [(write, None) for write, _ in batch] + self._waiting

    def _commit(self, writes: Iterable[Write]) -> None:
        self._db.execute("begin immediate")
        try:
            for write in writes:
                for sql, values in write:
                    self._db.execute(sql, values)
            self._db.execute("commit")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    async def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reading, lambda: self._reader.execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise translate(error) from error


def peek(folder: Path) -> list[ChannelRow]:
    """The channels in a ledger that another process may be working on; changes nothing. Raises LedgerError."""
    path = folder / "ledger.sqlite"
    if not path.exists():
        return []
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return [_channel(row) for row in db.execute(f"select {_CHANNEL} from channels")]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise translate(error) from error


def _touch(id: ChannelId, peer: bytes = b"") -> Write:
    create: Statement = ("insert or ignore into channels (signer, terms, epoch) values (?,?,?)", _key(id))
    return (create, (f"update channels set peer=? {_OF}", (peer, *_key(id)))) if peer else (create,)


def _attempt_statements(row: AttemptRow, earned: Wei, peer: Address) -> Write:
    keep = (
        "insert into attempts values (?,?,?,?,?,?,?,?,?,?,?,?) on conflict (job, attempt) do update set"
        " tokens=excluded.tokens, amount=excluded.amount, finish=excluded.finish, code=excluded.code, at=excluded.at,"
        " receipt=case excluded.receipt when x'' then receipt else excluded.receipt end"
    )
    head = (row.job, row.attempt, *_key(row.channel), row.agent, row.tokens, _wei(row.amount))
    return (
        *_touch(row.channel, peer),
        (f"update channels set earned=max(earned, ?) {_OF}", (_wei(earned), *_key(row.channel))),
        (keep, (*head, row.finish, row.code, row.receipt, row.at)),
        (_FORGET, (row.at - ATTEMPT_SECONDS,)),
    )


# Two of the oldest for each new one: the ledger shrinks to what it must hold, and no write is a long one.
_FORGET = (
    "delete from attempts where (job, attempt) in"
    " (select job, attempt from attempts where at<? and finish<>0 order by at limit 2)"
)


def _channel(row: Any) -> ChannelRow:
    signer, terms, epoch, peer, earned, locked, redeemed, closing, voucher, lock, changed = row
    return ChannelRow(
        ChannelId(Address(signer), TermsId(terms), epoch),
        Address(peer),
        _amount(earned),
        _amount(locked),
        _amount(redeemed),
        bool(closing),
        unpack(Voucher, voucher) if voucher else None,
        unpack(Lock, lock) if lock else None,
        changed,
    )


def _key(id: ChannelId) -> tuple[bytes, bytes, int]:
    return id.signer, id.terms, id.epoch


def _wei(amount: int) -> bytes:
    """Twelve bytes, so that sqlite orders amounts as numbers."""
    return amount.to_bytes(12, "big")


def _amount(data: bytes) -> Wei:
    return Wei(int.from_bytes(data, "big"))
