"""The network against raw TLS over TCP, and against py-libp2p's own streams, in the same run.

`python -m tests.bench.bench_network --loop asyncio` measures without uvloop. The other ends are processes of their own,
so that CPU time can be told apart by side.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import uvloop

from lading_net.direct import DirectLink, DirectTransport
from lading_protocol.keys import PrivateKey

from . import network_cold, network_hostile, network_libp2p
from .network_end import write_certificate
from .network_runs import TlsClient, link_run, many_streams, median_us, message_run, tls_connect, tls_run
from .processes import Program, program
from .report import say

FRAME = bytes(200)
PART = bytes(256 * 1024)
TLS = "raw asyncio TCP + TLS"
STREAMS = 4096


async def compare(other: Program, folder: str, libp2p: dict[str, Any], quick: bool) -> None:
    endpoint, port = other.facts["endpoint"], other.facts["port"]
    transport = DirectTransport(PrivateKey(b"c" * 32))
    link = await transport.dial(endpoint)
    await measure_opening(link, endpoint, port, 50 if quick else 300)
    await measure_throughput(link, port, 3 if quick else 15)
    await measure_frames(link, port, 20_000 if quick else 100_000, 1 if quick else 3)
    await measure_messages(link, 20_000 if quick else 100_000, 1 if quick else 3)
    await measure_beside_libp2p(link, libp2p)
    seconds = await many_streams(link, STREAMS)
    say("link_streams", STREAMS, "streams", bar=">= 4096", note=f"all answered within {seconds:.2f} s")
    await network_cold.measure()
    await network_hostile.measure(folder, quick)
    await transport.close()


async def measure_opening(link: DirectLink, endpoint: str, port: int, times: int) -> None:
    async def dial() -> None:
        other = DirectTransport(PrivateKey(os.urandom(32)))
        await other.dial(endpoint)
        closing.append(other)

    async def connect() -> None:
        connected.append(await tls_connect(port))

    async def open_only() -> None:
        (await link.open("/echo/1")).reset()

    async def open_and_ask() -> None:
        stream = await link.open("/echo/1")
        stream.write(b"x")
        await stream.read()
        stream.reset()

    closing: list[DirectTransport] = []
    connected: list[TlsClient] = []
    few = max(times // 10, 5)
    tls_dial = await median_us(few, connect)
    say("link_dial_p50", await median_us(few, dial) / 1e3, "ms", reference=("TLS connect", tls_dial / 1e3), n=few)
    for other in closing:
        await other.close()
    for client in connected:
        client.transport.close()
    opening = await median_us(times, open_only) / 1e3
    say("link_open_p50", opening, "ms", bar="<= 0.2", n=times, note="lazy: no round trip")
    tls = await tls_connect(port)
    await tls.ask(b"Ex")
    round_trip = await median_us(times, lambda: tls.ask(b"x")) / 1e3
    asked = await median_us(times, open_and_ask) / 1e3
    name = "TLS round trip on an open connection"
    say("link_open_and_round_trip_p50", asked, "ms", reference=(name, round_trip), n=times)
    tls.transport.close()
    stream = await link.open("/echo/1")

    async def ask() -> None:
        stream.write(b"x")
        await stream.read()

    say("link_round_trip_p50", await median_us(times, ask) / 1e3, "ms", reference=(name, round_trip), n=times)
    await stream.close()


async def measure_throughput(link: DirectLink, port: int, rounds: int) -> None:
    """64 MB a round. Rounds alternate, and the ratio is the median of the rounds' own: the machine is shared."""
    parts = (64 << 20) // len(PART)
    size = parts * len(PART)
    runs = [(await tls_run(port, parts, PART, False), await link_run(link, parts, PART, False)) for _ in range(rounds)]
    ratio = statistics.median(tls[0] / mine[0] for tls, mine in runs)
    value = size / statistics.median(mine[0] for _, mine in runs) / 1e6
    other = size / statistics.median(tls[0] for tls, _ in runs) / 1e6
    say("link_throughput", value, "MB/s", reference=(TLS, other), ratio=ratio, bar=">= 0.6 of the reference", n=rounds)
    for side, index in (("sender", 1), ("receiver", 2)):
        mine_cpu = statistics.median(mine[index] for _, mine in runs) / size * 1e9
        tls_cpu = statistics.median(tls[index] for tls, _ in runs) / size * 1e9
        say(f"link_cpu_per_gb_{side}", mine_cpu, "s", reference=(TLS, tls_cpu), n=rounds)


