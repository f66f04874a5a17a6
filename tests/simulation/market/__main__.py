"""`make sim-large`: a hundred thousand hosts for a minute, every policy on the same trace. A table, then JSON lines.

Each policy runs in a process of its own, two at a time. The oracle, which looks at every host for every job, and the
greedy one, which makes a hundred events of each, only see a slice of the time.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.market.report import Result, play, table
from simulation.market.routers import ALL, Lading
from simulation.market.traffic import Shape, digest, machines, trace

# Policies whose cost grows with hosts times jobs see this part of the time.
SLICE = {"oracle": 0.05, "greedy stale": 0.05}
SPIKE = Shape(
    hosts=4_000, seconds=20.0, output=120, shared=(50, 500), load=0.7, batch=0.75, spike=3.0, spike_for=14.0,
    deaths=0.0, liars=0.0,
)  # fmt: skip


def one(name: str, shape: Shape, seed: int, preemption: bool) -> Result:
    policy = next(policy for policy in ALL if policy.name == name)
    return play(policy, shape, seed, preemption=preemption)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.market", description=__doc__)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=6)
    chosen = parser.parse_args()
    # Long answers, so that a minute of so many hosts is some tens of thousands of jobs.
    shape = Shape(
        hosts=chosen.hosts, seconds=chosen.seconds, output=4_000, gateways=2, families=400, beat=5.0, warm=10.0
    )
    begun = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        runs = {}
        for policy in ALL:
            part = SLICE.get(policy.name, 1.0)
            cut = msgspec.structs.replace(shape, seconds=shape.seconds * part, warm=shape.warm * part)
            runs[policy.name] = pool.submit(one, policy.name, cut, chosen.seed, True)
        spikes = [pool.submit(one, Lading.name, SPIKE, chosen.seed, preemption) for preemption in (True, False)]
        results = [run.result() for run in runs.values()]
        with_, without = (spike.result() for spike in spikes)
    print(
        f"{chosen.hosts:,} hosts, {chosen.seconds:g} s, seed {chosen.seed}, {time.monotonic() - begun:.0f} s to play\n"
    )
    print(table(results))
    for name, part in SLICE.items():
        print(f"({name}: the first {part * chosen.seconds:g} s)")
    print(
        f"\n3x spike over batch work, {SPIKE.hosts:,} hosts: p99 {with_.p99:.2f} s with preemption, "
        f"{without.p99:.2f} s without ({without.p99 / with_.p99:.1f} times); batch work done again {with_.lost:.3%}\n"
    )
    for result in (*results, with_, without):
        print(msgspec.json.encode(result).decode())
    slots = sum(machine.slots for machine in machines(chosen.seed, shape))
    print(msgspec.json.encode({"trace": digest(trace(chosen.seed, shape, slots)), "seed": chosen.seed}).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
