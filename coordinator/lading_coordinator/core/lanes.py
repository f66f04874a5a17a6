"""What admission counts and keeps: bands and bounds, a job's ticket, tenants, lanes with their queues. No rules."""

from collections import Counter, deque
from enum import IntEnum
from typing import Final

import msgspec

# Hosts that were full are asked again after this long, whatever they report, and each time after twice as long.
FIRST_PROBE, LAST_PROBE = 0.05, 0.8


class Band(IntEnum):
    INTERACTIVE = 0
    BATCH = 1


INTERACTIVE: Final = Band.INTERACTIVE


class Bounds(msgspec.Struct, frozen=True):
    """Pairs are (interactive, batch).

    `all`: jobs that run at once. `queue` and `queue_each`: those that wait, in all and of a tenant. `waits`: the
    longest wait. Shedding begins where the expected wait, or the place in the queue, is `shed_from` of its bound, and
    is certain at `shed_full`. After `batch_turn` interactive starts in a row a waiting batch job of the lane is next.
    """

    all: int = 2048
    queue: int = 1024
    queue_each: int = 256
    waits: tuple[float, float] = (20.0, 120.0)
    shed_from: tuple[float, float] = (0.4, 0.15)
    shed_full: tuple[float, float] = (1.0, 0.6)
    batch_turn: int = 16


class Room:
    """A lane's hosts as they last reported: slots in all, and those that are free. No slots: nobody serves it now.

    `yielding` slots hold batch jobs of this gateway, which give way at their hosts.
    """

    __slots__ = ("free", "slots", "yielding")

    def __init__(self, slots: int, free: int, yielding: int = 0) -> None:
        self.slots: Final = slots
        self.free: Final = free
        self.yielding: Final = yielding


class Ticket:
    """One job on its way through. `prompt` and `output` are the token counts that are expected, `charged` what its
    tenant was charged for them, `virtual` when it came in virtual time (both in weighted tokens). `state`: new,
    waiting, running, done or gone. `wish` names what it insists on, empty: nothing that hosts differ in.
    """

    __slots__ = (
        "band",
        "charged",
        "lane",
        "output",
        "prompt",
        "since",
        "started",
        "state",
        "tenant",
        "virtual",
        "wish",
    )

    def __init__(self, tenant: bytes, lane: bytes, band: Band, prompt: int, output: int, *, wish: bytes = b"") -> None:
        self.tenant: Final = tenant
        self.lane: Final = lane
        self.band: Final = band
        self.prompt: Final = prompt
        self.output = output
        self.since = self.started = 0.0
        self.state = "new"
        self.charged = self.virtual = 0.0
        self.wish: Final = wish


class Shed(msgspec.Struct, frozen=True):
    """Turned away: `code` is queue_full, shed or waited; it would not be, `retry` seconds later."""

    code: str
    retry: int


class Tenant:
    """`finish` is the virtual time up to which it has been served."""

    __slots__ = ("finish", "running", "waiting")

    def __init__(self) -> None:
        self.finish = 0.0
        self.running = self.waiting = 0


class Hold:
    """Hosts that seemed free to who has some wish were not, at `at`, when one of `tenant` asked. One `probe` at a time
    looks again, `pause` seconds later; another tenant's if there is one, as a refusal may be of what one alone wants.
    """

    __slots__ = ("at", "pause", "probe", "tenant")

    def __init__(self, at: float, tenant: bytes) -> None:
        self.at = at
        self.tenant = tenant
        self.pause = FIRST_PROBE
        self.probe: Ticket | None = None


# A tenant's tickets that have one wish.
Line = tuple[bytes, bytes]


class Lane:
    """`heads` of each band orders the lines' first tickets by virtual start; stale entries, and those whose wish is
    held, are dropped when met. `tenants` counts who waits.

    `seconds` and `output` are what a job takes and gives of late, `ended` how many that is known of. `given_back` slots
    came free after the hosts reported, the last one at `given_at`. `holds` by wish.
    """

    __slots__ = (
        "batch",
        "counts",
        "ended",
        "given_at",
        "given_back",
        "heads",
        "holds",
        "in_a_row",
        "output",
        "queues",
        "running",
        "seconds",
        "tenants",
    )

    def __init__(self) -> None:
        self.queues: tuple[dict[Line, deque[Ticket]], dict[Line, deque[Ticket]]] = ({}, {})
        self.heads: tuple[list[tuple[float, int, Ticket]], list[tuple[float, int, Ticket]]] = ([], [])
        self.tenants: tuple[Counter[bytes], Counter[bytes]] = (Counter(), Counter())
        self.counts = [0, 0]
        self.running = self.batch = 0
        self.seconds, self.output = 2.0, 128.0
        self.ended = self.given_back = self.in_a_row = 0
        self.given_at = 0.0
        self.holds: dict[bytes, Hold] = {}
