"""From a relayed link to a straight one, between two homes: where routers keep a port for all calls, and where not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from integration.net_nat.aside import Thread
from integration.net_nat.hub import Hub
from integration.net_nat.lab import Lab, Nat, require_lab
from lading_net.direct import DirectLink, DirectSettings, DirectTransport, Puncher
from lading_net.ports import Stream
from lading_net.private import NetworkKey
from lading_protocol.keys import PrivateKey

ONE, TWO = PrivateKey(b"1" * 32), PrivateKey(b"2" * 32)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


class Home:
    """A host that is reached by relay only; `way` leads to it once `ready`."""

    def __init__(self, hub: Hub, network: NetworkKey | None) -> None:
        self._hub, self._network = hub, network
        self.ready = threading.Event()
        self.done = threading.Event()
        self.way = ""

    async def run(self) -> None:
        transport = DirectTransport(TWO, DirectSettings(network=self._network))
        transport.handle("/echo/1", echo)
        Puncher(transport).open()
        link = await transport.dial(self._hub.endpoint)
        (self.way,) = (await transport.reserve(link)).endpoints
        self.ready.set()
        await asyncio.to_thread(self.done.wait)
        await transport.close()


async def call(hub: Hub, way: str, network: NetworkKey | None) -> tuple[bool, bool, float]:
    """Whether the link was relayed at first and in the end, and how long it took to get straight."""
    transport = DirectTransport(ONE, DirectSettings(network=network))
    Puncher(transport).open()
    await transport.dial(hub.endpoint)
    first = await transport.dial(way)
    running = await first.open("/echo/1")
    began = asyncio.get_running_loop().time()
    for _ in range(30):
        running.write(b"on and on")
        assert await running.read() == b"on and on"
        if transport.link_to(first.peer) is not None:
            break
        await asyncio.sleep(0.1)
    took = asyncio.get_running_loop().time() - began
    best = await transport.dial(way)
    stream = await best.open("/echo/1")
    stream.write(b"hello")
    assert await stream.read() == b"hello"
    running.write(b"still here")
    assert await running.read() == b"still here"
    assert isinstance(best, DirectLink)
    await transport.close()
    return first.relayed, best.relayed, took


@pytest.mark.parametrize(
    ("one", "other", "straight", "network"),
    [
        ("restricted", "restricted", True, None),
        ("restricted", "restricted", True, NetworkKey(bytes(range(32)))),
        ("full cone", "restricted", True, None),
        ("symmetric", "symmetric", False, None),
    ],
    ids=["kept ports", "kept ports, private network", "full cone", "new ports"],
)
def test_two_homes(one: Nat, other: Nat, straight: bool, network: NetworkKey | None) -> None:
    require_lab()
    with Lab() as lab:
        hub = Hub(lab.public("hub", "203.0.113.1", delay=0.005), network=network)
        home = Home(hub, network)
        host = Thread(lab.home("host", other, "203.0.113.10", delay=0.01), home.run)
        try:
            assert home.ready.wait(10)
            place = lab.home("caller", one, "203.0.113.20", delay=0.02)
            first, last, took = Thread(place, lambda: call(hub, home.way, network)).result()
            assert first is True
            assert last is not straight
            assert not straight or took < 3
        finally:
            home.done.set()
            host.result()
            hub.close()
