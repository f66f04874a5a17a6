"""Packages give way to jobs: on a slow line that a fetch fills, a small message still gets through soon."""

import asyncio
import os
import socket
import statistics
from pathlib import Path

from crates import package
from lading.blobs import BlobStore, fetch_package
from lading_net.direct import DirectTransport
from lading_net.ports import Stream
from lading_protocol.keys import PrivateKey
from quay import Peer

RATE = 4_000_000  # bytes a second


async def slow_line(port: int) -> asyncio.Server:
    """A line to `port` that carries so much back and holds little itself."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
        try:
            while data := await reader.read(16_384):
                writer.write(data)
                await writer.drain()
                if rate:
                    await asyncio.sleep(len(data) / rate)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = socket.socket()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        there.setblocking(False)
        await asyncio.get_running_loop().sock_connect(there, ("127.0.0.1", port))
        back, forth = await asyncio.open_connection(sock=there, limit=16_384)
        await asyncio.gather(pump(reader, forth, 0), pump(back, writer, RATE))

    return await asyncio.start_server(carry, "127.0.0.1", 0, limit=16_384)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


def test_a_message_does_not_wait_behind_a_package(tmp_path: Path) -> None:
    """Without the priority, and with a deep buffer in the kernel, it took 0.6 s and more."""
    source = BlobStore(tmp_path / "s")
    agent = package(source, {"w.bin": ("weights", os.urandom(24 << 20))})

    async def story() -> list[float]:
        here, there = (DirectTransport(PrivateKey(os.urandom(32))) for _ in range(2))
        there.handle("/echo/1", echo)
        endpoint = await Peer(there, source).listen()
        port = int(endpoint.split("/tcp/")[1].split("/")[0])
        line = await slow_line(port)
        link = await here.dial(endpoint.replace(f"/tcp/{port}/", f"/tcp/{line.sockets[0].getsockname()[1]}/"), None)
        stream, loop = await link.open("/echo/1"), asyncio.get_running_loop()
        fetching = asyncio.create_task(fetch_package(lambda: [link], agent, BlobStore(tmp_path / "t")))
        await asyncio.sleep(1.0)  # the line is full by now
        took = []
        for _ in range(15):
            began = loop.time()
            stream.write(b"a token")
            await stream.read()
            took.append(loop.time() - began)
        assert not fetching.done()
        fetching.cancel()
        await asyncio.wait([fetching])
        await here.close()
        await there.close()
        line.close()
        return took

    assert statistics.median(asyncio.run(story())) < 0.3
