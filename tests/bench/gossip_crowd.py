"""Hosts of the libp2p gossip, some to a process, and what their network carries.

`python -m tests.bench.gossip_crowd N` measures N hosts; run it in a network namespace of its own, for it counts what
crosses loopback. `... N --host FIRST BOOTSTRAP` is one of its processes, told "publish HOST" and "count" on its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lading_net.gossip import MeshGossip
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import TOPIC_OFFERS

from .processes import Program, program, say_ready

OFFER = 600  # bytes of a signed offer with two endpoints, packed
EACH = 25  # hosts to a process
IDLE_SECONDS, PAUSE_SECONDS, JOIN_SECONDS = 30.0, 4.0, 240.0
ENOUGH = 8  # connections from which on a host counts as joined


class Crowd:
    """One process: each host notes how long an offer took to it."""

    def __init__(self) -> None:
        self.hosts: list[MeshGossip] = []
        self.delays: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, count: int, first: int, bootstrap: str) -> None:
        for nth in range(count):
            key = PrivateKey((first + nth + 1).to_bytes(32, "big"))
            known = [bootstrap] if bootstrap else [each.address for each in self.hosts[:1]]
            host = MeshGossip(key, "/ip4/127.0.0.1/tcp/0", known)
            await host.start()
            self.hosts.append(host)
            self._tasks.append(asyncio.create_task(self._listen(host)))

    async def _listen(self, host: MeshGossip) -> None:
        async for data in host.subscribe(TOPIC_OFFERS):
            self.delays.append(time.time() - float(data[:24]))

    async def publish(self, host: int) -> None:
        data = f"{time.time():.6f}".ljust(24).encode() + bytes(OFFER - 24)
        await self.hosts[host].publish(TOPIC_OFFERS, data)

    def told(self) -> dict[str, Any]:
        peers = [len(host.peers()) for host in self.hosts]
        found, self.delays = self.delays, []
        return {"delays": found, "peers": peers, "cpu": time.process_time()}


async def be_hosts(count: int, first: int, bootstrap: str) -> None:
    crowd = Crowd()
    await crowd.start(count, first, bootstrap)
    say_ready({"address": crowd.hosts[0].address})
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, *host = json.loads(line)
        if word == "publish":
            await crowd.publish(host[0])
        else:
            say_ready(crowd.told())


def loopback_bytes() -> int:
    """Sent over this namespace's loopback so far, headers and all: each byte once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    raise RuntimeError("there is no loopback")


def measure(count: int, publications: int) -> dict[str, Any]:
    """Joining, quiet, then an offer every few seconds."""
    each = min(EACH, -(-count // 2))
    with ExitStack() as stack:
        first, processes = "", list[Program]()
        for nth in range(0, count, each):
            size = str(min(each, count - nth))
            started = stack.enter_context(program("-m", __spec__.name, size, "--hosts", str(nth), first))
            first = first or started.facts["address"]
            processes.append(started)
        began = time.monotonic()
        while min(peers := _count(processes)["peers"]) < min(ENOUGH, count - 1):
            if time.monotonic() > began + JOIN_SECONDS:
                break
            time.sleep(2)
        joined = time.monotonic() - began
        time.sleep(8)  # until all have looked around and gone quiet
        before = loopback_bytes(), _count(processes)
        time.sleep(IDLE_SECONDS)
        idle = (loopback_bytes() - before[0]) / IDLE_SECONDS / count
        started_at, carried = time.monotonic(), loopback_bytes()
        for nth in range(publications):
            processes[nth % len(processes)].tell(["publish", nth % 5])
            time.sleep(PAUSE_SECONDS)
        time.sleep(PAUSE_SECONDS)
        lasted = time.monotonic() - started_at
        per_offer = ((loopback_bytes() - carried) / count - idle * lasted) / publications
        after = _count(processes)
        spent = (after["cpu"] - before[1]["cpu"]) / publications
    return {
        "hosts": count,
        "joined": joined,
        "connections": sum(peers) / count,
        "idle": idle,
        "per_offer": per_offer,
        "cpu_per_offer": spent,
        "wanted": publications * (count - 1),
        "delays": sorted(after["delays"]),
    }


def _count(processes: list[Program]) -> dict[str, Any]:
    for each in processes:
        each.tell(["count"])
    told = [each.hear() for each in processes]
    return {
        "delays": [delay for one in told for delay in one["delays"]],
        "peers": [peers for one in told for peers in one["peers"]],
        "cpu": sum(one["cpu"] for one in told),
    }


if __name__ == "__main__":
    if "--hosts" in sys.argv:
        asyncio.run(be_hosts(int(sys.argv[1]), int(sys.argv[3]), sys.argv[4]))
    else:
        say_ready(measure(int(sys.argv[1]), 10))
