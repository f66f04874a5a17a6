"""Who gives way when an interactive job finds no free slot: which batch job is stopped, or none.

Pure. A stopped job loses no token: it goes on elsewhere, or later, from what was delivered, and what it loses is that a
host must read its prompt and its tokens again. `now` and `since` are the caller's clock, in seconds.
"""

from collections.abc import Hashable, Iterable

import msgspec

from lading_protocol.messages import BATCH


class Rules(msgspec.Struct, frozen=True):
    """A job keeps its slot for `hold` seconds at least, and for good once it was stopped `most` times anywhere. Where a
    job was stopped, no batch job begins for `hold` seconds."""

    hold: float = 2.0
    most: int = 3


class Occupant(msgspec.Struct, frozen=True):
    """A running job. `tokens` would have to be read again elsewhere: its prompt and its output so far."""

    key: Hashable
    band: int
    since: float
    tokens: int = 0
    preempted: int = 0
    slots: int = 1


def may_preempt(occupant: Occupant, band: int, now: float, rules: Rules) -> bool:
    """Whether this job would give way to one of `band` now."""
    return (
        occupant.band == BATCH
        and band < occupant.band
        and occupant.preempted < rules.most
        and now - occupant.since >= rules.hold
    )


def choose_victim(occupants: Iterable[Occupant], band: int, now: float, rules: Rules) -> Occupant | None:
    """Who is stopped for a job of `band`: lowest priority, then least work lost for each slot, then youngest."""
    able = [one for one in occupants if may_preempt(one, band, now, rules)]
    return min(able, key=lambda one: (-one.band, one.tokens / one.slots, -one.since), default=None)


def begins(band: int, preempted_at: float | None, now: float, rules: Rules) -> bool:
    """Whether a job of `band` may take a free slot: a batch job waits until the rush that stopped another is over."""
    return band < BATCH or preempted_at is None or now - preempted_at >= rules.hold
