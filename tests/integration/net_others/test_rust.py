"""rust-libp2p, as lattica has it, and ours: links, service calls, gossip, Kademlia, and our relay."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from factories import key
from integration.net_direct.support import ANY_PORT, ONE, TWO, Net, play
from integration.net_gossip.support import Hosts, until
from integration.net_others.rusthost import CALLS, TOPIC, befriend, packed, rust_host, say
from integration.net_others.wheels import rust_module
from lading_net.core.kademlia import KAD, Contact
from lading_net.direct import DirectLink, Relay
from lading_net.direct.greeting import introduced
from lading_net.direct.manners import PING
from lading_net.gossip import MeshGossip
from lading_net.gossip.asking import provide_at
from lading_net.peer import Endpoint
from lading_net.ports import Link
from lading_protocol.keys import PrivateKey

THEIRS = PrivateKey(b"7" * 32)
LARGE = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def module() -> Path:
    return rust_module()


async def ping(link: Link) -> None:
    stream = await link.open(PING)
    stream.write(bytes(range(32)))
    assert await stream.read() == bytes(range(32))
    stream.reset()


def test_we_dial_and_either_end_opens_streams(module: Path) -> None:
    async def scenario(net: Net) -> None:
        async with rust_host(module, THEIRS) as theirs:
            mine = net.transport(ONE)
            befriend(mine)
            link = await mine.dial(theirs.endpoint, THEIRS.address)
            assert {CALLS, KAD, PING} <= (await introduced(link)).protocols
            await ping(link)
            assert await say(link, LARGE) == LARGE
            assert await theirs.tell("say", str(mine.peer_id), len(LARGE))
            while not (about := await theirs.tell("info", str(mine.peer_id)))["protocols"]:  # noqa: ASYNC110  # it asks in its time
                await asyncio.sleep(0.05)
            assert {CALLS, PING, "/echo/1"} <= set(about["protocols"])
            answers = await asyncio.gather(*(say(link, b"%d" % number) for number in range(200)))
            assert answers == [b"%d" % number for number in range(200)]

    play(scenario, "uvloop")


def test_it_dials_us_and_either_end_opens_streams(module: Path) -> None:
    async def scenario(net: Net) -> None:
        mine = net.transport(TWO)
        befriend(mine)
        arrived: asyncio.Queue[Link] = asyncio.Queue()
        mine.on_link(arrived.put_nowait)
        where = await mine.listen(ANY_PORT)
        async with rust_host(module, THEIRS, bootstrap_nodes=[where]) as theirs:
            link = await arrived.get()
            assert link.peer == THEIRS.address
            await ping(link)
            assert await theirs.tell("say", str(mine.peer_id), len(LARGE))
            assert await say(link, LARGE) == LARGE
            await asyncio.sleep(0.5)  # whatever else it has to say
            assert not link.closed.is_set()

    play(scenario)


def test_it_is_called_and_calls_through_our_relays(module: Path) -> None:
    """Two, as a reservation with one that it is dialling already fails."""

    async def scenario(net: Net) -> None:
        mine, host = net.transport(ONE), net.transport(TWO)
        relays = []
        for name in ("one", "another"):
            middle = net.transport(key(name))
            relays.append(await middle.listen(ANY_PORT))
            Relay(middle, lambda at=relays[-1]: (at,), time.time).open()  # type: ignore[misc]
            befriend(middle)
        befriend(mine)
        befriend(host)
        (way,) = (await host.reserve(await host.dial(relays[0]))).endpoints
        async with rust_host(module, THEIRS, relay_servers=relays[1:], bootstrap_nodes=[way]) as theirs:
            await until(lambda: any("add relay circuit address" in line for line in theirs.log), "it has its place")
            await until(lambda: bool(host.links(THEIRS.address)), "it called through the relay")
            called = await mine.dial(f"{relays[1]}/p2p-circuit/p2p/{theirs.peer_id}")
            for link in (called, *host.links(THEIRS.address)):
                assert isinstance(link, DirectLink)
                assert link.relayed
                assert await say(link, LARGE) == LARGE

    play(scenario)


def friendly(host: MeshGossip) -> MeshGossip:
    befriend(host._transport, at=host.address)
    return host


def test_gossip_and_kademlia(module: Path) -> None:
    async def main() -> None:
        hosts = Hosts()
        try:
            near = friendly(await hosts.up("near"))
            far = friendly(await hosts.up("far", near.address))
            Relay(near._transport, lambda: (near.address,), time.time).open()
            heard = [each.subscribe(TOPIC) for each in (near, far)]
            async with (
                asyncio.timeout(40),
                rust_host(module, THEIRS, bootstrap_nodes=[far.address], relay_servers=[near.address]) as theirs,
            ):
                # What it says: by which way it can be called, once a relay has taken it.
                way = f"{near.address}/p2p-circuit/p2p/{theirs.peer_id}"
                assert [await anext(reader) for reader in heard] == [packed(way.encode()) + packed(KAD.encode())] * 2
                # What it hears; it knows no mesh, and from whom it is not linked to not everything comes.
                stranger = friendly(await hosts.up("stranger", near.address))
                words = f'source: Some(PeerId("{stranger.peer_id}"))'
                async with asyncio.timeout(10):
                    while not any(words in line for line in theirs.log):
                        await stranger.publish(TOPIC, packed(b"/ip4/203.0.113.5/tcp/4101") + packed(KAD.encode()))
                        await asyncio.sleep(0.2)
                assert near._transport.guard._scores.score(THEIRS.address, 0.0) == 0.0
                # Who provides what: it asks ours, and tells ours.
                for one, other in ((near, far), (far, near)):
                    link = one._transport.link_to(other.peer_id.address)
                    assert isinstance(link, DirectLink)
                    await provide_at(link, b"ours", Contact(one.peer_id, (Endpoint.parse("/ip4/127.0.0.1/tcp/9"),)))
                await until(lambda: len(near._providers) == len(far._providers) == 1, "our hosts know of each other")
                names = {str(near.peer_id), str(far.peer_id)}
                async with asyncio.timeout(10):
                    while not names & set(await theirs.tell("get_providers", "ours")):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                await theirs.tell("start_providing", "theirs")
                await until(lambda: bool(near._providers.of(b"theirs", near._now())), "it says what it provides")
        finally:
            await hosts.close()

    asyncio.run(main())
