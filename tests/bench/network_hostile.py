"""What an honest peer notices while others attack: the 99th percentile of its round trips, before and meanwhile.

Run as a program it is the attacker: it calls from 127.6.0.0/16 with garbage and half a handshake, and behind a true
handshake opens streams and pings without end, at the rates given here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import sys
import time
from struct import pack

from lading_net.direct import DirectLink, DirectTransport
from lading_net.direct.multistream import proposal
from lading_net.direct.noise import Credentials
from lading_net.direct.upgrade import Upgrade
from lading_protocol.keys import PrivateKey

from .builds import Build, builds
from .processes import Program, program, say_ready
from .report import say

CALLS = 200  # a second, half of them garbage, half silent
FRAMES = 5_000  # a second, half of them new streams, half pings
_PAUSE = 0.005
SAMPLES = 300


async def measure(folder: str, quick: bool) -> None:
    build, plain = builds()
    await beside(folder, quick, build, "")
    if plain is not None:
        await beside(folder, quick, plain, "_plain")


async def beside(folder: str, quick: bool, build: Build, mark: str) -> None:
    """The reference is the same attack on another program: attackers have machines of their own, here they share ours.

    Both alternate, and the ratio is the median of the pairs' own.
    """
    pairs, spared, attacked = 3 if quick else 9, [], []
    end, environment = f"{__package__}.network_end", build.environment
    with (
        program("-m", end, folder, environment=environment) as target,
        program("-m", end, folder, environment=environment) as decoy,
        program("-m", __name__, target.facts["endpoint"]) as here,
        program("-m", __name__, decoy.facts["endpoint"]) as elsewhere,
    ):
        transport = DirectTransport(PrivateKey(os.urandom(32)))
        link = await transport.dial(target.facts["endpoint"])
        for _ in range(pairs):
            await turn(elsewhere, here)
            attacked.append(await percentiles(link))
            await turn(here, elsewhere)
            spared.append(await percentiles(link))
        await transport.close()
    note = f"{build.name}; {CALLS} bad calls, {FRAMES} streams and pings a second from one neighbour"
    for name, index in (("p50", 0), ("p99", 1)):
        ratio = statistics.median(now[index] / other[index] for now, other in zip(attacked, spared, strict=True))
        reference = ("the same attack on another program here", statistics.median(one[index] for one in spared))
        value = statistics.median(one[index] for one in attacked)
        bar = "<= 1.2 of the reference" if name == "p99" and not mark else None
        n = pairs * SAMPLES
        say(f"link_under_attack_{name}{mark}", value, "ms", reference=reference, ratio=ratio, bar=bar, n=n, note=note)


async def turn(rests: Program, goes_on: Program) -> None:
    rests.process.send_signal(signal.SIGSTOP)
    goes_on.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.2)


async def percentiles(link: DirectLink) -> tuple[float, float]:
    """p50 and p99 of a round trip of 1 KB on a stream of its own, in milliseconds."""
    spent = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        stream = await link.open("/echo/1")
        stream.write(bytes(1024))
        await stream.read()
        spent.append((time.perf_counter() - start) * 1e3)
        stream.reset()
        await asyncio.sleep(_PAUSE)
    spent.sort()
    return spent[SAMPLES // 2], spent[SAMPLES * 99 // 100]


async def attack(endpoint: str) -> None:
    port = int(endpoint.split("/")[4])
    say_ready({})
    async with asyncio.TaskGroup() as group:
        group.create_task(call(port))
        group.create_task(flood(port))


async def call(port: int) -> None:
    held: list[asyncio.StreamWriter] = []
    for number in itertools.count():
        source = (f"127.6.{number // 250 % 250}.{number % 250 + 1}", 0)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
            writer.write(os.urandom(500) if number % 2 else b"\x13/multistream/1.0.0\n\x07/noise\n")
            held.append(writer)
        except OSError:
            pass
        for old in held[:-500]:
            old.close()
        del held[:-500]
        await asyncio.sleep(1 / CALLS)


async def flood(port: int) -> None:
    """Joins again under another name whenever it is thrown out."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.6.0.9", 0))
            upgrade = Upgrade(Credentials(PrivateKey(os.urandom(32))), True)
            writer.write(upgrade.start())
            while upgrade.remote is None:
                data = await reader.read(1 << 16)
                if not data:
                    raise ConnectionError
                writer.write(upgrade.receive(data))
            await pour(upgrade, reader, writer)
        except OSError:
            await asyncio.sleep(0.1)


async def pour(upgrade: Upgrade, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = proposal("/echo/1") + b"x"
    numbers = itertools.count(1, 2)
    batch = FRAMES // 200
    while not reader.at_eof():
        frames = b"".join(pack(">BBHII", 0, 0, 1, next(numbers), len(body)) + body for _ in range(batch))
        writer.writelines(upgrade.sealer.seal(frames + pack(">BBHII", 0, 2, 1, 0, 7) * batch))
        await writer.drain()
        try:
            async with asyncio.timeout(0.01):
                while await reader.read(1 << 18):
                    pass
        except TimeoutError:
            pass


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1]))
