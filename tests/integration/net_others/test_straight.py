"""rust-libp2p and ours make a relayed link straight: real TCP calls from both ends at once, between two routers.

This tells whether both take the same end for the client, as nothing else does: who is wrong about it waits for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from factories import key
from integration.net_nat.aside import Relaying, Thread
from integration.net_nat.lab import Lab, Place, require_lab
from integration.net_others.rusthost import RustHost, befriend, rust_host, say
from integration.net_others.wheels import rust_module
from lading_net.direct import DirectTransport, Puncher
from lading_net.peer import Endpoint, PeerId
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

pytestmark = pytest.mark.timeout(90)
OURS, THEIRS = key("ours"), PrivateKey(b"7" * 32)
RUST_ADDRESS = PeerId.from_public_key(THEIRS.public_key).address
OUR_ROUTER, RUST_ROUTER = "203.0.113.10", "203.0.113.20"
SECONDS = 20.0


@pytest.fixture(scope="module")
def module() -> Path:
    return rust_module()


class Hub(Relaying):
    """It also says where it sees others."""

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(place, place.address, key(name), befriend)

    def port_of(self, peer: Address) -> int:
        """Where it sees the peer, whose router keeps ports; 0 where it does not."""
        link = self.transport.link_to(peer)
        return link.seen_at[1] if link is not None and link.seen_at is not None else 0


@contextmanager
def world() -> Iterator[tuple[list[Hub], Place, Place]]:
    """Where two hubs are, and two homes behind routers that keep ports: ours, and one for rust-libp2p."""
    require_lab()
    with Lab() as lab:
        hubs = [Hub(lab.public(name, f"203.0.113.{nth}", delay=0.005), name) for nth, name in ((1, "h1"), (2, "h2"))]
        try:
            ours = lab.home("ours", "restricted", OUR_ROUTER, delay=0.01)
            yield hubs, ours, lab.home("rust", "restricted", RUST_ROUTER, delay=0.02)
        finally:
            for hub in hubs:
                hub.close()


@asynccontextmanager
async def rust(module: Path, place: Place, hubs: list[Hub], *bootstrap: str) -> AsyncIterator[RustHost]:
    """lattica calls the relay at once, and every other time before it is known which port is for all calls: then it
    names one from which it does not call afterwards, and is started again."""
    homely = {"at": "0.0.0.0", "external_addrs": [], "with_dcutr": True}
    given = {"relay_servers": [hubs[-1].where], "bootstrap_nodes": list(bootstrap)}
    for _ in range(12):
        async with rust_host(module, THEIRS, *place.command(), **homely, **given) as host:  # type: ignore[arg-type]
            async with asyncio.timeout(SECONDS):
                while not any("add relay circuit address" in line for line in host.log):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            if Endpoint.parse(host.endpoint).port in [hub.port_of(RUST_ADDRESS) for hub in hubs]:
                yield host
                return
    raise AssertionError("it never called from the port where it listens")


async def straight(transport: DirectTransport) -> tuple[bool, str]:
    """Whether we are the client of the straight link to rust-libp2p, and where it comes from, once it carries data."""
    async with asyncio.timeout(SECONDS):
        while (link := transport.link_to(RUST_ADDRESS)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        data = bytes(100_000)
        assert await say(link, data) == data
    return link.dialled, link.seen_at[0] if link.seen_at is not None else ""


def test_we_called_it_over_the_relay(module: Path) -> None:
    with world() as (hubs, home, place):
        way = f"{hubs[0].where}/p2p-circuit/p2p/{PeerId.from_public_key(THEIRS.public_key)}"

        async def call() -> tuple[bool, str]:
            transport = DirectTransport(OURS)
            befriend(transport)
            Puncher(transport).open()
            await transport.dial(hubs[0].where)
            assert (await transport.dial(way)).relayed
            try:
                return await straight(transport)
            finally:
                await transport.close()

        async def story() -> tuple[bool, str]:
            async with rust(module, place, hubs[:1]):
                return await asyncio.to_thread(lambda: Thread(home, call).result())

        assert asyncio.run(story()) == (True, RUST_ROUTER)


def test_it_called_us_over_the_relay(module: Path) -> None:
    with world() as (hubs, home, place):
        ready, way = threading.Event(), [""]

        async def serve() -> tuple[bool, str]:
            transport = DirectTransport(OURS)
            befriend(transport)
            Puncher(transport).open()
            (way[0],) = (await transport.reserve(await transport.dial(hubs[0].where))).endpoints
            ready.set()
            try:
                return await straight(transport)
            finally:
                await transport.close()

        async def story() -> tuple[bool, str]:
            served = Thread(home, serve)
            assert await asyncio.to_thread(ready.wait, 10)
            async with rust(module, place, hubs, way[0]):
                return await asyncio.to_thread(served.result)

        assert asyncio.run(story()) == (False, RUST_ROUTER)