async def measure_frames(link: DirectLink, port: int, frames: int, rounds: int) -> None:
    for pause_each, kind, bar in ((False, "burst", "<= 3"), (True, "paced", "<= 15")):
        runs = [
            (await tls_run(port, frames, FRAME, pause_each), await link_run(link, frames, FRAME, pause_each))
            for _ in range(rounds)
        ]
        note = "written one after the other" if not pause_each else "one per turn of the loop: nothing to coalesce"
        for side, index in (("sender", 1), ("receiver", 2)):
            value = statistics.median(link[index] for _, link in runs) / frames * 1e6
            reference = statistics.median(tls[index] for tls, _ in runs) / frames * 1e6
            say(
                f"link_frame_cpu_{kind}_{side}",
                value,
                "us",
                reference=(TLS, reference),
                bar=bar,
                n=rounds,
                note=note,
            )
        value = frames / statistics.median(link[0] for _, link in runs)
        reference = frames / statistics.median(tls[0] for tls, _ in runs)
        say(f"link_frames_{kind}", value, "1/s", reference=(TLS, reference), n=rounds, note=note)


async def measure_messages(link: DirectLink, amount: int, rounds: int) -> None:
    for pause_each, kind in ((False, "burst"), (True, "paced")):
        runs = [await message_run(link, amount, pause_each) for _ in range(rounds)]
        for side, index in (("sender", 1), ("receiver", 2)):
            value = statistics.median(run[index] for run in runs) / amount * 1e6
            say(
                f"link_message_cpu_{kind}_{side}",
                value,
                "us",
                n=rounds,
                note="200 bytes of msgpack, framed and decoded",
            )


async def measure_beside_libp2p(link: DirectLink, libp2p: dict[str, Any]) -> None:
    """The same conversations as py-libp2p has had with itself a moment ago."""
    name = "py-libp2p: TCP, Noise, yamux"
    if not libp2p:
        say("link_beside_libp2p", None, "", note="py-libp2p is not installed")
        return
    parts = network_libp2p.BYTES // len(PART)
    stream = await link.open("/echo/1")

    async def open_and_ask() -> None:
        fresh = await link.open("/echo/1")
        fresh.write(bytes(1024))
        await fresh.read()
        fresh.reset()

    async def ask() -> None:
        stream.write(bytes(1024))
        await stream.read()

    times = network_libp2p.TIMES
    fresh = await median_us(times, open_and_ask) / 1e3
    say("link_new_stream_1kb", fresh, "ms", reference=(name, libp2p["new_stream_ms"]), n=times)
    kept = await median_us(times, ask) / 1e3
    say("link_kept_stream_1kb", kept, "ms", reference=(name, libp2p["kept_stream_ms"]), n=times)
    seconds, _, _ = await link_run(link, parts, PART, False)
    say("link_one_way", parts * len(PART) / seconds / 1e6, "MB/s", reference=(name, libp2p["mb_per_s"]))
    seconds, cpu, _ = await link_run(link, network_libp2p.FRAMES, FRAME, True)
    mine = cpu / network_libp2p.FRAMES * 1e6
    say("link_frame_cpu", mine, "us", reference=(name, libp2p["frame_cpu_us"]), note="paced; the sender's side")
    await stream.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    run: Callable[..., Any] = uvloop.run if arguments.loop == "uvloop" else asyncio.run
    libp2p = network_libp2p.measure()
    with tempfile.TemporaryDirectory() as folder:
        write_certificate(folder)
        more = ["--asyncio"] if arguments.loop == "asyncio" else []
        with program("-m", f"{__package__}.network_end", folder, *more) as other:
            run(compare(other, folder, libp2p, arguments.quick))


if __name__ == "__main__":
    main()
