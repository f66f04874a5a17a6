"""The job ledger: what was asked, what each host delivered, its receipts, and what it is owed.

Records arrive from the dispatcher and are written in groups by one thread, so that no answer waits for a disk. What an
audit needs (request, tokens) is kept for a bounded time; while the disk is full, records wait in memory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from lading.dispatch import Ended, Part
from lading_coordinator.errors import LedgerFailed
from lading_coordinator.forgetting import Forgetting, Retention, piece
from lading_coordinator.metrics import Metrics
from lading_coordinator.store import Store
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address, AgentId, Wei
from lading_protocol.messages import Case, Request
from lading_protocol.receipts import Receipt, SignedReceipt, packed_leaf
from lading_protocol.transcript import token_bytes

log = logging.getLogger(__name__)
GROUP_SECONDS = 0.05
RETRY_SECONDS = 2.0
COUNT_SECONDS = 10.0
# A record that another process wrote is here after this.
LATE_SECONDS = 5.0
PIECE_PAUSE = 0.02
MAX_WAITING = 20_000
MAX_VECTORS = 900_000
_PARTS = "parts (job, attempt, host, terms, first, tokens, amount, receipt, leaf)"
# No index finds a part by its leaf alone: leaves are random, and each record would change another page of it. Asked for
# is the receipt of an audit, which is in the audit's round or was ordered with its job.
_AUDITED = (
    "p.leaf=?1 and (p.round=(select round from audits where leaf=?1) or p.job=(select job from orders where leaf=?1))"
)
_encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(Request)


class PartRow(msgspec.Struct, frozen=True):
    attempt: int
    host: Address
    first: int
    tokens: int
    amount: Wei
    receipt: bytes
    marks: bytes = b""


class JobRow(msgspec.Struct, frozen=True):
    """A finished job. `finish` is a receipts.Finish."""

    job: bytes
    agent: AgentId
    signer: Address
    finish: int
    prompt_tokens: int
    output_tokens: int
    cost: Wei
    ended: float
    parts: tuple[PartRow, ...] = ()


class Ledger:
    """`clock` gives Unix seconds. `shared`: other processes write into the same store."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float],
        retention: Retention | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._forgetting = Forgetting(store, retention or Retention())
        self._waiting: list[Ended] = []
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._shared = shared
        # Who still holds accounts back hands them over before all is written.
        self.before_flush: Callable[[], Awaitable[None]] = _nothing
        self._began = clock()
        self._counted = 0.0  # the end of the last job whose earnings were read from the store
        self._earned: dict[Address, tuple[int, Wei]] = {}

    def record(self, ended: Ended) -> None:
        """Keep a job's account; it is on disk within GROUP_SECONDS."""
        if len(self._waiting) >= MAX_WAITING:
            log.error("The ledger cannot be written and its memory is full: a job's record is lost")
            return
        self._waiting.append(ended)
        self._wake.set()
        cost = 0
        for part in ended.parts:
            if not self._shared:
                self._add(part.host, part.tokens, part.amount)
            cost += part.amount
        self._metrics.tokens_in.inc(ended.prompt_tokens)
        self._metrics.tokens_out.inc(ended.output_tokens)
        self._metrics.spending.inc(cost)

    async def run(self) -> None:
        """Writes groups for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GROUP_SECONDS)
            if not await self._written():
                await asyncio.sleep(RETRY_SECONDS)

    async def count(self) -> None:
        """Adds up what hosts were promised before, and for ever what other processes write. Beside all else: with many
        records it takes a while."""
        until, run = self._began, asyncio.get_running_loop().run_in_executor
        while True:
            try:
                while (found := await run(None, self._earnings, until)) is not None:
                    for host, tokens, amount in found:
                        self._add(Address(host), tokens, int(amount))
                if not self._shared:
                    return
            except LedgerFailed as error:
                log.warning("What hosts have earned is not added up yet: %s", error)
            await asyncio.sleep(COUNT_SECONDS)
            if self._shared:
                until = self._clock() - LATE_SECONDS

    async def flush(self) -> None:
        """Everything recorded so far is on disk when this returns. Raises LedgerFailed; nothing is lost then."""
        await self.before_flush()
        await self._write_group()

    async def _written(self) -> bool:
        try:
            await self._write_group()
        except LedgerFailed as error:
            self._metrics.lost_records.inc()
            log.error("%s %d records wait.", error, len(self._waiting))
            return False
        return True

    async def _write_group(self) -> None:
        async with self._writing:  # a group that is on its way to the disk counts as recorded too
            self._wake.clear()
            group, self._waiting = self._waiting, []
            if not group:
                return
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._write, group, self._clock())
            except BaseException:
                self._waiting = group + self._waiting
                self._wake.set()
                raise

    def _write(self, group: Sequence[Ended], now: float) -> None:
        """In a thread, so that no answer waits while records are put into words."""
        jobs, parts, marks = [], [], []
        for ended in group:
            jobs.append(_job_row(ended, now))
            for part in ended.parts:
                parts.append(_part_row(ended, part))
                if part.marks:
                    marks.append((bytearray(ended.job), part.attempt, bytearray().join(part.marks)))
        self._store.insert({"jobs": jobs, _PARTS: parts, "marks": marks})

    async def prune(self) -> None:
        """Forget what is too old; evidence of an open audit or dispute stays. Raises LedgerFailed."""
        now, run = self._clock(), asyncio.get_running_loop().run_in_executor
        await run(None, self._forgetting.begin, now)
        more = True
        while more:
            more = await run(None, self._forgetting.step, now)
            await asyncio.sleep(PIECE_PAUSE)  # others write, too

    # Reading

    async def job(self, job: bytes) -> JobRow | None:
        await self.flush()
        found = self._jobs("where job=?", (job,))
        if not found and self._shared:
            await asyncio.sleep(5 * GROUP_SECONDS)  # it may be on another process's way to the disk
            found = self._jobs("where job=?", (job,))
        if not found:
            return None
        parts = self._store.rows(
            "select p.attempt, host, first, tokens, amount, receipt, marks from parts p left join marks m"
            " on m.job = p.job and m.attempt = p.attempt where p.job=? order by p.attempt",
            (job,),
        )
        rows = tuple(PartRow(a, Address(h), f, t, Wei(int(w)), r or b"", m or b"") for a, h, f, t, w, r, m in parts)
        return msgspec.structs.replace(found[0], parts=rows)

    def recent(self, count: int) -> list[JobRow]:
        """The newest jobs, without their parts."""
        return self._jobs("order by ended desc limit ?", (count,))

    def earned(self) -> dict[Address, tuple[int, Wei]]:
        """For each host the tokens it delivered and what it was promised for them, as far as it is counted."""
        return self._earned

    def case(self, leaf: bytes, job: bytes | None = None) -> Case | None:
        """All that a re-run of the attempt with this receipt needs; None once the evidence is gone. `job` is the
        attempt's, if its receipt may have no audit yet."""
        row = self._store.row(
            "select p.receipt, j.request, j.emitted, j.vectors, m.marks from parts p join jobs j on j.job = p.job"
            " left join marks m on m.job = p.job and m.attempt = p.attempt where j.request is not null"
            f" and {_AUDITED if job is None else 'p.leaf=?1 and p.job=?2'}",
            (leaf,) if job is None else (leaf, job),
        )
        if row is None or len(row[3] or b"") > MAX_VECTORS:
            return None
        receipt, request, emitted, vectors, marks = row
        value = unpack(Receipt, receipt).value
        end = 4 * (value.first + value.output_tokens)
        return Case(receipt, _request.decode(request), _ids(emitted[:end]), vectors or b"", marks or b"")

    def opening(self, leaf: bytes) -> bytes | None:
        """What the host has opened of the attempt with this receipt."""
        row = self._store.row("select data from openings where leaf=?", (leaf,))
        return row[0] if row else None

    def keep_opening(self, leaf: bytes, data: bytes) -> None:
        self._store.write([("insert or replace into openings values (?,?)", (leaf, data))])

    def receipt(self, leaf: bytes) -> SignedReceipt | None:
        """Of an attempt that is or was audited."""
        row = self._store.row(f"select p.receipt from parts p where {_AUDITED}", (leaf,))
        return unpack(Receipt, row[0]) if row else None

    def job_of(self, leaf: bytes) -> bytes | None:
        """The job of the audited attempt with this receipt, be it a canary's."""
        row = self._store.row(
            f"select p.job from parts p where {_AUDITED} union select job from canaries where leaf=?1", (leaf,)
        )
        return row[0] if row else None

    def anchored(self, leaf: bytes, job: bytes) -> int | None:
        """The round in which this receipt of the job is anchored."""
        row = self._store.row(
            "select round from parts where leaf=?1 and job=?2 union select round from canaries where leaf=?1",
            (leaf, job),
        )
        return row[0] if row else None

    def payer(self, leaf: bytes) -> Address | None:
        """Who paid for the audited attempt with this receipt."""
        row = self._store.row(f"select j.payer from parts p join jobs j on j.job=p.job where {_AUDITED}", (leaf,))
        return Address(row[0]) if row else None

    def _earnings(self, until: float) -> list[tuple[Any, ...]] | None:
        """Of the next few jobs that ended before then; None after the last."""
        last = piece(self._store, self._counted, until)
        if last is None:
            return None
        found = self._store.rows(
            "select host, tokens, amount from jobs j join parts p on p.job=j.job where j.ended > ? and j.ended <= ?",
            (self._counted, last),
        )
        self._counted = last
        return found

    def _add(self, host: Address, tokens: int, amount: int) -> None:
        held = self._earned.get(host, (0, Wei(0)))
        self._earned[host] = (held[0] + tokens, Wei(held[1] + amount))

    def _jobs(self, clause: str, values: tuple[Any, ...]) -> list[JobRow]:
        rows = self._store.rows(
            f"select job, agent, signer, finish, prompt_tokens, output_tokens, cost, ended from jobs {clause}", values
        )
        return [
            JobRow(job, AgentId(agent), Address(signer), finish, prompt, output, Wei(int(cost)), ended)
            for job, agent, signer, finish, prompt, output, cost, ended in rows
        ]


async def _nothing() -> None: ...


# Bytes go to sqlite as bytearrays: for bytes, and for None, it looks up each time how they are to be converted, which
# takes as long as to write them.


def _job_row(ended: Ended, now: float) -> tuple[Any, ...]:
    emitted, cost = ended.emitted, 0
    for part in ended.parts:
        cost += part.amount
    return (
        bytearray(ended.job),
        bytearray(ended.signer),
        bytearray(ended.payer),
        bytearray(ended.agent),
        bytearray(_encode(ended.request)),
        bytearray(token_bytes(emitted)),
        bytearray(ended.vectors),
        int(ended.finish),
        ended.prompt_tokens,
        len(emitted) - ended.given,
        str(cost),
        now,
    )


def _part_row(ended: Ended, part: Part) -> tuple[Any, ...]:
    packed = part.receipt or None
    return (
        bytearray(ended.job),
        part.attempt,
        bytearray(part.host),
        bytearray(part.offer.offer.terms),
        part.first,
        part.tokens,
        str(part.amount),
        bytearray(packed) if packed else None,
        bytearray(packed_leaf(packed)) if packed else None,
    )


def _ids(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))
