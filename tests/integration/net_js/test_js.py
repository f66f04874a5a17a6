"""js-libp2p, with a client written from docs/protocol.md, does business with a real node: another implementation of all
that is below, and another hand for all that is above.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from factories import key
from integration.net_direct.support import ONE, Net, play, read_all
from integration.net_js.pier import PAYER, converse, js_peer, node_program, pier
from lading_net.direct import DirectSettings
from lading_net.peer import PeerId
from lading_net.ports import Stream
from lading_net.private import NetworkKey
from lading_node.node import Node

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]  # the other implementation's own


@pytest.fixture(scope="module")
def program() -> str:
    return node_program()


def peer_id(name: str) -> str:
    return str(PeerId.from_public_key(key(name).public_key))


def check(said: dict[str, Any], node: Node) -> None:
    met = said["identified"]
    assert met["peer"] == peer_id("amber")
    assert met["agentVersion"] == "lading"
    assert {"/lading/job/1", "/lading/offers/1", "/ipfs/ping/1.0.0"} <= set(met["protocols"])
    assert met["observed"].startswith("/ip4/127.0.0.1/tcp/")
    assert said["pinged"]["ms"] >= 0
    assert said["offer"]["name"] == "toy"
    answer = said["answered"]
    assert 32 < len(answer["ids"]) <= 70
    assert answer["text"]
    assert answer["chunks"] == len(answer["ids"]) // 32 + 1
    (channel,) = node.channels.all()
    assert channel.id.signer == PAYER.address
    assert channel.earned == channel.signed == int(answer["paid"])
    assert said["heard"] == {"host": key("amber").address.hex(), "topic": "/lading/offers/1"}
    assert said["found"]["peer"] == peer_id("cedar")
    assert said["found"]["at"].startswith("/ip4/127.0.0.1/tcp/")


networks = pytest.mark.parametrize("network", [None, NetworkKey(bytes(range(32)))], ids=["public", "private"])


@networks
def test_it_joins_finds_hears_asks_and_pays(program: str, network: NetworkKey | None) -> None:
    async def story() -> None:
        async with pier(network, "amber", "birch", "cedar") as (node, sea, wharf):
            check(await converse(node, sea, wharf, program), node)

    asyncio.run(story())


@networks
def test_it_listens_and_we_dial(program: str, network: NetworkKey | None) -> None:
    """Much data both ways, and a stream back over the link that we dialled."""
    data = os.urandom(3_000_000)

    async def scenario(net: Net) -> None:
        mine = net.transport(ONE, DirectSettings(network=network))

        async def greet(stream: Stream) -> None:
            stream.write(b"hello from below")

        mine.handle("/greet/1", greet)
        link = await mine.dial(where, key("javascript").address)
        for protocol, said, answer in (("/echo/1", data, data), ("/ask/1", b"/greet/1", b"hello from below")):
            stream = await link.open(protocol)
            reading = asyncio.ensure_future(read_all(stream))
            for at in range(0, len(said), 60_000):
                stream.write(said[at : at + 60_000])
                await stream.drain()
            await stream.close()
            assert await reading == answer

    given = {"secret": key("javascript").secret.hex(), "network_key": network.text() if network is not None else ""}
    with js_peer(program, "server.mjs", given) as (where, _):
        play(scenario, "uvloop")
