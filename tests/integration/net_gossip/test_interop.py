"""py-libp2p's gossipsub and Kademlia speak with ours, whoever dials; js-libp2p's do in tests/integration/net_js."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("libp2p")

from factories import key
from integration.net_gossip.pygossip import PyGossip
from integration.net_gossip.support import TOPIC, Hosts, play, until
from lading_net.gossip import MeshGossip
from lading_net.peer import Endpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # the other implementation's own


@pytest.fixture
def other() -> Iterator[PyGossip]:
    host = PyGossip(key("python").secret, TOPIC)
    yield host
    host.close()


async def converse(other: PyGossip, near: MeshGossip, far: MeshGossip) -> None:
    """Both ways, and through a peer of ours that is not the one they are linked to."""
    readers = [each.subscribe(TOPIC) for each in (near, far)]
    await until(lambda: str(near.peer_id) in other.mesh(), "they are in each other's mesh")
    await asyncio.sleep(0.5)
    await asyncio.to_thread(other.publish, b"from python")
    async with asyncio.timeout(10):
        assert [await anext(reader) for reader in readers] == [b"from python"] * 2
    await far.publish(TOPIC, b"to python")
    assert await asyncio.to_thread(other.heard.get, True, 10) == b"to python"
    assert await anext(readers[0]) == b"to python"
    await asyncio.sleep(2)  # whatever either says to the other in its ticks
    for each in (near, far):
        assert each._transport.guard._scores.score(key("python").address, 0.0) == 0.0
    assert other.heard.empty()
    assert not readers[0]._waiting


def test_it_dials_us_gossips_and_finds_a_peer_by_kademlia(other: PyGossip) -> None:
    async def scenario(hosts: Hosts) -> None:
        near = await hosts.up("near")
        far = await hosts.up("far", near.address)
        await asyncio.to_thread(other.dial, near.address)
        await converse(other, near, far)
        place = Endpoint.parse(far.address)
        found = await asyncio.to_thread(other.find, str(far.peer_id))
        assert any(f"/tcp/{place.port}" in each for each in found)

    play(scenario)


def test_we_dial_it_and_find_others_through_it(other: PyGossip) -> None:
    async def scenario(hosts: Hosts) -> None:
        near = await hosts.up("near", other.endpoint)
        far = await hosts.up("far", other.endpoint)
        await until(lambda: far.peer_id.address in near.peers(), "they found each other through it")
        await converse(other, near, far)

    play(scenario)
