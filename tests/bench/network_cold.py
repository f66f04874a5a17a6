"""How many round trips a first answer takes from a peer never met: counted, over a line that is slow and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from lading_net.direct import DirectTransport
from lading_net.ports import Link, Stream
from lading_protocol.keys import PrivateKey

from .report import say

ONE_WAY = 0.1  # seconds: much more than this machine needs for anything in between


async def measure() -> None:
    server = DirectTransport(PrivateKey(b"d" * 32))
    server.handle("/echo/1", echo)
    endpoint = await server.listen("/ip4/127.0.0.1/tcp/0")
    port = int(endpoint.split("/")[4])
    line = await asyncio.start_server(lambda reader, writer: relay(reader, writer, port), "127.0.0.1", 0)
    slow = endpoint.replace(f"/tcp/{port}/", f"/tcp/{line.sockets[0].getsockname()[1]}/")
    note = "TCP's own included; {} a line of 200 ms there and back"
    once = await round_trips(slow, answer)
    say("link_cold_answer", once, "round trips", bar="<= 5", note=note.format("dial, request, answer over"))
    twice = await round_trips(slow, offers_and_answer)
    words = "dial, ask for offers, request, answer over"
    say("link_cold_offers_and_answer", twice, "round trips", bar="<= 5", note=note.format(words))
    line.close()
    await server.close()


async def answer(link: Link) -> None:
    stream = await link.open("/echo/1")
    stream.write(b"request")
    await stream.read()


async def offers_and_answer(link: Link) -> None:
    await answer(link)
    await answer(link)


async def round_trips(endpoint: str, conversation: Callable[[Link], Awaitable[None]]) -> int:
    client = DirectTransport(PrivateKey(b"e" * 32))
    start = time.perf_counter()
    await conversation(await client.dial(endpoint))
    spent = time.perf_counter() - start
    await client.close()
    # What both ends compute in between is no round trip. The line is reached at once, so TCP's own comes on top.
    return round(spent / (2 * ONE_WAY)) + 1


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    except OSError:
        pass


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        loop.call_later(ONE_WAY, writer.write, data)
    loop.call_later(ONE_WAY, writer.close)
