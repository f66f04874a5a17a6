"""Who starts, who waits and who is turned away while there is more work than room. Pure; times are seconds.

A lane is what shares the same hosts (an agent), a tenant is who pays. Interactive work goes before batch work, and
inside a band the tenant that has had the least service is next: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM
1996) over tokens, an output token counting twice (Sheng et al., OSDI 2024). A tenant that rested gets no credit for it.
Before the queue is full, work is turned away by a probability that rises with the wait that it would have: batch first,
and last of all a tenant that has little waiting.

Hosts that seemed free may refuse. Then whoever insists on the same waits, and one at a time finds out whether there is
room again; whoever insists on something else goes on, as for them other hosts count.
"""

import heapq
import math
from collections import deque
from itertools import count

from lading_coordinator.core.lanes import (
    INTERACTIVE,
    LAST_PROBE,
    Band,
    Bounds,
    Hold,
    Lane,
    Line,
    Room,
    Shed,
    Tenant,
    Ticket,
)
from lading_coordinator.core.shares import Allowed, Alone, Shares

OUTPUT_WEIGHT = 2
LONGEST_RETRY = 60
# A slot that a job gave back is in its host's reports after this long.
REPORT_SECONDS = 1.5
# How much one job's length and duration move what is expected of the next.
LEARN = 0.1
# How many tenants are remembered before those that are least ahead are forgotten.
FEW_TENANTS = 1024


