"""`make sim-large`: a hundred thousand hosts for a minute, every policy on the same trace. Tables, then JSON lines.

Each policy runs in a process of its own, two at a time. The oracle, which looks at every host for every job, and the
greedy one, which makes a hundred events of each, play the beginning of the trace; all are compared on the jobs of that
part, too. Nothing comes after it for these two, which only helps them.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.market.report import Result, Sample, measure, play, sample, samples_table, table
from simulation.market.routers import ALL, AtRandom, GreedyStale, Lading, Oracle, RoundRobin, Router, TwoChoices
from simulation.market.traffic import Shape, digest, machines, trace
from simulation.market.world import World

BAR_SECONDS = 240
# The longest first, so that two processes end together.
ORDER: tuple[type[Router], ...] = (Lading, Oracle, GreedyStale, TwoChoices, RoundRobin, AtRandom)
# These see the warming-up, and so much of the time after it.
DEAR: tuple[type[Router], ...] = (Oracle, GreedyStale)
PART = 0.06
SPIKE = Shape(
    hosts=2_000, seconds=20.0, output=120, shared=(50, 500), load=0.7, batch=0.75, spike=3.0, spike_for=14.0,
    deaths=0.0, liars=0.0,
)  # fmt: skip


def one(name: str, shape: Shape, seed: int, until: float) -> tuple[Result, Sample]:
    """All of the trace up to the shape's end, or up to `until` for a policy that is dear."""
    policy = next(policy for policy in ALL if policy.name == name)
    made = machines(seed, shape)
    jobs = trace(seed, shape, sum(machine.slots for machine in made))
    if policy in DEAR:
        jobs, shape = [job for job in jobs if job.at < until], msgspec.structs.replace(shape, seconds=until)
    begun = time.process_time()
    world = World(made, jobs, shape, policy, seed)
    world.run()
    return measure(world, name, time.process_time() - begun), sample(world, name, until)


def spiked(seed: int, preemption: bool) -> Result:
    return play(Lading, SPIKE, seed, preemption=preemption)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.market", description=__doc__)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=6)
    chosen = parser.parse_args()
    # Long answers, so that a minute of so many hosts is some tens of thousands of jobs.
    shape = Shape(
        hosts=chosen.hosts, seconds=chosen.seconds, output=4_000, gateways=2, families=400, beat=5.0,
        warm=chosen.seconds / 6,
    )  # fmt: skip
    until = shape.warm + PART * shape.seconds
    begun = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        spikes = [pool.submit(spiked, chosen.seed, preemption) for preemption in (True, False)]
        runs = {policy: pool.submit(one, policy.name, shape, chosen.seed, until) for policy in ORDER}
        played = {policy: run.result() for policy, run in runs.items()}
        with_, without = (spike.result() for spike in spikes)
    took = time.monotonic() - begun
    results = [played[policy][0] for policy in ALL if policy not in DEAR]
    cpu = sum(result.cpu for result, _ in played.values()) + with_.cpu + without.cpu
    print(f"{chosen.hosts:,} hosts, {chosen.seconds:g} s, seed {chosen.seed}")
    print(f"{_held(took, BAR_SECONDS)} s to play, {cpu:.0f} s of CPU in two processes\n")
    print(table(results))
    print(f"\nAll policies, on the jobs that came from second {shape.warm:g} to {until:g} of that trace\n")
    print(samples_table([played[policy][1] for policy in ALL]))
    _tell_spike(with_, without)
    for result in (*results, *(played[policy][1] for policy in ALL), with_, without):
        print(msgspec.json.encode(result).decode())
    slots = sum(machine.slots for machine in machines(chosen.seed, shape))
    print(msgspec.json.encode({"trace": digest(trace(chosen.seed, shape, slots)), "seed": chosen.seed}).decode())
    return 0


def _held(seconds: float, bar: float) -> str:
    return f"{seconds:.0f} (bar <= {bar:.0f}: {'holds' if seconds <= bar else 'DOES NOT HOLD'})"


def _tell_spike(with_: Result, without: Result) -> None:
    times = without.p99 / with_.p99
    print(
        f"\n3x spike over batch work, {SPIKE.hosts:,} hosts: p99 {with_.p99:.2f} s with preemption, "
        f"{without.p99:.2f} s without: {times:.1f} times (bar >= 5: {'holds' if times >= 5 else 'DOES NOT HOLD'}); "
        f"batch work done again {with_.lost:.2%} (bar <= 1 %: {'holds' if with_.lost <= 0.01 else 'DOES NOT HOLD'})\n"
    )


if __name__ == "__main__":
    sys.exit(main())
