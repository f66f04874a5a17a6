"""What an honest peer notices while others attack: the 99th percentile of its round trips, meanwhile and without.

Run as a program it is the attacker: it calls from 127.6.0.0/16 with garbage and half a handshake, and behind a true
handshake opens streams and pings without end, at the rates given here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from struct import pack

from lading_net.direct import DirectLink, DirectTransport
from lading_net.direct.multistream import proposal
from lading_net.direct.noise import Credentials
from lading_net.direct.upgrade import Upgrade
from lading_protocol.keys import PrivateKey

from .builds import Build, builds
from .processes import Program, keeping_to, program, say_ready
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

    So they and that other program have one core, and the honest peer and whom it asks the other. Both alternate.
    """
    rounds, spared, attacked = 3 if quick else 15, list[float](), list[float]()
    end, environment = f"{__package__}.network_end", build.environment
    with (
        keeping_to(0),
        program("-m", end, folder, environment=environment, core=0) as target,
        program("-m", end, folder, environment=environment, core=1) as decoy,
        program("-m", __name__, target.facts["endpoint"], core=1) as here,
        program("-m", __name__, decoy.facts["endpoint"], core=1) as elsewhere,
    ):
        transport = DirectTransport(PrivateKey(os.urandom(32)))
        link = await transport.dial(target.facts["endpoint"])
        for _ in range(rounds):
            await turn(elsewhere, here)
            attacked += await round_trips(link)
            await turn(here, elsewhere)
            spared += await round_trips(link)
        await transport.close()
    note = f"{build.name}; {CALLS} bad calls, {FRAMES} streams and pings a second from one neighbour"
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        reference, value = quantile(spared, part), quantile(attacked, part)
        say(
            f"link_under_attack_{name}{mark}",
            value,
            "ms",
            reference=("the same attack on another program here", reference),
            ratio=value / reference,
            bar="<= 1.2 of the reference" if name == "p99" and not mark else None,
            n=len(attacked),
            note=note,
        )


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


async def turn(rests: Program, goes_on: Program) -> None:
    rests.process.send_signal(signal.SIGSTOP)
    goes_on.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.2)


async def round_trips(link: DirectLink) -> list[float]:
    """Milliseconds of round trips of 1 KB, each on a stream of its own.

    Each begins at a moment of its own: the timers of all programs go off at the same full milliseconds.
    """
    spent = []
    for _ in range(SAMPLES):
        await asyncio.sleep(_PAUSE)
        time.sleep(random.random() / 1e3)  # noqa: ASYNC251  # nothing else happens here
        start = time.perf_counter()
        stream = await link.open("/echo/1")
        stream.write(bytes(1024))
        await stream.read()
        spent.append((time.perf_counter() - start) * 1e3)
        stream.reset()
    return spent


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
