"""Two machines on one local network find each other without a word from anybody, and gossip."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack

from bench.processes import program
from integration.net_nat.lab import Lab, Place, require_lab

_PROGRAM = """
import asyncio, json
from lading_net.gossip import MeshGossip

async def main():
    gossip = MeshGossip(bytes([{nth}]) * 32, "/ip4/0.0.0.0/tcp/4102", lan="{address}")
    await gossip.start()
    heard = gossip.subscribe("/t/1")
    while not gossip.peers():
        await asyncio.sleep(0.05)
    async def speak():
        while True:
            await gossip.publish("/t/1", b"from {nth}")
            await asyncio.sleep(0.3)
    asyncio.create_task(speak())
    print(json.dumps({{"heard": (await heard.__anext__()).decode()}}), flush=True)
    await asyncio.sleep(30)

asyncio.run(asyncio.wait_for(main(), 30))
"""


def test_two_machines_on_one_network_meet() -> None:
    require_lab()
    with Lab() as lab:
        places = [lab.public(f"m{nth}", f"203.0.113.{nth}") for nth in (1, 2)]
        assert asyncio.run(_both(places)) == ["from 2", "from 1"]


async def _both(places: list[Place]) -> list[str]:
    heard = asyncio.Barrier(len(places))  # who is heard may not leave before it has heard, too

    async def one(nth: int, place: Place) -> str:
        command = place.command(sys.executable, "-c", _PROGRAM.format(nth=nth, address=place.address))
        with ExitStack() as stack:
            launcher = f"import os; os.execvp({command[0]!r}, {command!r})"
            running = await asyncio.to_thread(stack.enter_context, program("-c", launcher))
            await heard.wait()
            return str(running.facts["heard"])

    async with asyncio.timeout(40):
        return list(await asyncio.gather(*(one(nth, place) for nth, place in enumerate(places, 1))))
