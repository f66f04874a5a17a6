"""Hosts of the libp2p gossip, some to a process: `python -m tests.bench.gossip_crowd COUNT FIRST BOOTSTRAP|-`.

Each adds the time at which an offer reached it. Told over standard input: "publish N" and "count".
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from lading_net.errors import NetError
from lading_net.libp2p import Libp2pGossip
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import TOPIC_OFFERS

from .processes import say_ready

OFFER = 600  # bytes of a signed offer with two endpoints, packed


class Crowd:
    def __init__(self) -> None:
        self.hosts: list[Libp2pGossip] = []
        self.delays: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, count: int, first: int, bootstrap: list[str]) -> None:
        for nth in range(count):
            key = PrivateKey((first + nth + 1).to_bytes(32, "big"))
            host = Libp2pGossip(key, "/ip4/127.0.0.1/tcp/0", bootstrap or [each.address for each in self.hosts[:1]])
            await host.start()
            self.hosts.append(host)
            self._tasks.append(asyncio.get_running_loop().create_task(self._listen(host)))

    async def _listen(self, host: Libp2pGossip) -> None:
        async for data in host.subscribe(TOPIC_OFFERS):
            self.delays.append(time.time() - float(data[:24]))

    async def publish(self, host: int) -> None:
        data = f"{time.time():.6f}".ljust(24).encode() + bytes(OFFER - 24)
        try:
            await self.hosts[host].publish(TOPIC_OFFERS, data)
        except NetError as error:
            print(json.dumps({"error": str(error)}), flush=True)


async def main() -> None:
    count, first, where = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    crowd = Crowd()
    await crowd.start(count, first, [] if where == "-" else [where])
    say_ready({"address": crowd.hosts[0].address})
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if line[0] == "publish":
            await crowd.publish(int(line[1]))
        else:
            peers = [len(host.peers()) for host in crowd.hosts]
            told = {"delays": crowd.delays, "peers": peers, "cpu": time.process_time()}
            crowd.delays = []
            print(json.dumps(told), flush=True)
    await asyncio.gather(*(host.close() for host in crowd.hosts))


if __name__ == "__main__":
    asyncio.run(main())
