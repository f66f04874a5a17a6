"""What a run came to, in numbers, and a table of several."""

import hashlib
import struct
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from simulation.market.routers import ALL, Router
from simulation.market.traffic import Job, Machine, Shape, digest, machines, trace
from simulation.market.world import TAIL, World

SLO = 1.5


class Result(msgspec.Struct, frozen=True):
    """Times in seconds. `cost` is what jobs paid over what the oracle's would; `good` the share of jobs whose first
    token came within SLO; `hits` the share of prompt tokens that the host had read before; `fair` is Jain's index over
    the busy share of honest hosts (R. Jain, 1984); `digest` names every decision."""

    name: str
    jobs: int
    p50: float
    p99: float
    good: float
    cost: float
    hits: float
    refusals: float
    moves: float
    shed: float
    fair: float
    lost: float
    silent: int
    events: int
    cpu: float
    digest: str


def measure(world: World, name: str, cpu: float) -> Result:
    begun = [run for run in world.runs if run.first is not None]
    warm = world.shape.warm
    firsts = np.array([run.first - run.job.at for run in begun if run.job.at >= warm] or [0.0])  # type: ignore[operator]
    asked = max(1, sum(job.at >= warm for job in world.jobs))
    told = hashlib.sha256()
    for run in world.runs:
        told.update(struct.pack("<iidI", run.job.number, run.host, run.first or 0.0, run.moves))
    busy = np.array([host.busy / host.machine.slots for host in world.hosts if not host.machine.liar])
    total, counts = len(world.jobs), world.counts
    batch = counts.batch + sum(
        world.now - max(0.0, run.began) for host in world.hosts for run in host.running.values() if run.job.batch
    )
    return Result(
        name=name,
        jobs=total,
        p50=float(np.quantile(firsts, 0.5)),
        p99=float(np.quantile(firsts, 0.99)),
        good=float((firsts <= SLO).sum() / asked),
        cost=sum(run.paid for run in begun) / max(1, sum(run.job.prompt + 3 * run.job.output for run in begun)) / 1e12,
        hits=counts.known / max(1, counts.read),
        refusals=counts.refusals / total,
        moves=counts.moves / total,
        shed=counts.shed / total,
        fair=float(busy.sum() ** 2 / (len(busy) * (busy**2).sum())) if busy.any() else 0.0,
        lost=counts.lost / batch if batch else 0.0,
        silent=total - len(begun) - counts.shed,
        events=world.events,
        cpu=cpu,
        digest=told.hexdigest()[:16],
    )


class Sample(msgspec.Struct, frozen=True):
    """Of the jobs that came in a part of the time: what of a Result can be told for each job."""

    name: str
    jobs: int
    p50: float
    p99: float
    good: float
    cost: float
    shed: float


def sample(world: World, name: str, until: float) -> Sample:
    """The jobs that came between the warming-up and `until`, as they stood TAIL seconds later."""
    runs = [run for run in world.runs if world.shape.warm <= run.job.at < until]
    begun = [run for run in runs if run.first is not None and run.first <= until + TAIL]
    firsts = np.array([run.first - run.job.at for run in begun] or [0.0])  # type: ignore[operator]
    asked = max(1, len(runs))
    return Sample(
        name,
        len(runs),
        float(np.quantile(firsts, 0.5)),
        float(np.quantile(firsts, 0.99)),
        float((firsts <= SLO).sum() / asked),
        sum(run.paid for run in begun) / max(1, sum(run.job.prompt + 3 * run.job.output for run in begun)) / 1e12,
        1 - len(begun) / asked,
    )


def play(policy: type[Router], shape: Shape, seed: int, *, preemption: bool = True) -> Result:
    made = machines(seed, shape)
    return play_on(
        made, trace(seed, shape, sum(one.slots for one in made)), shape, (policy, seed), preemption=preemption
    )


def play_on(
    made: list[Machine], jobs: list[Job], shape: Shape, who: tuple[type[Router], int], *, preemption: bool = True
) -> Result:
    policy, seed = who
    begun = time.process_time()
    world = World(made, jobs, shape, policy, seed, preemption=preemption)
    world.run()
    return measure(world, policy.name, time.process_time() - begun)


def compare(shape: Shape, seed: int, policies: Sequence[type[Router]] = ALL) -> tuple[dict[str, Result], str]:
    """Every policy on the same machines and the same trace, and the trace's digest."""
    made = machines(seed, shape)
    jobs = trace(seed, shape, sum(one.slots for one in made))
    return {policy.name: play_on(made, jobs, shape, (policy, seed)) for policy in policies}, digest(jobs)


def table(results: Sequence[Result]) -> str:
    head = ("", "jobs", "p50 s", "p99 s", f"in {SLO} s", "cost", "hits", "refused", "moved", "shed", "fair", "CPU s")
    return _aligned(
        head,
        [
            (
                *_start(one),
                f"{one.cost:.3f}",
                f"{one.hits:.1%}",
                f"{one.refusals:.2f}",
                f"{one.moves:.3f}",
                f"{one.shed:.1%}",
                f"{one.fair:.2f}",
                f"{one.cpu:.1f}",
            )
            for one in results
        ],
    )


def samples_table(samples: Sequence[Sample]) -> str:
    head = ("", "jobs", "p50 s", "p99 s", f"in {SLO} s", "cost", "unserved")
    return _aligned(head, [(*_start(one), f"{one.cost:.3f}", f"{one.shed:.1%}") for one in samples])


def _start(one: Result | Sample) -> tuple[str, ...]:
    return one.name, f"{one.jobs:,}", f"{one.p50:.2f}", f"{one.p99:.2f}", f"{one.good:.1%}"


def _aligned(head: tuple[str, ...], found: list[tuple[str, ...]]) -> str:
    rows = [head, *found]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
