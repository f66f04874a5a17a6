"""Follows the events of a few contracts through restarts, outages and reorganisations.

Where it stands is a plain value, `Cursor`, that the caller stores together with whatever it derived from the events, in
one transaction; nothing is kept here. A batch may take blocks back (`undo_above`) before it adds events.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

import msgspec

from lading_contracts import events
from lading_contracts.errors import ChainUnreachable
from lading_contracts.port import Block, Chain
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
    """A block is believed when `confirmations` blocks lie on it. `poll` seconds; `span` blocks a question."""

    confirmations: int = 0
    poll: float = 1.0
    span: int = 2_000


class Follower:
    """`contracts` maps each address to its contract's name in the package, as `Deployment.names()` gives it."""

    def __init__(self, chain: Chain, contracts: Mapping[Address, str], settings: Following | None = None) -> None:
        self._chain = chain
        self._contracts = dict(contracts)
        self._settings = settings or Following()

    async def step(self, cursor: Cursor) -> Progress | None:
        """What happened since `cursor`, at most `span` blocks of it; None when nothing did. Raises ChainUnreachable."""
        head = await self._chain.block()
        if head is None:
            return None
        marks = await self._still_true(cursor.marks, head)
        rewound = len(marks) < len(cursor.marks)
        kept = Cursor(cursor.start, marks)
        undo = kept.next - 1 if rewound else None
        last = min(head.number - self._settings.confirmations, kept.next + self._settings.span - 1)
        if last < kept.next:
            return Progress(undo, (), kept) if rewound else None
        until = head if last == head.number else await self._chain.block(last)
        if until is None:
            return None
        logs = await self._chain.logs(tuple(self._contracts), kept.next, last)
        if not await self._same(until):
            return None  # the chain was reorganised while we read: ask again from the same place
        entries = tuple(events.decode(self._contracts[log.address], log) for log in logs)
        marks = (*kept.marks, Mark(until.number, until.hash))[-_MARKS:]
        return Progress(undo, tuple(entry for entry in entries if entry is not None), Cursor(cursor.start, marks))

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

    async def _still_true(self, marks: tuple[Mark, ...], head: Block) -> tuple[Mark, ...]:
        """Drop the newest marks that the chain no longer has. One block at a time needs no further question."""
        if marks and marks[-1] in (Mark(head.number, head.hash), Mark(head.number - 1, head.parent)):
            return marks
        while marks:
            block = await self._chain.block(marks[-1].number)
            if block is not None and block.hash == marks[-1].hash:
                return marks
            marks = marks[:-1]
        return marks

    async def _same(self, block: Block) -> bool:
        again = await self._chain.block(block.number)
        return again is not None and again.hash == block.hash
