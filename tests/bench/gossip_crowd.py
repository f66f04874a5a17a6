"""Hosts that gossip, some to a process: what their network carries at rest and with offers, and the memory of each.

`python -m tests.bench.gossip_crowd N` measures N hosts; run it in a network namespace of its own, for it counts what
crosses loopback. `... --parts` measures what a host, a link and an offer that was heard take. `... N --hosts FIRST
BOOTSTRAP` is one of the processes, told "publish HOST", "provide" and "count" on its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from factories import unsigned_offer
from lading.dispatch.directory import Directory
from lading_net.gossip import MeshGossip
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import TOPIC_OFFERS

from .processes import Program, program, say_ready

OFFER = 600  # bytes of a signed offer with two endpoints, packed
EACH = 25  # hosts to a process
SETTLE_SECONDS, IDLE_SECONDS, JOIN_SECONDS = 20.0, 60.0, 120.0
PUBLICATIONS, PAUSE_SECONDS = 20, 2.0
PROVIDE_SECONDS = 4.5  # before they tell it again
ENOUGH = 8  # connections from which on a host counts as joined
ANY_PORT = "/ip4/127.0.0.1/tcp/0"


class Crowd:
    """One process: each host notes how long an offer took to it."""

    def __init__(self) -> None:
        self.hosts: list[MeshGossip] = []
        self.delays: list[float] = []
        self._before = resident()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, count: int, first: int, bootstrap: str) -> None:
        for nth in range(count):
            key = PrivateKey((first + nth + 1).to_bytes(32, "big"))
            known = [bootstrap] if bootstrap else [each.address for each in self.hosts[:1]]
            host = MeshGossip(key, ANY_PORT, known)
            await host.start()
            self.hosts.append(host)
            self._tasks.append(asyncio.create_task(self._listen(host)))

    async def _listen(self, host: MeshGossip) -> None:
        async for data in host.subscribe(TOPIC_OFFERS):
            self.delays.append(time.time() - float(data[:24]))

    async def publish(self, host: int) -> None:
        data = f"{time.time():.6f}".ljust(24).encode() + bytes(OFFER - 24)
        await self.hosts[host % len(self.hosts)].publish(TOPIC_OFFERS, data)

    def provide(self) -> None:
        """Each host serves an agent of its own."""
        for host in self.hosts:
            agent = AgentId(bytes(12) + host.peer_id.address)
            host.provide([agent], ["/ip4/203.0.113.7/tcp/4101"])

    def told(self) -> dict[str, Any]:
        peers = [len(host.peers()) for host in self.hosts]
        found, self.delays = self.delays, []
        memory = resident() - self._before
        return {"delays": found, "peers": peers, "cpu": time.process_time(), "memory": memory}


async def be_hosts(count: int, first: int, bootstrap: str) -> None:
    warm = MeshGossip(bytes([9]) * 32, ANY_PORT)  # what the first one alone loads is nobody's share
    await warm.start()
    await warm.close()
    crowd = Crowd()
    await crowd.start(count, first, bootstrap)
    say_ready({"address": crowd.hosts[0].address})
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, *host = json.loads(line)
        if word == "publish":
            await crowd.publish(host[0])
        elif word == "provide":
            crowd.provide()
        else:
            say_ready(crowd.told())


def loopback_bytes() -> int:
    """Sent over this namespace's loopback so far, headers and all: each byte once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    raise RuntimeError("there is no loopback")


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- a whole crowd ----------------------------------------------------------------------------------------------------