class Admission:
    """All tickets of one gateway. The caller says what room there is; every method is O(log n) but for a full queue.

    With `shares` the bounds are those of several processes together.
    """

    def __init__(self, bounds: Bounds | None = None, shares: Shares | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._shares = shares or Alone()
        self._all = self._most = Allowed(self.bounds.all, self.bounds.queue)
        self.running = 0
        self.waiting = 0
        self._lanes: dict[bytes, Lane] = {}
        self._tenants: dict[bytes, Tenant] = {}
        self._sweep_at = FEW_TENANTS
        self._virtual = 0.0
        self._turn = count()

    # Coming and going

    def ask(self, ticket: Ticket, room: Room, now: float, roll: float) -> list[Ticket] | Shed:
        """Starts it, lets it wait (its `state` says which; then call `next`), or turns it away. `roll` is a random
        number below 1.

        Returns the waiting tickets that had to make way for it: they are turned away.
        """
        self._most = self._shares.begin(self._all)
        try:
            return self._ask(ticket, room, now, roll)
        finally:
            self._shares.end()

    def _ask(self, ticket: Ticket, room: Room, now: float, roll: float) -> list[Ticket] | Shed:
        lane = self._lane(ticket.lane)
        room = Room(room.slots, room.free, lane.batch)
        tenant = self._tenant(ticket.tenant)
        ticket.since = now
        ticket.output = min(ticket.output, math.ceil(lane.output))
        interactive, batch = lane.counts
        # Whoever would be next if it waited, too.
        first = not interactive and (not batch or (ticket.band is INTERACTIVE and not self._overdue(lane)))
        if first and self._has_room(ticket, lane, room, now):
            self._start(ticket, lane, now)
            return []
        if refusal := self._refusal(ticket, lane, tenant, roll):
            self._forget(ticket.tenant)
            return refusal
        made_way = self._make_way(ticket, tenant)
        if isinstance(made_way, list):
            self._enqueue(ticket, lane, tenant, first=False)
        return made_way

    def next(self, lane_id: bytes, room: Room, now: float) -> list[Ticket]:
        """The waiting tickets that start now. Call it when one has ended, and when hosts have reported."""
        self._most = self._shares.begin(self._all)
        try:
            return self._next(lane_id, room, now)
        finally:
            self._shares.end()

    def _next(self, lane_id: bytes, room: Room, now: float) -> list[Ticket]:
        lane = self._lane(lane_id)
        started = [one for wish in list(lane.holds) if (one := self._look_again(lane, wish, room, now)) is not None]
        # Those that start now keep their slots for a while.
        room = Room(room.slots, room.free - len(started), lane.batch)
        while (ticket := self._pick(lane)) is not None and self._has_room(ticket, lane, room, now):
            self._start(ticket, lane, now)
            started.append(ticket)
            room = Room(room.slots, room.free - 1, room.yielding)
        return started

    def taken(self, ticket: Ticket) -> None:
        """A host has accepted it: there is room after all."""
        lane = self._lane(ticket.lane)
        if lane.holds:
            self._release(lane, ticket.wish)

    def finish(self, ticket: Ticket, prompt: int, output: int, now: float) -> None:
        """It ran and is over, with these token counts: its tenant is charged for them, whatever was expected."""
        lane, tenant = self._lane(ticket.lane), self._tenants[ticket.tenant]
        ticket.state = "done"
        self.running -= 1
        self._shares.note(self.running, self.waiting)
        lane.running -= 1
        if ticket.band is not INTERACTIVE:
            lane.batch -= 1
        tenant.running -= 1
        tenant.finish += _weight(prompt, output) - ticket.charged
        if output:
            lane.ended += 1
            step = max(LEARN, 1.0 / lane.ended)
            lane.seconds += step * (max(now - ticket.started, 1e-3) - lane.seconds)
            lane.output += step * (output - lane.output)
        lane.given_back, lane.given_at = lane.given_back + 1, now
        if lane.holds:
            hold = lane.holds.get(ticket.wish)
            if hold is not None and hold.probe is ticket:
                hold.probe = None
        if tenant.waiting:  # it may have become cheaper than it seemed
            for other in self._lanes.values():
                for band in Band if any(ticket.tenant in one for one in other.tenants) else ():
                    for line in other.queues[band]:
                        if line[0] == ticket.tenant:
                            self._show(other, band, line)
        self._forget(ticket.tenant)

    def refused(self, ticket: Ticket, now: float) -> None:
        """All hosts that it may use were full after all: it is the first of its line again, and costs it nothing."""
        lane, tenant = self._lane(ticket.lane), self._tenants[ticket.tenant]
        self.running -= 1
        lane.running -= 1
        lane.batch -= ticket.band is Band.BATCH
        tenant.running -= 1
        tenant.finish -= ticket.charged
        ticket.charged = 0.0
        lane.given_back = 0
        hold = lane.holds.pop(ticket.wish, None) or Hold(now, ticket.tenant)
        lane.holds[ticket.wish] = hold  # behind those that had no probe for longer
        hold.at, hold.tenant = now, ticket.tenant
        if hold.probe is ticket:
            hold.probe = None
        self._enqueue(ticket, lane, tenant, first=True)

    def leave(self, ticket: Ticket) -> None:
        """It waited and its client is gone."""
        lane, tenant = self._lane(ticket.lane), self._tenants[ticket.tenant]
        self._dequeue(ticket, lane, tenant)
        self._forget(ticket.tenant)

    def late(self, now: float) -> list[tuple[Ticket, Shed]]:
        """The tickets that have waited as long as they may: they are turned away."""
        found = []
        for lane in list(self._lanes.values()):
            for band in Band:
                limit = now - self.bounds.waits[band]
                for queue in list(lane.queues[band].values()):
                    found += [ticket for ticket in queue if ticket.since <= limit]
        answers = [(ticket, Shed("waited", self._retry(ticket, self._lane(ticket.lane)))) for ticket in found]
        for ticket in found:
            self.leave(ticket)
        return answers

    # What others may know

    def lanes(self) -> list[bytes]:
        """Those in which somebody waits."""
        return [lane_id for lane_id, lane in self._lanes.items() if any(lane.counts)]

    def load(self, lane_id: bytes) -> tuple[int, int]:
        """Tickets of the lane that run and wait."""
        lane = self._lanes.get(lane_id)
        return (lane.running, sum(lane.counts)) if lane is not None else (0, 0)

    def saturation(self, ticket: Ticket) -> float:
        """The wait that the ticket would have over the wait that it may have, or its place over the queue's length."""
        return self._saturation(ticket, self._lane(ticket.lane))

    # Inside

    def _has_room(self, ticket: Ticket, lane: Lane, room: Room, now: float) -> bool:
        """A slot that is free, or, for interactive work, one that a batch job of ours would give up at its host."""
        if ticket.wish in lane.holds or self.running >= self._most.running:
            return False
        if room.slots == 0:
            return True  # nobody waits for nobody: the dispatcher says why there is no host
        fresh = lane.given_back > 0 and now - lane.given_at < REPORT_SECONDS
        if ticket.band is INTERACTIVE and room.yielding:
            return lane.running - room.yielding < room.slots
        return lane.running < room.slots and (room.free > 0 or fresh)

    def _look_again(self, lane: Lane, wish: bytes, room: Room, now: float) -> Ticket | None:
        """One job finds out whether the hosts are still full, so that not everybody asks a full fleet."""
        hold = lane.holds[wish]
        if hold.probe is not None or self.running >= self._most.running:
            return None
        if room.slots and not room.free and not lane.given_back and now - hold.at < hold.pause:
            return None
        hold.pause = min(2 * hold.pause, LAST_PROBE)
        lines = [(band, line) for band in Band for line in lane.queues[band] if line[1] == wish]
        if not lines:
            self._release(lane, wish)
            return None
        # A tenant looks for one of its wishes at a time: with many of them it would ask hosts as many of all others.
        looking = {one.probe.tenant for one in lane.holds.values() if one.probe is not None}
        first = -1 if self._overdue(lane) else 1
        able = [
            (tenant == hold.tenant, first * band, max(self._tenants[tenant].finish, ticket.virtual), ticket.since, at)
            for at, (band, (tenant, _)) in enumerate(lines)
            if tenant not in looking and (ticket := lane.queues[band][tenant, wish][0])
        ]
        if not able:
            return None
        band, line = lines[min(able)[-1]]
        hold.probe = lane.queues[band][line][0]
        self._start(hold.probe, lane, now)
        return hold.probe

    def _release(self, lane: Lane, wish: bytes) -> None:
        if lane.holds.pop(wish, None) is not None:
            for band in Band:
                for line in lane.queues[band]:
                    if line[1] == wish:
                        self._show(lane, band, line)

    def _start(self, ticket: Ticket, lane: Lane, now: float) -> None:
        tenant = self._tenants[ticket.tenant]
        begin = max(tenant.finish, ticket.virtual if ticket.state == "waiting" else self._virtual)
        if ticket.state == "waiting":
            self._dequeue(ticket, lane, tenant)
        self._virtual = max(self._virtual, begin)
        ticket.state, ticket.started = "running", now
        ticket.charged = _weight(ticket.prompt, ticket.output)
        tenant.finish = begin + ticket.charged
        tenant.running += 1
        lane.running += 1
        lane.given_back = max(0, lane.given_back - 1)
        if ticket.band is INTERACTIVE:
            lane.in_a_row += 1
        else:
            lane.batch += 1
            lane.in_a_row = 0
        self.running += 1
        self._shares.note(self.running, self.waiting)

    def _overdue(self, lane: Lane) -> bool:
        """Whether a batch job that waits is next."""
        return lane.in_a_row >= self.bounds.batch_turn

    def _pick(self, lane: Lane) -> Ticket | None:
        order = list(Band)
        if self._overdue(lane):
            order.reverse()
        for band in order:
            ticket = self._first(lane, band)
            if ticket is not None:
                return ticket
        return None

    def _first(self, lane: Lane, band: Band) -> Ticket | None:
        """The ticket whose tenant has had the least service."""
        heads = lane.heads[band]
        while heads:
            tag, _, ticket = heads[0]
            queue = lane.queues[band].get((ticket.tenant, ticket.wish))
            if not queue or queue[0] is not ticket or ticket.wish in lane.holds:
                heapq.heappop(heads)
                continue
            real = max(self._tenants[ticket.tenant].finish, ticket.virtual)
            if real > tag:
                heapq.heapreplace(heads, (real, next(self._turn), ticket))
                continue
            return ticket
        return None

    def _show(self, lane: Lane, band: Band, line: Line) -> None:
        """Enter the line's first ticket into the order."""
        first = lane.queues[band][line][0]
        if first.wish not in lane.holds:
            tag = max(self._tenants[first.tenant].finish, first.virtual)
            heapq.heappush(lane.heads[band], (tag, next(self._turn), first))

    def _enqueue(self, ticket: Ticket, lane: Lane, tenant: Tenant, *, first: bool) -> None:
        line = (ticket.tenant, ticket.wish)
        queue = lane.queues[ticket.band].setdefault(line, deque())
        (queue.appendleft if first else queue.append)(ticket)
        ticket.state, ticket.virtual = "waiting", ticket.virtual if first else self._virtual
        lane.counts[ticket.band] += 1
        lane.tenants[ticket.band][ticket.tenant] += 1
        tenant.waiting += 1
        self.waiting += 1
        self._shares.note(self.running, self.waiting)
        self._shares.waits(ticket.tenant, 1)
        if queue[0] is ticket:
            self._show(lane, ticket.band, line)

    def _dequeue(self, ticket: Ticket, lane: Lane, tenant: Tenant) -> None:
        line, tenants = (ticket.tenant, ticket.wish), lane.tenants[ticket.band]
        queue = lane.queues[ticket.band][line]
        was_first = queue[0] is ticket
        queue.remove(ticket)
        ticket.state = "gone"
        lane.counts[ticket.band] -= 1
        tenants[ticket.tenant] -= 1
        if not tenants[ticket.tenant]:
            del tenants[ticket.tenant]
        tenant.waiting -= 1
        self.waiting -= 1
        self._shares.note(self.running, self.waiting)
        self._shares.waits(ticket.tenant, -1)
        if not queue:
            del lane.queues[ticket.band][line]
            if not lane.counts[ticket.band]:
                lane.heads[ticket.band].clear()
        elif was_first:
            self._show(lane, ticket.band, line)

    def _refusal(self, ticket: Ticket, lane: Lane, tenant: Tenant, roll: float) -> Shed | None:
        bounds, band = self.bounds, ticket.band
        retry = self._retry(ticket, lane)
        elsewhere = self._shares.elsewhere(ticket.tenant)
        if tenant.waiting + elsewhere >= bounds.queue_each or bounds.queue == 0:
            return Shed("queue_full", retry)
        low, high = bounds.shed_from[band], bounds.shed_full[band]
        chance = (self._saturation(ticket, lane) - low) / (high - low)
        return Shed("shed", retry) if roll < chance else None

    def _saturation(self, ticket: Ticket, lane: Lane) -> float:
        ahead = self._ahead(ticket, lane)
        wait = ahead / self._drain(lane) / self.bounds.waits[ticket.band]
        return max(wait, ahead / max(self.bounds.queue, 1))

    def _ahead(self, ticket: Ticket, lane: Lane) -> int:
        """How many start before it: all of the bands before, and in its own as many of each tenant as of its."""
        band = ticket.band
        own = lane.tenants[band][ticket.tenant] + 1
        return sum(lane.counts[:band]) + min(lane.counts[band], own * len(lane.tenants[band]))

    def _drain(self, lane: Lane) -> float:
        """Jobs a second that end, by Little's law."""
        return max(lane.running, 1) / lane.seconds

    def _retry(self, ticket: Ticket, lane: Lane) -> int:
        """Until the queue has drained so far that it would not be turned away (s)."""
        bounds, band = self.bounds, ticket.band
        over = (self._ahead(ticket, lane) + 1) / self._drain(lane) - bounds.shed_from[band] * bounds.waits[band]
        return min(max(1, math.ceil(over)), LONGEST_RETRY)

    def _make_way(self, ticket: Ticket, tenant: Tenant) -> list[Ticket] | Shed:
        """With a full queue, the newest ticket of whoever waits for most goes; batch work before interactive."""
        if self.waiting < self._most.waiting:
            return []
        heaviest = max(self._tenants, key=lambda one: self._tenants[one].waiting)
        victims = [
            queue[-1]
            for lane in self._lanes.values()
            for band in reversed(Band)
            for line, queue in lane.queues[band].items()
            if line[0] == heaviest
        ]
        lane = self._lane(ticket.lane)
        if self._tenants[heaviest].waiting <= tenant.waiting + 1 or not victims:
            return Shed("queue_full", self._retry(ticket, lane))
        victim = max(victims, key=lambda one: (one.band, one.since))
        self.leave(victim)
        return [victim]

    def _lane(self, lane_id: bytes) -> Lane:
        lane = self._lanes.get(lane_id)
        if lane is None:
            lane = self._lanes[lane_id] = Lane()
        return lane

    def _tenant(self, tenant_id: bytes) -> Tenant:
        found = self._tenants.get(tenant_id)
        if found is None:
            if len(self._tenants) >= self._sweep_at:  # many came once, and went while they were a little ahead
                idle = [one for one, its in self._tenants.items() if not its.running and not its.waiting]
                for one in sorted(idle, key=lambda one: self._tenants[one].finish)[: -(-len(idle) // 2)]:
                    del self._tenants[one]
                self._sweep_at = max(FEW_TENANTS, 2 * len(self._tenants))
            found = self._tenants[tenant_id] = Tenant()
        return found

    def _forget(self, tenant_id: bytes) -> None:
        """A tenant that is idle, and ahead of nobody, needs no memory."""
        tenant = self._tenants.get(tenant_id)
        if tenant is not None and not tenant.running and not tenant.waiting and tenant.finish <= self._virtual:
            del self._tenants[tenant_id]


def _weight(prompt: int, output: int) -> float:
    return float(prompt + OUTPUT_WEIGHT * output)
