"""Transports over loopback for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from lading_net.direct import DirectSettings, DirectTransport
from lading_net.ports import Link, Stream
from lading_protocol.keys import PrivateKey

ONE, TWO, THREE = PrivateKey(b"1" * 32), PrivateKey(b"2" * 32), PrivateKey(b"3" * 32)
ANY_PORT = "/ip4/127.0.0.1/tcp/0"
HASTY = DirectSettings(dial_timeout=0.3, handshake_timeout=0.3)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


class Net:
    """Transports that are closed at the end, whatever happened; then no task may be left."""

    def __init__(self) -> None:
        self._made: list[DirectTransport] = []

    def transport(self, key: PrivateKey, settings: DirectSettings | None = None) -> DirectTransport:
        made = DirectTransport(key, settings)
        made.handle("/echo/1", echo)
        self._made.append(made)
        return made

    async def pair(self, settings: DirectSettings | None = None) -> tuple[DirectTransport, DirectTransport, str]:
        """A dialler, a listener, and where it listens."""
        one, two = self.transport(ONE, settings), self.transport(TWO, settings)
        return one, two, await two.listen(ANY_PORT)

    async def close(self) -> None:
        for made in self._made:
            await made.close()


def play(scenario: Callable[[Net], Awaitable[None]], loop: str = "asyncio", seconds: float = 30) -> None:
    async def main() -> None:
        net = Net()
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        try:
            async with asyncio.timeout(seconds):
                await scenario(net)
        finally:
            await net.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # a test's own plain server takes a moment to see that its client left
            assert not (await asyncio.wait(others, timeout=2))[1]
        assert failures == []

    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def ask(link: Link, data: bytes) -> bytes:
    """What the other end echoes, written and read at the same time."""
    stream = await link.open("/echo/1")

    async def write() -> None:
        for at in range(0, len(data), 50_000):
            stream.write(data[at : at + 50_000])
            await stream.drain()
        await stream.close()

    writing = asyncio.ensure_future(write())
    got = await read_all(stream)
    await writing
    return got
