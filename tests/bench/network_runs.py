"""Single runs of the network benchmark, over raw TLS and over a direct link: seconds, and CPU seconds of both sides."""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from lading_net.direct import DirectLink
from lading_net.messages import MessageStream

from .network_end import Token, decoder


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
    sending = MessageStream(stream, decoder)
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


async def median_us(times: int, action: Callable[[], Awaitable[object]]) -> float:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        await action()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * 1e6
