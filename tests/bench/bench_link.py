"""The direct link against raw asyncio TCP with TLS, both on the same loop, in the same run, over loopback.

`python -m tests.bench.bench_link --loop asyncio` measures without uvloop. The other end is a process of its own, so
that CPU time can be told apart by side.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lading_net.direct import DirectLink, DirectTransport
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.keys import PrivateKey

from .processes import program, say_ready
from .report import say


class Token(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    index: int
    token: int
    text: str


_decoder = msgspec.msgpack.Decoder(Token)
FRAME = bytes(200)
PART = bytes(256 * 1024)


# -- the other end ----------------------------------------------------------------------------------------------------


class TlsServer(asyncio.Protocol):
    """Counts what comes; what ends in ? is answered with the count and the CPU time so far; echoes after an E."""

    def __init__(self) -> None:
        self.count, self.mode = 0, b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.mode == b"":
            self.mode, data = data[:1], data[1:]
        if self.mode == b"E":
            self.transport.write(data)
            return
        self.count += len(data)
        if data.endswith(b"?"):
            self.transport.write(json.dumps([self.count, time.process_time()]).encode())


async def serve(folder: str) -> None:
    async def sink(stream: Stream) -> None:
        count = 0
        while data := await stream.read():
            count += len(data)
        stream.write(json.dumps([count, time.process_time()]).encode())

    async def messages(stream: Stream) -> None:
        arriving, count = MessageStream(stream, _decoder), 0
        while (message := await arriving.recv()) is not None:
            count += len(message.text)
        stream.write(json.dumps([count, time.process_time()]).encode())

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            stream.write(data)
            await stream.drain()

    transport = DirectTransport(PrivateKey(b"s" * 32))
    transport.handle("/sink/1", sink)
    transport.handle("/messages/1", messages)
    transport.handle("/echo/1", echo)
    endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    server = await asyncio.get_running_loop().create_server(TlsServer, "127.0.0.1", 0, ssl=context)
    say_ready({"endpoint": endpoint, "port": server.sockets[0].getsockname()[1]})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    await transport.close()


def write_certificate(folder: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    Path(folder, "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    Path(folder, "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


# -- the reference ----------------------------------------------------------------------------------------------------


class TlsClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = self.loop.create_future()
        self.room = asyncio.Event()
        self.room.set()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    async def ask(self, data: bytes) -> bytes:
        self.answer = self.loop.create_future()
        self.transport.write(data)
        return await self.answer


@cache
def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def tls_connect(port: int) -> TlsClient:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(TlsClient, "127.0.0.1", port, ssl=tls_context())
    return client


async def tls_run(port: int, parts: int, part: bytes, pause_each: bool) -> tuple[float, float, float]:
    """Seconds, and CPU seconds of this side and of the other."""
    client = await tls_connect(port)
    _, other = json.loads(await client.ask(b"S?"))
    mine, start = time.process_time(), time.perf_counter()
    for _ in range(parts):
        client.transport.write(part)
        if pause_each:
            await asyncio.sleep(0)
        if not client.room.is_set():
            await client.room.wait()
    count, other_end = json.loads(await client.ask(b"?"))
    seconds, mine_end = time.perf_counter() - start, time.process_time()
    assert count >= parts * len(part)
    client.transport.close()
    return seconds, mine_end - mine, other_end - other


# -- the link ---------------------------------------------------------------------------------------------------------


async def link_run(link: DirectLink, parts: int, part: bytes, pause_each: bool) -> tuple[float, float, float]:
    first = await link.open("/sink/1")
    await first.close()
    _, other = json.loads(await first.read())
    stream = await link.open("/sink/1")
    mine, start = time.process_time(), time.perf_counter()
    for _ in range(parts):
        stream.write(part)
        if pause_each:
            await asyncio.sleep(0)
        await stream.drain()
    await stream.close()
    count, other_end = json.loads(await stream.read())
    seconds, mine_end = time.perf_counter() - start, time.process_time()
    assert count == parts * len(part)
    return seconds, mine_end - mine, other_end - other


async def message_run(link: DirectLink, amount: int, pause_each: bool) -> tuple[float, float, float]:
    first = await link.open("/messages/1")
    await first.close()
    _, other = json.loads(await first.read())
    stream = await link.open("/messages/1")
    sending = MessageStream(stream, _decoder)
    text = "x" * 180
    mine, start = time.process_time(), time.perf_counter()
    for index in range(amount):
        sending.send(Token(index, 77, text))
        if pause_each:
            await asyncio.sleep(0)
        await sending.drain()
    await stream.close()
    count, other_end = json.loads(await stream.read())
    seconds, mine_end = time.perf_counter() - start, time.process_time()
    assert count == amount * len(text)
    return seconds, mine_end - mine, other_end - other


async def many_streams(link: DirectLink, amount: int) -> float:
    """Seconds until `amount` streams, all open at once, have each had an answer."""

    async def one(number: int) -> None:
        stream = await link.open("/echo/1")
        stream.write(b"%d" % number)
        assert await stream.read() == b"%d" % number
        gate.release()
        await go.wait()
        await stream.close()
        assert await stream.read() == b""

    gate, go = asyncio.Semaphore(0), asyncio.Event()
    start = time.perf_counter()
    tasks = [asyncio.create_task(one(number)) for number in range(amount)]
    for _ in range(amount):
        await gate.acquire()
    seconds = time.perf_counter() - start
    go.set()
    await asyncio.gather(*tasks)
    return seconds


# -- the comparison ---------------------------------------------------------------------------------------------------


async def median_us(times: int, action: Callable[[], Awaitable[object]]) -> float:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        await action()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * 1e6


async def compare(endpoint: str, port: int, quick: bool) -> None:
    transport = DirectTransport(PrivateKey(b"c" * 32))
    link = await transport.dial(endpoint)
    await measure_opening(transport, link, endpoint, port, 50 if quick else 300)
    await measure_throughput(link, port, 512 if quick else 1024, 3 if quick else 7)
    await measure_frames(link, port, 20_000 if quick else 100_000, 1 if quick else 3)
    await measure_messages(link, 20_000 if quick else 100_000, 1 if quick else 3)
    amount = 4096
    seconds = await many_streams(link, amount)
    say("link_streams", amount, "streams", bar=">= 4096", note=f"all answered within {seconds:.2f} s")
    await transport.close()


async def measure_opening(transport: DirectTransport, link: DirectLink, endpoint: str, port: int, times: int) -> None:
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


async def measure_throughput(link: DirectLink, port: int, parts: int, rounds: int) -> None:
    """Rounds alternate, and the ratio is the median of the rounds' own, because the machine is shared."""
    size = parts * len(PART)
    runs = [(await tls_run(port, parts, PART, False), await link_run(link, parts, PART, False)) for _ in range(rounds)]
    ratio = statistics.median(tls[0] / mine[0] for tls, mine in runs)
    value = size / statistics.median(mine[0] for _, mine in runs) / 1e6
    name, bar = "raw asyncio TCP + TLS", ">= 0.6 of the reference"
    other = size / statistics.median(tls[0] for tls, _ in runs) / 1e6
    say("link_throughput", value, "MB/s", reference=(name, other), ratio=ratio, bar=bar, n=rounds)
    for side, index in (("sender", 1), ("receiver", 2)):
        mine_cpu = statistics.median(mine[index] for _, mine in runs) / size * 1e9
        tls_cpu = statistics.median(tls[index] for tls, _ in runs) / size * 1e9
        say(f"link_cpu_per_gb_{side}", mine_cpu, "s", reference=(name, tls_cpu), n=rounds)


async def measure_frames(link: DirectLink, port: int, frames: int, rounds: int) -> None:
    for pause_each, kind in ((False, "burst"), (True, "paced")):
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
                reference=("raw asyncio TCP + TLS", reference),
                bar="<= 15",
                n=rounds,
                note=note,
            )
        value = frames / statistics.median(link[0] for _, link in runs)
        reference = frames / statistics.median(tls[0] for tls, _ in runs)
        say(f"link_frames_{kind}", value, "1/s", reference=("raw asyncio TCP + TLS", reference), n=rounds, note=note)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    run: Callable[..., Any] = uvloop.run if arguments.loop == "uvloop" else asyncio.run
    if arguments.serve:
        run(serve(arguments.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_certificate(folder)
        with program("-m", __spec__.name, "--loop", arguments.loop, "--serve", folder) as other:
            run(compare(other.facts["endpoint"], other.facts["port"], arguments.quick))


if __name__ == "__main__":
    main()
