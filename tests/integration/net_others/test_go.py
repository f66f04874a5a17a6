"""go-libp2p, as hivemind has it, does business of all kinds with ours: links, jobs, gossip, Kademlia, relays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from factories import key
from integration.net_direct.support import ANY_PORT, ONE, TWO, Net, echo, play
from integration.net_gossip.support import TOPIC, Hosts, until
from integration.net_js.pier import Pier, Wharf
from integration.net_others.godaemon import GoDaemon, go_peer
from integration.net_others.wheels import go_daemon
from lading_net.core.providers import provider_key
from lading_net.direct import DirectLink, Relay
from lading_net.direct.greeting import introduced
from lading_net.direct.manners import PING
from lading_net.errors import UnknownProtocol
from lading_net.memory import MemoryNetwork
from lading_net.peer import Endpoint
from lading_net.ports import Link
from lading_net.subscription import Subscription
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import Finish
from simulation.node_world import AGENT, Gateway

THEIRS = PrivateKey(b"7" * 32)
LARGE = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def program() -> Path:
    return go_daemon()


async def ask(link: Link, data: bytes) -> bytes:
    """What the other end echoes. The daemon ends both sides of a stream with either, so that ours stays open."""
    stream = await link.open("/echo/1")

    async def write() -> None:
        for at in range(0, len(data), 50_000):
            stream.write(data[at : at + 50_000])
            await stream.drain()

    writing = asyncio.ensure_future(write())
    got = bytearray()
    while len(got) < len(data) and (more := await stream.read()):
        got += more
    await writing
    stream.reset()
    return bytes(got)


def test_we_dial_and_either_end_opens_streams(program: Path) -> None:
    async def scenario(net: Net) -> None:
        async with go_peer(program, THEIRS) as theirs:
            theirs.handle("/echo/1", echo)
            where = await theirs.listen("")
            mine = net.transport(ONE)
            link = await mine.dial(where, THEIRS.address)
            told = await introduced(link)
            assert {"/echo/1", "/ipfs/id/1.0.0", PING, "/libp2p/circuit/relay/0.2.0/hop"} <= told.protocols
            ping = await link.open(PING)
            ping.write(bytes(range(32)))
            assert await ping.read() == bytes(range(32))
            ping.reset()
            assert await ask(link, LARGE) == LARGE
            back = await theirs.dial(str(Endpoint("ip4", "127.0.0.1", 1, mine.peer_id)))  # the link that there is
            assert await ask(back, LARGE) == LARGE
            stream = await link.open("/lading/nothing/1")
            with pytest.raises(UnknownProtocol):
                await stream.read()

    play(scenario, "uvloop")


def test_it_dials_us_and_either_end_opens_streams(program: Path) -> None:
    async def scenario(net: Net) -> None:
        async with go_peer(program, THEIRS) as theirs:
            theirs.handle("/echo/1", echo)
            await theirs.listen("")
            mine = net.transport(TWO)
            arrived: asyncio.Queue[Link] = asyncio.Queue()
            mine.on_link(arrived.put_nowait)
            link = await theirs.dial(await mine.listen(ANY_PORT))
            ping = await link.open(PING)
            ping.write(bytes(range(32)))
            assert await ping.read() == bytes(range(32))
            assert await ask(link, LARGE) == LARGE
            with pytest.raises(UnknownProtocol):
                await link.open("/lading/nothing/1")
            back = await arrived.get()
            assert back.peer == THEIRS.address
            assert await ask(back, LARGE) == LARGE
            many = [await back.open("/echo/1") for _ in range(300)]
            for number, stream in enumerate(many):
                stream.write(b"%d" % number)
            assert [await stream.read() for stream in many] == [b"%d" % number for number in range(300)]

    play(scenario)


def test_jobs_of_a_coordinator_that_speaks_by_go_libp2p(program: Path) -> None:
    """Our node dials it and sends heartbeats; its jobs run over the link that the node dialled."""

    async def story() -> None:
        wharf = Wharf(None)
        sea = await Pier.create(block_time=0.0)
        sea.network = cast(MemoryNetwork, wharf)
        await sea.fund(key("gateway"))
        async with go_peer(program, key("gateway")) as theirs:
            gateway = Gateway(sea, transport=theirs)
            where = await gateway.start("")
            node = sea.node("amber", coordinators=(where,), listen=(ANY_PORT,), token_delay=0.001, chain_poll=0.2)
            running = asyncio.create_task(node.run())
            try:
                async with asyncio.timeout(20):
                    await gateway.offers(1)
                    answers = await asyncio.gather(*(gateway.ask() for _ in range(4)))
                assert all(len(ids) > 32 for _, ids in answers)
                assert Finish.RUNNING not in {ended.finish for ended in gateway.ended}
                node.stop()
                await asyncio.wait_for(running, 20)  # it collects its last vouchers, over SETTLE
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await wharf.close()

    asyncio.run(story())


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_relay(program: Path, whose: str) -> None:
    async def scenario(net: Net) -> None:
        async with go_peer(program, THEIRS) as theirs:
            theirs.handle("/echo/1", echo)
            where = await theirs.listen("")
            host = net.transport(ONE)
            if whose == "theirs":  # from a host of ours to a client of ours
                (way,) = (await host.reserve(await host.dial(where))).endpoints
                link: Link = await net.transport(TWO).dial(way)
            else:  # from a host of ours to go-libp2p
                middle = net.transport(key("middle"))
                at = await middle.listen(ANY_PORT)
                Relay(middle, lambda: (at,), time.time).open()
                (way,) = (await host.reserve(await host.dial(at))).endpoints
                link = await theirs.dial(way)
            assert await ask(link, LARGE[:100_000]) == LARGE[:100_000]  # its relay passes on 128 KiB each way
            assert any(isinstance(one, DirectLink) and one.relayed for one in host.links())

    play(scenario)


def in_gossip(program: Path, talk: Callable[[Hosts, GoDaemon], Awaitable[None]]) -> None:
    async def main() -> None:
        hosts = Hosts()
        options = ("-dhtServer", "-pubsub", "-gossipsubHeartbeatInitialDelay", "100ms")
        try:
            async with asyncio.timeout(40), go_peer(program, THEIRS, *options) as theirs:
                await talk(hosts, theirs)
        finally:
            await hosts.close()

    asyncio.run(main())


async def publish(theirs: GoDaemon, data: bytes, readers: list[Subscription]) -> None:
    """Until all have it: it may not have heard yet who listens."""
    heard = asyncio.gather(*(until_heard(reader, data) for reader in readers))
    while not heard.done():
        await theirs.publish(TOPIC, data)
        await asyncio.wait([heard], timeout=0.5)


async def until_heard(reader: Subscription, data: bytes) -> None:
    while await anext(reader) != data:
        pass


def test_gossip_and_kademlia_when_it_dials_us(program: Path) -> None:
    async def talk(hosts: Hosts, theirs: GoDaemon) -> None:
        near = await hosts.up("near")
        far = await hosts.up("far", near.address)
        await until(lambda: far.peer_id.address in near.peers(), "they are neighbours")
        await theirs.listen("")
        said = await theirs.subscribe(TOPIC)
        await theirs.dial(near.address)
        readers = [each.subscribe(TOPIC) for each in (near, far)]
        await until(lambda: THEIRS.address in near._mesh.topics[TOPIC], "it is in our mesh")
        await publish(theirs, b"from go", readers)
        await far.publish(TOPIC, b"to go")
        while await anext(said) != b"to go":  # it hears itself, too
            pass
        assert near._transport.guard._scores.score(THEIRS.address, 0.0) == 0.0
        found = await theirs.find_peer(far.peer_id)
        assert Endpoint.parse(far.address).port in [one.port for one in found]
        far.provide([AGENT], ["/ip4/203.0.113.5/tcp/4101"])
        async with asyncio.timeout(10):
            while not (providers := await theirs.find_providers(provider_key(AGENT), 1)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert providers[0][0] == far.peer_id.raw

    in_gossip(program, talk)


def test_gossip_and_kademlia_when_we_dial_it(program: Path) -> None:
    async def talk(hosts: Hosts, theirs: GoDaemon) -> None:
        where = await theirs.listen("")
        said = await theirs.subscribe(TOPIC)
        near = await hosts.up("near", where)
        far = await hosts.up("far", where)
        await until(lambda: far.peer_id.address in near.peers(), "they found each other through it")
        readers = [each.subscribe(TOPIC) for each in (near, far)]
        await until(lambda: THEIRS.address in near._mesh.topics[TOPIC], "it is in our mesh")
        await far.publish(TOPIC, b"to go")
        assert await anext(said) == await anext(readers[0]) == b"to go"
        await publish(theirs, b"from go", readers)
        await theirs.provide(provider_key(AgentId(b"a" * 32)))
        assert near._transport.guard._scores.score(THEIRS.address, 0.0) == 0.0
        await until(lambda: len(near._providers) > 0, "it told us what it provides")

    in_gossip(program, talk)