def measure(count: int) -> dict[str, Any]:
    """Joining, quiet, then an offer every other second: nothing is measured before all have joined and gone quiet."""
    each = min(EACH, -(-count // 2))
    with ExitStack() as stack:
        first, processes, began = "", list[Program](), time.monotonic()
        for nth in range(0, count, each):
            size = str(min(each, count - nth))
            started = stack.enter_context(program("-m", __spec__.name, size, "--hosts", str(nth), first))
            first = first or started.facts["address"]
            processes.append(started)
        joined = _wait_until_joined(processes, count) - began
        time.sleep(SETTLE_SECONDS)
        (idle, _), quiet = _rate(count, lambda: time.sleep(IDLE_SECONDS)), _count(processes)
        busy, lasted = _rate(count, lambda: _publish(processes))
        after = _count(processes)
        providing, told = _rate(count, lambda: _provide(processes))
    return {
        "hosts": count,
        "joined": joined,
        "connections": sum(after["peers"]) / count,
        "idle": idle,
        "busy": busy,
        "offers_per_second": PUBLICATIONS / lasted,
        "per_offer": (busy - idle) / 2 * lasted / PUBLICATIONS,
        "per_record": (providing - idle) / 2 * told,
        "cpu_per_offer": (after["cpu"] - quiet["cpu"]) / PUBLICATIONS,
        "memory": after["memory"] / count,
        "wanted": PUBLICATIONS * (count - 1),
        "delays": sorted(after["delays"]),
    }


def _wait_until_joined(processes: list[Program], count: int) -> float:
    """When that was. A crowd that does not come together cannot be measured."""
    until = time.monotonic() + JOIN_SECONDS
    while min(peers := _count(processes)["peers"]) < min(ENOUGH, count - 1):
        if time.monotonic() > until:
            raise SystemExit(f"after {JOIN_SECONDS:.0f} s a host has {min(peers)} connections only")
        time.sleep(0.5)
    return time.monotonic()


def _publish(processes: list[Program]) -> None:
    for nth in range(PUBLICATIONS):
        processes[nth % len(processes)].tell(["publish", nth])
        time.sleep(PAUSE_SECONDS)
    time.sleep(2 * PAUSE_SECONDS)


def _provide(processes: list[Program]) -> None:
    for each in processes:
        each.tell(["provide"])
    time.sleep(PROVIDE_SECONDS)


def _rate(count: int, work: Any) -> tuple[float, float]:
    """Bytes per second that a host sends and receives while the work is done, and its seconds."""
    began, carried = time.monotonic(), loopback_bytes()
    work()
    lasted = time.monotonic() - began
    return 2 * (loopback_bytes() - carried) / count / lasted, lasted


def _count(processes: list[Program]) -> dict[str, Any]:
    for each in processes:
        each.tell(["count"])
    told = [each.hear() for each in processes]
    return {
        "delays": [delay for one in told for delay in one["delays"]],
        "peers": [peers for one in told for peers in one["peers"]],
        "cpu": sum(one["cpu"] for one in told),
        "memory": sum(one["memory"] for one in told),
    }


# -- what its parts take ----------------------------------------------------------------------------------------------


async def parts() -> dict[str, float]:
    """Bytes of a host without neighbours, of one end of a link, and of an offer that was heard."""
    warm = MeshGossip(bytes([9]) * 32, ANY_PORT)
    await warm.start()
    before = resident()
    hosts = [MeshGossip(PrivateKey((1_000 + nth).to_bytes(32, "big")), ANY_PORT, max_peers=0) for nth in range(80)]
    for host in hosts:
        await host.start()
        host.subscribe(TOPIC_OFFERS)
    alone = (resident() - before) / len(hosts)
    before = resident()
    await asyncio.gather(*(one._transport.dial(hosts[0].address, None) for one in hosts[1:]))
    while len(hosts[0].peers()) < len(hosts) - 1:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    link = (resident() - before) / (2 * (len(hosts) - 1))
    before = resident()
    heard = Directory(needs_beats=False)
    for nth in range(4_096):
        heard.put(unsigned_offer(nth.to_bytes(20, "big"), 1_000_000, 2_000_000))
    offer = (resident() - before) / 4_096
    for host in (warm, *hosts):
        await host.close()
    return {"host": alone, "link": link, "offer": offer}


if __name__ == "__main__":
    if "--hosts" in sys.argv:
        asyncio.run(be_hosts(int(sys.argv[1]), int(sys.argv[3]), sys.argv[4]))
    elif "--parts" in sys.argv:
        say_ready(asyncio.run(parts()))
    else:
        say_ready(measure(int(sys.argv[1])))
