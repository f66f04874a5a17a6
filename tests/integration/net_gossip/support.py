"""Gossip hosts over loopback that are closed at the end, whatever happened, and leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from factories import key
from lading_net.gossip import MeshGossip

ANY_PORT = "/ip4/127.0.0.1/tcp/0"
TOPIC = "/lading/offers/1"


class Hosts:
    def __init__(self) -> None:
        self._made: list[MeshGossip] = []

    def make(self, name: str, *bootstrap: str, listen: str = ANY_PORT, **how: Any) -> MeshGossip:
        self._made.append(MeshGossip(key(name), listen, bootstrap, **how))
        return self._made[-1]

    async def up(self, name: str, *bootstrap: str, listen: str = ANY_PORT, **how: Any) -> MeshGossip:
        host = self.make(name, *bootstrap, listen=listen, **how)
        await host.start()
        return host

    async def close(self) -> None:
        await asyncio.gather(*(host.close() for host in self._made))


def play(scenario: Callable[[Hosts], Awaitable[None]], seconds: float = 40) -> None:
    async def main() -> None:
        hosts = Hosts()
        try:
            async with asyncio.timeout(seconds):
                await scenario(hosts)
        finally:
            await hosts.close()

    before = set(threading.enumerate())
    asyncio.run(main())
    assert set(threading.enumerate()) <= before


async def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110  # real sockets
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


async def heard(host: MeshGossip, speaker: MeshGossip, text: bytes, seconds: float = 20) -> None:
    """Publishes until it arrives: gossip may lose a message while the mesh still forms."""
    reader = host.subscribe(TOPIC)
    async with asyncio.timeout(seconds):
        while True:
            await speaker.publish(TOPIC, text)
            try:
                async with asyncio.timeout(0.3):
                    while await anext(reader) != text:
                        pass
                    return
            except TimeoutError:
                continue
