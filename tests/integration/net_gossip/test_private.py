"""The gossip network among the members of a private one: they find and hear each other, nobody else sees anything."""

from __future__ import annotations

import asyncio

from factories import key
from integration.net_gossip.support import ANY_PORT, Hosts, heard, play, until
from lading_net.direct.multistream import proposal
from lading_net.gossip import MeshGossip
from lading_net.private import NetworkKey

KEY = NetworkKey(bytes(range(32)))


async def said_to(where: str, probe: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(where.split("/")[4]))
    try:
        writer.write(probe)
        return await asyncio.wait_for(reader.read(100), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_members_hear_each_other_and_outsiders_get_no_byte() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("one", network=KEY)
        others = [await hosts.up(name, first.address, network=KEY) for name in ("two", "three")]
        await until(lambda: all(len(host.peers()) == 2 for host in (first, *others)), "the members are connected")
        await heard(others[1], others[0], b"among us")
        stranger = await hosts.up("four", first.address)
        probes = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", proposal("/noise"), bytes(100)]
        assert await asyncio.gather(*(said_to(first.address, probe) for probe in probes)) == [b""] * len(probes)
        await asyncio.sleep(1)
        assert stranger.peers() == []
        assert key("four").address not in first.peers()
        await heard(first, others[1], b"still among us")

    play(scenario)


def test_the_key_is_in_nothing_that_a_log_may_show() -> None:
    gossip = MeshGossip(key("one"), ANY_PORT, network=KEY)
    assert KEY.text().split()[-1] not in repr(vars(gossip))
