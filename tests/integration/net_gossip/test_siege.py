"""A gossip host under siege by a process full of neighbours: what it costs, and whether honest news still comes."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec
import pytest

from integration.net_gossip.support import TOPIC, Hosts, until
from lading_net.gossip import MeshGossip

SIEGE = str(Path(__file__).with_name("siege.py"))
SECONDS, PATIENCE = 1.2, 4.0


class Toll(msgspec.Struct):
    """Over the time of a siege: the share of honest news that came; how late all but a twentieth came, in seconds; the
    most CPU seconds that passed before others had their turn; CPU seconds for each second; bytes of growth."""

    heard: float = 0.0
    late: float = 0.0
    stuck: float = 0.0
    cpu: float = 0.0
    grown: int = 0


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def watch(toll: Toll) -> None:
    while True:
        before = time.thread_time()  # not the clock: the machine has others to serve
        await asyncio.sleep(0.001)
        toll.stuck = max(toll.stuck, time.thread_time() - before)


async def besiege(host: MeshGossip, honest: MeshGossip, kind: str, count: int) -> Toll:
    reader, toll = host.subscribe(TOPIC), Toll()
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, SIEGE, kind, host.address, str(count), str(SECONDS)]
    siege = await asyncio.create_subprocess_exec(*command, stdout=pipe)
    assert siege.stdout is not None
    assert await siege.stdout.readline() == b"linked\n"
    sent: dict[bytes, float] = {}
    came: dict[bytes, float] = {}

    async def listen() -> None:
        async for data in reader:
            if data in sent and data not in came:
                came[data] = time.monotonic() - sent[data]

    tasks = [asyncio.create_task(each) for each in (listen(), watch(toll))]
    before, began, cpu = resident(), time.monotonic(), time.process_time()
    while time.monotonic() - began < SECONDS:
        news = b"news %d" % len(sent)
        sent[news] = time.monotonic()
        await honest.publish(TOPIC, news)
        await asyncio.sleep(0.1)
    toll.cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    toll.grown = resident() - before
    while len(came) < len(sent) and time.monotonic() - began < SECONDS + PATIENCE:  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # what was missed may still be asked for
    await siege.wait()
    for each in tasks:
        each.cancel()
    toll.heard = len(came) / len(sent)
    toll.late = sorted(came.values())[int(0.95 * (len(came) - 1))] if came else float("inf")
    return toll


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("nothings", 4),
        ("trifles", 4),
        ("lists", 4),
        ("spam", 12),
        ("lures", 24),
        ("flapping", 4),
        ("questions", 24),
        ("dribble", 60),
    ],
)
def test_what_it_costs_and_that_honest_news_comes(kind: str, count: int) -> None:
    """The limits are for a machine that does much else; docs/network.md says what was measured."""

    async def scenario(hosts: Hosts) -> None:
        host = await hosts.up("host")
        honest = await hosts.up("honest", host.address)
        for each in (host, honest):
            each.subscribe(TOPIC)
        await until(lambda: len(host._mesh._listening(TOPIC)) == 1, "they are neighbours")
        toll = await besiege(host, honest, kind, count)
        print(f"{kind} of {count}: {toll}")
        assert toll.heard > 0.95
        assert toll.late < 2.0
        assert toll.stuck < 0.25
        assert toll.grown < 64 * 1024 * 1024

    async def main() -> None:
        hosts = Hosts()
        try:
            async with asyncio.timeout(60):
                await scenario(hosts)
        finally:
            await hosts.close()

    asyncio.run(main())
