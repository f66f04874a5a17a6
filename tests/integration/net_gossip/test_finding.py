"""Peers that know one address find a network, and anybody finds any of them by its id."""

from __future__ import annotations

import asyncio

from factories import key
from integration.net_gossip.support import TOPIC, Hosts, play, until
from lading_net.core.kademlia import Contact, spot
from lading_net.direct import DirectTransport
from lading_net.gossip.asking import nearest_of
from lading_net.peer import Endpoint, PeerId

HOSTS, ENOUGH, TURNS = 30, 8, 12


async def find(stranger: DirectTransport, start: Contact, wanted: PeerId) -> Contact | None:
    """As any Kademlia client looks for a peer: asks the nearest that it has heard of, again and again."""
    known, asked = {start.peer: start}, set[PeerId]()
    for _ in range(TURNS):
        nearest = min((peer for peer in known if peer not in asked), key=lambda peer: spot(peer.raw) ^ spot(wanted.raw))
        asked.add(nearest)
        link = await stranger.dial(known[nearest].texts[0], nearest.address)
        known |= {one.peer: one for one in await nearest_of(link, wanted.raw)}
        if wanted in known:
            return known[wanted]
    return None


def test_all_come_together_and_each_is_found_from_another_that_is_not_the_first() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        others = [await hosts.up(f"host {number}", first.address) for number in range(1, HOSTS)]
        await until(lambda: min(len(one.peers()) for one in others) >= ENOUGH, "each has neighbours enough")
        readers = [one.subscribe(TOPIC) for one in others]
        await asyncio.sleep(1.5)
        await others[3].publish(TOPIC, b"news")
        async with asyncio.timeout(2):
            assert [await anext(reader) for reader in (*readers[:3], *readers[4:])] == [b"news"] * (HOSTS - 2)
        stranger = DirectTransport(key("stranger"))
        try:
            for number, one in enumerate(others):
                start = others[(number + HOSTS // 2) % len(others)]
                place = Endpoint.parse(start.address)
                found = await find(
                    stranger, Contact(start.peer_id, (Endpoint("ip4", place.host, place.port),)), one.peer_id
                )
                assert found is not None, f"host {number + 1} is not found"
                assert found.texts == (one.address,)
        finally:
            await stranger.close()

    play(scenario)
