"""A connection breaks under a running answer, on real links: the job goes on, and the host comes back by itself."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import uvloop

from lading_net.direct import DirectSettings, DirectTransport
from lading_net.memory import MemoryNetwork
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey
from simulation.node_world import Gateway, Sea

ANY_PORT = "/ip4/127.0.0.1/tcp/0"


class Wharf:
    """What a Sea asks of its network, over sockets."""

    def __init__(self) -> None:
        self.transports: dict[Address, DirectTransport] = {}

    def transport(self, who: PrivateKey) -> DirectTransport:
        return self.transports.setdefault(who.address, DirectTransport(who, DirectSettings(keepalive=0.5)))

    def gossip(self, who: PrivateKey) -> None:
        return None

    def cut(self, one: Address, other: Address) -> None:
        """The connections between the two are gone, as when a router forgets them; neither end is told in words."""
        for link in self.transports[one]._links.get(other, []):
            link._pipe.abort()


class Shore(Sea):
    now = staticmethod(time.time)


async def voyage() -> None:
    wharf = Wharf()
    sea = cast(Shore, await Shore.create(block_time=0.0))
    sea.network = cast(MemoryNetwork, wharf)
    gateway = Gateway(sea)
    await sea.fund(gateway.key)
    endpoint = await gateway.start(ANY_PORT)
    habits = {"coordinators": (endpoint,), "listen": (ANY_PORT,), "redeem_at_stop": False, "drain": 0.5}
    nodes = [sea.node(name, token_delay=0.02, **habits) for name in ("amber", "birch")]  # type: ignore[arg-type]
    running = [asyncio.create_task(node.run()) for node in nodes]
    try:
        await asyncio.wait_for(gateway.offers(2), 20)
        whole = await gateway.ask()
        assert len(whole[1]) > 10
        answering = asyncio.create_task(gateway.ask())
        while not gateway.dispatcher.reserved:  # noqa: ASYNC110  # until the job is under way
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.15)
        (busy,) = [node for node in nodes if node.desk.running]
        wharf.cut(gateway.key.address, busy.address)
        assert await asyncio.wait_for(answering, 20) == whole
        await asyncio.sleep(0.1)  # an account is told of when it is signed for
        parts = gateway.ended[-1].parts
        assert [part.host for part in parts] == [busy.address, *(node.address for node in nodes if node is not busy)]
        assert sum(part.tokens for part in parts) == len(whole[1])
        await asyncio.wait_for(gateway.offers(2), 20)  # it dialled again, and beats
        assert {link.peer for link in gateway.transport.links()} == {node.address for node in nodes}
    finally:
        for node in nodes:
            node.stop()
        await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 20)
        await gateway.dispatcher.close()
        await gateway.transport.close()


def test_a_connection_that_breaks_under_an_answer_costs_no_token() -> None:
    uvloop.run(voyage())
