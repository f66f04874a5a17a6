"""A market as discrete events: jobs arrive, are admitted, routed, refused, served, stopped, lost and moved.

The rules are the package's own, unchanged: matching, admission, who gives way, when a stream may move. What stands here
instead of machines and wires is time: a host takes so long for a prompt and a token, a message so long for its way.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np

from lading.core.failover import Failover, Limits, weight_of
from lading.core.matching import BAND, FAR, distance
from lading_coordinator.core.admission import Admission
from lading_coordinator.core.lanes import Band, Bounds, Room, Shed, Ticket
from lading_node.core.preemption import Occupant, Rules, begins, choose_victim
from lading_protocol.messages import BATCH, INTERACTIVE
from simulation.market.routers import Oracle, Router
from simulation.market.traffic import BYTES, GAP, PACE, REGIONS, Job, Machine, Shape

RTT = tuple(tuple((0.02, 0.05, 0.16)[distance(one, other)] for other in REGIONS) for one in REGIONS)
TICK = 0.1
TAIL = 10.0  # seconds that it goes on after the last arrival
PUSH = 0.1  # seconds until such a report is there: gathered, and on its way
TRIED_AT_MOST = 8
RETRY = 0.25
REMEMBERED = 12  # beginnings of prompts that a host keeps
BUSY_SLOWS = 0.5  # how much longer a full host takes to read
LANE = b"lane"


@dataclass(slots=True, eq=False)
class Run:
    """A job on its way. `turn` tells its present attempt from those before it."""

    job: Job
    ticket: Ticket | None = None
    turn: int = 0
    host: int = -1
    asked_at: float = 0.0
    began: float = 0.0
    first: float | None = None
    emitted: int = 0
    speaks_at: float = 0.0
    tried: set[int] = field(default_factory=set)
    preempted: int = 0
    moves: int = 0
    paid: int = 0
    state: str = "new"

    def made(self, now: float, speed: float) -> int:
        """Output tokens there by now."""
        fresh = int((now - self.speaks_at) * speed / GAP) if now >= self.speaks_at else 0
        return min(self.job.output, self.emitted + max(0, fresh))


@dataclass(slots=True, eq=False)
class Host:
    machine: Machine
    alive: bool = True
    running: dict[int, Run] = field(default_factory=dict)
    strangers: int = 0  # slots that jobs hold which were there before it began
    read: "OrderedDict[int, int]" = field(default_factory=OrderedDict)
    preempted_at: float | None = None
    busy: float = 0.0

    @property
    def free(self) -> int:
        return max(0, self.machine.slots - len(self.running) - self.strangers)


@dataclass(slots=True)
class Counts:
    refusals: int = 0
    moves: int = 0
    shed: int = 0
    read: int = 0
    known: int = 0
    preempted: int = 0
    lost: float = 0.0  # host seconds of batch work that were done again
    batch: float = 0.0  # host seconds that batch jobs had and have no more
    again: int = 0  # output tokens that a second host had to read


class World:
    """One policy's run over a trace. `preemption` lets batch jobs give way."""

    def __init__(
        self,
        machines: list[Machine],
        jobs: list[Job],
        shape: Shape,
        policy: type[Router],
        seed: int,
        *,
        preemption: bool = True,
    ) -> None:
        self.shape, self.jobs, self.preemption = shape, jobs, preemption
        self.rng = random.Random(f"world {seed}")  # what befalls hosts: the same for every policy
        self.luck = random.Random(f"{policy.name} {seed}")
        self.hosts = [Host(one) for one in machines]
        self.free = np.array([one.slots for one in machines])
        self.all_free = int(self.free.sum())
        self.coming = np.zeros(len(machines), np.int64)  # requests on their way
        self.routers = [policy(machines, n % len(REGIONS), self.luck) for n in range(shape.gateways)]
        for router in self.routers:
            router.meet(self.routers)
        bounds = Bounds(all=1 << 20, queue=1 << 16, queue_each=1 << 16)
        self.doors = [Admission(bounds) for _ in self.routers]
        self.failovers = [Failover(Limits()) for _ in self.routers]
        self.waiting: list[dict[Ticket, Run]] = [{} for _ in self.routers]
        self.parked: list[list[Run]] = [[] for _ in self.routers]
        self.slots = sum(one.slots for one in machines)
        self.rules = Rules()
        self.counts = Counts()
        self.done: list[Run] = []
        self.runs = [Run(job) for job in jobs]
        self.events = 0
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._turn = 0
        if policy is Oracle:
            self._prepare_truth()

    def at(self, when: float, act: Callable[..., None], *what: Any) -> None:
        self._turn += 1
        heappush(self._heap, (when, self._turn, act, what))

    # The beginning, and time

    def run(self) -> None:
        self._settle_in()
        for run in self.runs:
            self.at(run.job.at, self.arrive, run)
        for n in range(round(self.shape.beat / TICK)):
            self.at(n * TICK, self.tick, n)
        self.at(RETRY, self.look_again)
        end, left = self.shape.seconds + TAIL, len(self.jobs)
        while self._heap and len(self.done) < left:
            self.now, _, act, what = heappop(self._heap)
            if self.now > end:
                break
            self.events += 1
            act(*what)

    def _settle_in(self) -> None:
        """As if it had run for long: slots are taken, and will be free one after the other."""
        shape, rng, number = self.shape, self.rng, -1
        for index, host in enumerate(self.hosts):
            for _ in range(host.machine.slots):
                draw = rng.random()
                seconds = rng.random() * shape.output * GAP / host.machine.speed
                if draw < shape.batch:
                    job = Job(number, 0.0, index % shape.gateways, number, 500, 600, 20_000, 99, batch=True)
                    run = Run(job, turn=1, host=index, speaks_at=-seconds, first=0.0)
                    host.running[number] = run
                    if self.preemption:
                        self._seat(run)
                    self.routers[job.gateway].started(index, batch=True)
                    number -= 1
                elif draw < shape.batch + shape.load * (1 - shape.batch):
                    host.strangers += 1
                    self.at(seconds, self._stranger_leaves, index)
            self._show(index)
            for router in self.routers:
                router.beat(index, self._told(host), 0.0)
            if rng.random() < shape.deaths * shape.seconds / 3600:
                self.at(rng.random() * shape.seconds, self.die, index, rng.random() < 0.3)

    def _seat(self, run: Run) -> None:
        """A batch job that was there before: it came through a door, too."""
        run.ticket = Ticket(b"batch", LANE, Band.BATCH, run.job.prompt, run.job.output)
        self.doors[run.job.gateway].ask(run.ticket, Room(self.slots, self.slots), 0.0, 0.0)

    def _stranger_leaves(self, index: int) -> None:
        self.hosts[index].strangers -= 1
        self._show(index)

    def _show(self, index: int) -> None:
        host = self.hosts[index]
        was, now = self.free[index], host.free if host.alive else 0
        self.free[index] = now
        self.all_free += int(now - was)
        if self.shape.push and (was > 0) != (now > 0) and host.alive and not host.machine.liar and self.now:
            self.at(self.now + PUSH, self._push, index)

    def _push(self, index: int) -> None:
        host = self.hosts[index]
        if host.alive:
            for router in self.routers:
                router.beat(index, host.free, self.now)

    def _told(self, host: Host) -> int:
        return host.machine.slots if host.machine.liar else host.free

    def tick(self, phase: int) -> None:
        """A part of the hosts reports; those who wait at the doors are looked at."""
        step = round(self.shape.beat / TICK)
        for index in range(phase, len(self.hosts), step):
            host = self.hosts[index]
            if host.alive and self.rng.random() > 0.01:
                told = self._told(host)
                for router in self.routers:
                    router.beat(index, told, self.now)
        for gateway in range(len(self.routers)):
            for ticket, _ in self.doors[gateway].late(self.now):
                self._shed(self.waiting[gateway].pop(ticket))
            self._open(gateway)
        self.at(self.now + self.shape.beat, self.tick, phase)

    def look_again(self) -> None:
        for gateway in range(len(self.routers)):
            self._go_on(gateway)
        self.at(self.now + RETRY, self.look_again)

    def _go_on(self, gateway: int) -> None:
        """Streams that found no host look again; of the stopped batch jobs only the first in line."""
        line, self.parked[gateway] = self.parked[gateway], []
        batch = [run for run in line if run.job.batch]
        for run in [run for run in line if not run.job.batch]:
            self.route(run)
        self.parked[gateway] += batch[1:]
        if batch:
            self.route(batch[0])

    # The door

    def _room(self) -> Room:
        return Room(self.slots, self.all_free)

    def arrive(self, run: Run) -> None:
        job = run.job
        door = self.doors[job.gateway]
        band = Band.BATCH if job.batch else Band.INTERACTIVE
        tenant = job.tenant.to_bytes(2, "big")
        run.ticket = Ticket(tenant, LANE, band, job.prompt, job.output, wish=job.region.encode())
        answer = door.ask(run.ticket, self._room(), self.now, self.luck.random())
        if isinstance(answer, Shed):
            self._shed(run)
            return
        for ticket in answer:
            self._shed(self.waiting[job.gateway].pop(ticket))
        if run.ticket.state == "running":
            self._begin(run)
        else:
            self.waiting[job.gateway][run.ticket] = run

    def _open(self, gateway: int) -> None:
        if not self.waiting[gateway]:
            return
        for ticket in self.doors[gateway].next(LANE, self._room(), self.now):
            self._begin(self.waiting[gateway].pop(ticket))

    def _begin(self, run: Run) -> None:
        self.failovers[run.job.gateway].begin()
        run.tried.clear()
        self.route(run)

    def _shed(self, run: Run) -> None:
        run.state = "shed"
        self.counts.shed += 1
        self.done.append(run)

    # An attempt

    def route(self, run: Run) -> None:
        job, router = run.job, self.routers[run.job.gateway]
        host = router.pick(job, self.now, run.tried, run.emitted) if len(run.tried) < TRIED_AT_MOST else None
        if host is None:
            self._nobody(run)
            return
        run.turn += 1
        run.host, run.asked_at = host, self.now
        run.tried.add(host)
        router.started(host, batch=job.batch)
        self.coming[host] += 1
        self.at(self.now + self._way(run) / 2, self.land, run, run.turn)

    def _nobody(self, run: Run) -> None:
        """All were full after all: back to the queue, or, once it has begun, a moment's rest."""
        run.tried.clear()
        if run.ticket is not None and run.first is None:
            self.doors[run.job.gateway].refused(run.ticket, self.now)
            self.waiting[run.job.gateway][run.ticket] = run
        else:
            self.parked[run.job.gateway].append(run)

    def _way(self, run: Run) -> float:
        return RTT[run.job.gateway % len(REGIONS)][self.hosts[run.host].machine.region]

    def land(self, run: Run, turn: int) -> None:
        """The request is at the host."""
        host = self.hosts[run.host]
        self.coming[run.host] -= 1
        if not host.alive:
            self.at(self.now + self._way(run) / 2, self.lose, run, turn, False)
            return
        band = BATCH if run.job.batch else INTERACTIVE
        may = begins(band, host.preempted_at, self.now, self.rules)
        if not (may and host.free) and not (self.preemption and self._clear(host, band)):
            self.counts.refusals += 1
            self.at(self.now + self._way(run) / 2, self.refused, run)
            return
        self._serve(run, host)

    def _clear(self, host: Host, band: int) -> bool:
        speed = host.machine.speed
        able = {
            number: Occupant(
                number,
                BATCH if one.job.batch else INTERACTIVE,
                max(0.0, one.began),
                one.job.prompt + one.made(self.now, speed),
                one.preempted,
            )
            for number, one in host.running.items()
            if one.job.batch
        }
        victim = choose_victim(able.values(), band, self.now, self.rules)
        if victim is None:
            return False
        self._stop(host.running[int(victim.key)], host)  # type: ignore[call-overload]
        host.preempted_at = self.now
        return True

    def _stop(self, run: Run, host: Host) -> None:
        """It goes on elsewhere from what is there; its prompt and tokens must be read again."""
        self._leave(run, host)
        run.preempted += 1
        self.counts.preempted += 1
        self.counts.lost += (run.job.prompt + run.emitted) * PACE
        run.tried.clear()
        self.parked[run.job.gateway].append(run)

    def _leave(self, run: Run, host: Host) -> None:
        run.emitted = run.made(self.now, host.machine.speed)
        if run.job.batch:
            self.counts.batch += self.now - max(0.0, run.began)
        run.turn += 1
        del host.running[run.job.number]
        self._show(run.host)
        self.routers[run.job.gateway].ended(run.host, batch=run.job.batch)

    def refused(self, run: Run) -> None:
        router = self.routers[run.job.gateway]
        router.ended(run.host, batch=run.job.batch)
        router.full(run.host, self.now)
        self.route(run)

    def _serve(self, run: Run, host: Host) -> None:
        job, machine = run.job, host.machine
        known = min(host.read.get(job.family, 0), job.shared)
        host.read[job.family] = job.shared
        host.read.move_to_end(job.family)
        if len(host.read) > REMEMBERED:
            host.read.popitem(last=False)
        self.counts.read += job.prompt
        self.counts.known += known
        busy = 1 + BUSY_SLOWS * len(host.running) / machine.slots
        reading = (job.prompt - known + run.emitted) * PACE * busy / machine.speed
        self.counts.again += run.emitted
        host.running[job.number] = run
        self._show(run.host)
        price = machine.known.price
        run.paid = price.input * job.prompt + price.output * job.output
        run.began, run.speaks_at = self.now, self.now + reading
        if run.ticket is not None:
            self.doors[job.gateway].taken(run.ticket)
        self.at(run.speaks_at + self._way(run) / 2, self.speak, run, run.turn)
        left = (job.output - run.emitted) * GAP / machine.speed
        if machine.liar and not job.batch:
            left *= 0.3
            self.at(run.speaks_at + left, self.drop, run, run.turn)
        else:
            self.at(run.speaks_at + left, self.end, run, run.turn)

    def speak(self, run: Run, turn: int) -> None:
        if run.turn != turn:
            return
        job, seconds = run.job, self.now - run.asked_at
        if run.first is None:
            run.first = self.now
        failover, address = self.failovers[job.gateway], self.hosts[run.host].machine.address
        failover.note_first(address, seconds, weight_of(job.prompt * BYTES))
        failover.gaps(address).note(GAP / self.hosts[run.host].machine.speed)
        self.routers[job.gateway].answered(run.host, job, seconds)

    def end(self, run: Run, turn: int) -> None:
        if run.turn != turn:
            return
        host, job = self.hosts[run.host], run.job
        router = self.routers[job.gateway]
        host.busy += self.now - run.began
        self._leave(run, host)
        router.served(run.host, self.now - run.asked_at)
        run.state = "done"
        if run.ticket is not None:
            self.doors[job.gateway].finish(run.ticket, job.prompt, job.output, self.now)
            self.done.append(run)
            self._open(job.gateway)

    # What goes wrong

    def drop(self, run: Run, turn: int) -> None:
        """A liar lets a stream fall, which its payer sees at once."""
        if run.turn == turn:
            self._leave(run, self.hosts[run.host])
            self.routers[run.job.gateway].failed(run.host, self.now, blame=True)
            self._move(run)

    def die(self, index: int, silently: bool) -> None:
        host = self.hosts[index]
        host.alive = False
        for run in list(host.running.values()):
            failover, turn = self.failovers[run.job.gateway], run.turn
            wait = self._way(run) / 2
            if silently:
                wait += failover.gap_limit(host.machine.address, run.moves)
            self.at(self.now + wait, self.lose, run, turn, True)
        self._show(index)

    def lose(self, run: Run, turn: int, ran: bool) -> None:
        if run.turn != turn:
            return
        router = self.routers[run.job.gateway]
        if ran:
            self._leave(run, self.hosts[run.host])
        else:
            router.ended(run.host, batch=run.job.batch)
        router.failed(run.host, self.now, blame=False)
        self._move(run)

    def _move(self, run: Run) -> None:
        failover = self.failovers[run.job.gateway]
        if not failover.may_move():
            failover.budget.force()
        failover.moves += 1
        run.moves += 1
        self.counts.moves += 1
        if run.emitted >= run.job.output:
            run.emitted = run.job.output - 1
        self.route(run)

    # What the oracle knows

    def _prepare_truth(self) -> None:
        offers = [host.machine.known.offer for host in self.hosts]
        self._prices = (
            np.array([one.price_in for one in offers], float),
            np.array([one.price_out for one in offers], float),
        )
        self._speed = np.array([host.machine.speed for host in self.hosts])
        self._honest = np.array([not host.machine.liar for host in self.hosts])
        ways = np.array(RTT)
        regions = np.array([host.machine.region for host in self.hosts])
        self._ways = [ways[n % len(REGIONS)][regions] for n in range(self.shape.gateways)]
        self._far = [
            np.array([FAR[distance(REGIONS[n % len(REGIONS)], REGIONS[region])] for region in regions])
            for n in range(self.shape.gateways)
        ]
        for router in self.routers:
            router.truth = self._truth  # type: ignore[attr-defined]

    def _truth(self, job: Job, now: float, tried: set[int]) -> int | None:
        able = (self.free > self.coming) & self._honest
        if not able.any():
            return None
        cost = (self._prices[0] * job.prompt + self._prices[1] * job.output) * self._far[job.gateway]
        cost[~able] = np.inf
        near = np.flatnonzero(cost <= cost.min() * BAND / 10)
        known = [min(self.hosts[one].read.get(job.family, 0), job.shared) for one in near]
        wait = (job.prompt - np.array(known)) * PACE / self._speed[near] + self._ways[job.gateway][near]
        return int(near[np.argmin(wait * cost[near] ** 2)])
