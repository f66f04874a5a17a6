"""Limits that several processes keep together: how much of each is one process's own at a moment. Pure.

Whoever asks for less than its even share gets it, and what it leaves is the others'; a process that has more than its
share keeps what runs, and begins nothing new while another waits.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Load(msgspec.Struct, frozen=True):
    """Jobs of one process."""

    running: int = 0
    waiting: int = 0


class Allowed(msgspec.Struct, frozen=True):
    """How many jobs a process may have run, and wait."""

    running: int
    waiting: int


class Shares(Protocol):
    """What the processes of one coordinator tell each other. One thread of a process calls it, and never awaits between
    `begin` and `end`: for so long the others stand still.
    """

    def begin(self, most: Allowed) -> Allowed:
        """What this process may have of `most`."""

    def elsewhere(self, tenant: bytes) -> int:
        """How many of a tenant's jobs wait at other processes; now and then some of another tenant's are counted."""

    def end(self) -> None: ...

    def note(self, running: int, waiting: int) -> None:
        """What this process has now."""

    def waits(self, tenant: bytes, change: int) -> None:
        """A job of the tenant waits here (1), or no more (-1)."""


class Alone:
    """The Shares of a coordinator of one process."""

    def begin(self, most: Allowed) -> Allowed:
        return most

    def elsewhere(self, tenant: bytes) -> int:
        return 0

    def end(self) -> None: ...

    def note(self, running: int, waiting: int) -> None: ...

    def waits(self, tenant: bytes, change: int) -> None: ...


def allowed(most: Allowed, others: Sequence[Load]) -> Allowed:
    """What is left of the limits by the other processes' loads. As long as one at a time decides, the sum over all
    processes never exceeds them.
    """
    busy = 1 + sum(one.running + one.waiting > 0 for one in others)
    share = max(1, most.running // busy)
    running = sum(one.running for one in others)
    claimed = sum(min(share, one.running + one.waiting) for one in others)
    waiting = sum(one.waiting for one in others)
    return Allowed(max(0, most.running - max(running, claimed)), max(0, most.waiting - waiting))
