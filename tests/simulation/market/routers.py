"""Ways to choose a host, behind one door: the package's own, and those that it is held against.

A router stands for one gateway: it sees hosts by their reports and counts its own jobs. All of them leave a host that
failed alone for as long, so that what is compared is the choice.
"""

import random
from collections.abc import Callable

import numpy as np

from factories import NOW
from lading.core.matching import RUSH, Filters, Want
from lading.core.near import Pick
from lading.dispatch.directory import Directory
from lading_protocol.ids import AgentId
from lading_protocol.messages import ChatRequest, Message, Sampler
from simulation.market.traffic import REGIONS, Job, Machine

AGENT = AgentId(b"\xaa" * 32)
SAMPLER = Sampler(seed=bytes(32))
SILENT, SHUN, SHUN_LIAR = 5.0, 10.0, 3600.0
TRIES = 40


class Router:
    """Hosts are named by their place in the list. Times are seconds from the beginning."""

    name = ""

    def __init__(self, machines: list[Machine], region: int, rng: random.Random) -> None:
        self.machines = machines
        self.region = region
        self.rng = rng
        count = len(machines)
        self.free = [one.slots for one in machines]
        self.drift = [0] * count
        self.beat_at = [0.0] * count
        self.shunned = [0.0] * count

    def meet(self, routers: "list[Router]") -> None:
        """The other gateways are these."""

    def beat(self, host: int, free: int, now: float) -> None:
        self.free[host], self.drift[host], self.beat_at[host] = free, 0, now

    def started(self, host: int, *, batch: bool) -> None:
        self.drift[host] += 1

    def ended(self, host: int, *, batch: bool) -> None:
        self.drift[host] -= 1

    def full(self, host: int, now: float) -> None:
        """It refused: it has no slot."""
        self.free[host], self.drift[host] = 0, 0

    def failed(self, host: int, now: float, *, blame: bool) -> None:
        self.shunned[host] = now + (SHUN_LIAR if blame else SHUN)

    def answered(self, host: int, job: Job, seconds: float) -> None:
        """The first token came."""

    def served(self, host: int, seconds: float) -> None:
        """The job ended well."""

    def room(self, host: int) -> int:
        return self.free[host] - self.drift[host]

    def able(self, host: int, now: float, tried: set[int]) -> bool:
        return now - self.beat_at[host] <= SILENT and self.shunned[host] <= now and host not in tried

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        raise NotImplementedError

    def _any(self, now: float, tried: set[int]) -> int | None:
        """Some host with room, else some host."""
        spare = None
        for _ in range(TRIES):
            host = int(self.rng.random() * len(self.machines))
            if self.able(host, now, tried):
                if self.room(host) > 0:
                    return host
                spare = host
        return spare


class AtRandom(Router):
    name = "random"

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        return self._any(now, tried)


class RoundRobin(Router):
    name = "round robin"

    def __init__(self, machines: list[Machine], region: int, rng: random.Random) -> None:
        super().__init__(machines, region, rng)
        self.next = rng.randrange(len(machines))

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        for _ in range(TRIES):
            self.next = (self.next + 1) % len(self.machines)
            if self.able(self.next, now, tried):
                return self.next
        return None


class TwoChoices(Router):
    name = "two choices"

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        one, other = self._any(now, tried), self._any(now, tried)
        if one is None or other is None:
            return one if other is None else other
        slots = self.machines
        return max(one, other, key=lambda host: self.room(host) / slots[host].slots)


class GreedyStale(Router):
    """The least loaded host by the reports, own jobs not counted."""

    name = "greedy stale"

    def __init__(self, machines: list[Machine], region: int, rng: random.Random) -> None:
        super().__init__(machines, region, rng)
        self.slots = np.array([one.slots for one in machines], np.float64)
        self.share = np.ones(len(machines))

    def beat(self, host: int, free: int, now: float) -> None:
        super().beat(host, free, now)
        self.share[host] = free / self.slots[host]

    def full(self, host: int, now: float) -> None:
        super().full(host, now)
        self.share[host] = 0

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        for _ in range(TRIES):
            host = int(np.argmax(self.share))
            if self.able(host, now, tried):
                return host
            self.share[host] = 0  # until it reports again
        return None


class Lading(Router):
    """The package's own directory and all that stands behind it."""

    name = "lading"

    def __init__(self, machines: list[Machine], region: int, rng: random.Random) -> None:
        super().__init__(machines, region, rng)
        self.directory = Directory(needs_beats=True)
        self.near = REGIONS[region]
        self.filters = Filters(near=self.near)
        self.picks: dict[int, Pick] = {}
        self.addresses = [one.address for one in machines]
        for machine in machines:
            self.directory.put(machine.known)
            self.directory.beat(machine.address, machine.slots, 0, NOW)

    def beat(self, host: int, free: int, now: float) -> None:
        self.directory.beat(self.addresses[host], free, 0, NOW + now)

    def started(self, host: int, *, batch: bool) -> None:
        self.directory.started(self.addresses[host], batch=batch)

    def ended(self, host: int, *, batch: bool) -> None:
        self.directory.ended(self.addresses[host], batch=batch)

    def full(self, host: int, now: float) -> None:
        self.directory.full(self.addresses[host], NOW + now)

    def failed(self, host: int, now: float, *, blame: bool) -> None:
        self.directory.failed(self.addresses[host], NOW + now, blame=blame)

    def answered(self, host: int, job: Job, seconds: float) -> None:
        pick = self.picks.pop(job.number, None)
        if pick is not None:
            self.directory.answered(pick, seconds)

    def served(self, host: int, seconds: float) -> None:
        self.directory.worked(self.addresses[host])
        self.directory.served(self.addresses[host], seconds)

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        request = ChatRequest((Message("user", job.text()),), job.output, SAMPLER)
        excluded = frozenset(self.addresses[host] for host in tried)
        filters = Filters(near=self.near, region=job.region) if job.region else self.filters
        idle, rush = job.batch and emitted > 0, not job.batch and len(tried) >= RUSH
        want = Want(request, None, excluded, filters, emitted, idle, rush)
        pick = self.directory.choose(AGENT, want, NOW + now, self.rng)
        if pick is None:
            return None
        self.picks[job.number] = pick
        return int.from_bytes(pick.offer.host, "big")


Truth = Callable[[Job, float, set[int]], int | None]


class Oracle(Router):
    """Knows everything as it is at this moment."""

    name = "oracle"
    truth: Truth

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        return self.truth(job, now, tried)


ALL: tuple[type[Router], ...] = (Lading, AtRandom, RoundRobin, TwoChoices, GreedyStale, Oracle)
