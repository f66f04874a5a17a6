"""A program that fetches one agent and says how much memory it took: `python fetcher.py STORE AGENT ENDPOINT...`."""

import asyncio
import os
import sys
from pathlib import Path

from lading.blobs import BlobStore, fetch_package
from lading_net.direct import DirectTransport
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey


async def main(folder: str, agent: str, *endpoints: str) -> None:
    transport = DirectTransport(PrivateKey(os.urandom(32)))
    links = [await transport.dial(endpoint) for endpoint in endpoints]

    def progress(done: int, total: int) -> None:
        print(done, total, flush=True)

    await fetch_package(lambda: links, AgentId(bytes.fromhex(agent)), BlobStore(Path(folder)), progress)
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print("peak", peak, flush=True)
    await transport.close()


asyncio.run(main(*sys.argv[1:]))
