"""Follows the events of a few contracts through restarts, outages and reorganisations.

Where it stands is a plain value, `Cursor`, that the caller stores together with whatever it derived from the events, in
one transaction; only what the endpoint can bear is remembered here. A batch may take blocks back (`undo_above`) before
it adds events. Behind a balancer that spreads questions over servers, `confirmations` must exceed how many blocks these
differ by: a server that lags gives the events of a block it does not know as none.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

import msgspec

from lading_contracts import events
from lading_contracts.errors import ChainUnreachable, TooWide
from lading_contracts.port import Block, Chain, Log
from lading_protocol.ids import Address, Digest

_MARKS = 64


class Mark(msgspec.Struct, frozen=True):
    """A block whose events the caller has."""

    number: int
    hash: Digest


class Cursor(msgspec.Struct, frozen=True):
    """`start` is the first block of interest, `marks` the last blocks seen, oldest first. A plain value."""

    start: int
    marks: tuple[Mark, ...] = ()

    @property
    def next(self) -> int:
        """The first block that is not processed yet."""
        return self.marks[-1].number + 1 if self.marks else self.start


class Progress(msgspec.Struct, frozen=True):
    """Apply in this order: forget events of blocks above `undo_above` (unless None), add `entries`, store `cursor`."""

    undo_above: int | None
    entries: tuple[events.Entry, ...]
    cursor: Cursor


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """A block is believed when `confirmations` blocks lie on it. `poll` seconds; `span` blocks a question.

    A head below what we have seen already is a server that lags, unless it stays so for `lag` seconds.
    """

    confirmations: int = 0
    poll: float = 1.0
    span: int = 2_000
    lag: float = 30.0


class Follower:
    """`contracts` maps each address to its contract's name in the package, as `Deployment.names()` gives it."""

    def __init__(self, chain: Chain, contracts: Mapping[Address, str], settings: Following | None = None) -> None:
        self._chain = chain
        self._contracts = dict(contracts)
        self._settings = settings or Following()
        self._span = self._settings.span
        self._behind_since: float | None = None

    async def step(self, cursor: Cursor) -> Progress | None:
        """What happened since `cursor`, at most `span` blocks of it; None when nothing did. Raises ChainUnreachable."""
        head = await self._chain.block()
        if head is None:
            return None
        marks = await self._still_true(cursor.marks, head)
        if marks is None:
            return None
        rewound = len(marks) < len(cursor.marks)
        kept = Cursor(cursor.start, marks)
        undo = kept.next - 1 if rewound else None
        nothing = Progress(undo, (), kept) if rewound else None
        newest = head.number - self._settings.confirmations
        if newest < kept.next:
            return nothing
        logs, until = await self._logs(kept.next, newest, head)
        if until is None or not await self._holds(until, kept):
            return None  # the chain was reorganised while we read: ask again from the same place
        entries = tuple(events.decode(self._contracts[log.address], log) for log in logs)
        marks = (*kept.marks, Mark(until.number, until.hash))[-_MARKS:]
        return Progress(undo, tuple(entry for entry in entries if entry is not None), Cursor(cursor.start, marks))

    async def _logs(self, first: int, newest: int, head: Block) -> tuple[tuple[Log, ...], Block | None]:
        """Events from `first` on, and up to which block: as many as the endpoint answers for at once."""
        while True:
            last = min(newest, first + self._span - 1)
            until = head if last == head.number else await self._chain.block(last)
            try:
                return await self._chain.logs(tuple(self._contracts), first, last), until
            except TooWide:
                if last == first:
                    raise
                self._span = (last - first + 1) // 2

    async def follow(self, cursor: Cursor) -> AsyncIterator[Progress]:
        """Batches for ever. An unreachable chain only makes it wait; other errors are the caller's to see."""
        while True:
            try:
                batch = await self.step(cursor)
            except ChainUnreachable:
                batch = None
            if batch is None:
                await asyncio.sleep(self._settings.poll)
                continue
            cursor = batch.cursor
            yield batch

    async def _still_true(self, marks: tuple[Mark, ...], head: Block) -> tuple[Mark, ...] | None:
        """Drop the newest marks that the chain no longer has; None while it only seems so, since the head is behind.

        One block at a time needs no further question.
        """
        if marks and marks[-1] in (Mark(head.number, head.hash), Mark(head.number - 1, head.parent)):
            self._behind_since = None
            return marks
        kept = marks
        while kept:
            block = await self._chain.block(kept[-1].number)
            if block is not None and block.hash == kept[-1].hash:
                break
            if block is None and self._may_lag():
                return None
            kept = kept[:-1]
        self._behind_since = None
        return kept

    def _may_lag(self) -> bool:
        """A block that we have seen is unknown now. Does that hold for long, the chain has become shorter."""
        now = asyncio.get_running_loop().time()
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since < self._settings.lag

    async def _holds(self, until: Block, kept: Cursor) -> bool:
        """Whether, after all that was read, the chain still has this block and what we kept below it."""
        again = await self._chain.block(until.number)
        if again is None or again.hash != until.hash:
            return False
        if not kept.marks:
            return True
        if until.number == kept.next:
            return until.parent == kept.marks[-1].hash
        below = await self._chain.block(kept.marks[-1].number)
        return below is not None and below.hash == kept.marks[-1].hash
