"""The programs that packages_freight compares: who gives a file, who takes it, each a process of its own on loopback.

`python -m tests.bench.packages_carriers WAY ...`: `lading STORE`, `tcp FILE` and `http FILE` give; `take FOLDER` hears
one errand a line and says what it cost.
"""

import asyncio
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from lading.blobs import BlobStore, fetch_package, serve_blobs
from lading_net.direct import DirectTransport
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import BLOB

from .processes import say_ready

PIECE = 256 * 1024


async def give_lading(folder: str) -> None:
    transport = DirectTransport(PrivateKey(os.urandom(32)))
    transport.handle(BLOB, serve_blobs(BlobStore(Path(folder))))
    say_ready({"endpoint": await transport.listen("/ip4/127.0.0.1/tcp/0")})
    await _until_told()


async def give_tcp(path: str) -> None:
    opened = Path(path).open

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with opened("rb") as file:
            while data := file.read(PIECE):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    say_ready({"port": server.sockets[0].getsockname()[1]})
    await _until_told()


async def give_http(path: str) -> None:
    from aiohttp import web

    async def send(request: web.Request) -> web.FileResponse:
        return web.FileResponse(path, chunk_size=PIECE)

    application = web.Application()
    application.router.add_get("/", send)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say_ready({"port": runner.addresses[0][1]})
    await _until_told()


async def _until_told() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def take(folder: str) -> None:
    """Errands: ["lading", agent, endpoints], ["tcp", port], ["http", port]. Answers seconds and CPU seconds."""
    say_ready({})
    loop, target = asyncio.get_running_loop(), Path(folder)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        way, *rest = json.loads(line)
        say_ready(await _errand(way, rest, target))


async def _errand(way: str, rest: Sequence[Any], target: Path) -> dict[str, float]:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    wall, busy = time.perf_counter(), _cpu()
    if way == "lading":
        took = await _take_lading(rest[0], rest[1], target)
    else:
        took = await {"tcp": _take_tcp, "http": _take_http}[way](rest[0], target / "file")
    wall = took or time.perf_counter() - wall
    busy = _cpu() - busy
    shutil.rmtree(target)
    return {"seconds": wall, "cpu": busy}


async def _take_lading(agent: str, endpoints: list[str], target: Path) -> float:
    """Seconds without dialling: a node has its links before it wants a package."""
    transport = DirectTransport(PrivateKey(os.urandom(32)))
    links = [await transport.dial(endpoint) for endpoint in endpoints]
    began = time.perf_counter()
    await fetch_package(lambda: links, AgentId(bytes.fromhex(agent)), BlobStore(target))
    took = time.perf_counter() - began
    await transport.close()
    return took


async def _take_tcp(port: int, path: Path) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    with path.open("wb") as file:
        while data := await reader.read(PIECE):
            file.write(data)
    took = time.perf_counter() - began
    writer.close()
    return took


async def _take_http(port: int, path: Path) -> float:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        began, seen = time.perf_counter(), hashlib.sha256()
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            with path.open("wb") as file:
                async for data in answer.content.iter_chunked(PIECE):
                    seen.update(data)
                    file.write(data)
        seen.hexdigest()
        return time.perf_counter() - began


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    uvloop.run({"lading": give_lading, "tcp": give_tcp, "http": give_http, "take": take}[sys.argv[1]](sys.argv[2]))
