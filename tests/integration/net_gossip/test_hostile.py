"""Neighbours that mean harm, over real streams: they lose their link, cost little memory, and silence nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import msgspec

from factories import key
from integration.net_gossip.support import TOPIC, Hosts, heard, play, until
from lading_net.core.kademlia import FIND_NODE, KAD, PUT_VALUE, Question, encode_question
from lading_net.core.rpc import LONGEST_RPC, MESHSUB, TOLERATED_RPC, Rpc, encode_rpc, sign
from lading_net.direct import DirectLink, DirectStream, DirectTransport
from lading_net.errors import NetError
from lading_net.gossip import MeshGossip
from lading_net.gossip.host import MOST_ANSWERS
from lading_net.gossip.voices import MOST_QUEUED
from lading_net.protobuf import encode_number
from lading_net.subscription import MAX_GOSSIP_BYTES

VANDAL = key("vandal")


@contextlib.asynccontextmanager
async def vandal(at: MeshGossip, name: str = "vandal") -> AsyncIterator[tuple[DirectTransport, DirectLink]]:
    transport = DirectTransport(key(name))
    try:
        yield transport, await transport.dial(at.address)
    finally:
        await transport.close()


async def pair(hosts: Hosts) -> tuple[MeshGossip, MeshGossip]:
    one = await hosts.up("one")
    two = await hosts.up("two", one.address)
    await heard(one, two, b"before")
    return one, two


async def answers(stream: DirectStream) -> bytes:
    """What comes until the stream ends, however it does."""
    got = b""
    with contextlib.suppress(NetError):
        async with asyncio.timeout(5):
            while data := await stream.read():
                got += data
    return got


def test_who_breaks_the_protocol_loses_its_link_and_is_not_let_in_for_long() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        junk = encode_number(TOLERATED_RPC + 1), b"\x02\xff\xff", encode_rpc(Rpc(joined=("/a",)))[:-1] + b"\xff"
        for data in junk[:2]:
            async with vandal(one) as (_, link):
                stream = await link.open(MESHSUB)
                stream.write(data)
                await answers(stream)
        async with vandal(one) as (_, link):
            async with asyncio.timeout(5):
                await link.closed.wait()
        assert VANDAL.address not in one.peers()
        await heard(one, two, b"after")

    play(scenario)


def test_forgeries_bar_whoever_brings_them() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        reader = one.subscribe(TOPIC)
        async with vandal(one) as (_, link):
            stream = await link.open(MESHSUB)
            for number in range(5):
                true = sign(key("two"), TOPIC, b"true", number.to_bytes(8, "big"))
                stream.write(encode_rpc(Rpc(messages=(msgspec.structs.replace(true, data=b"false"),))))
            async with asyncio.timeout(5):
                await link.closed.wait()
        await heard(one, two, b"after")
        assert b"false" not in list(reader._waiting)

    play(scenario)


def test_floods_of_control_cost_the_flooder_its_link_and_nobody_else_anything() -> None:
    """Lists of what is not there, grafts, wishes, topics, all at once; then what an honest peer needs to be heard."""

    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        async with vandal(one) as (_, link):
            stream = await link.open(MESHSUB)
            stream.write(encode_rpc(Rpc(joined=(TOPIC,))))

            async def flood() -> None:
                with contextlib.suppress(NetError):
                    while True:
                        names = tuple(os.urandom(47) for _ in range(200))
                        stream.write(encode_rpc(Rpc(have=((TOPIC, names),), want=names, graft=(TOPIC,) * 20)))
                        stream.write(encode_rpc(Rpc(joined=tuple(name.hex() for name in names))))
                        await stream.drain()
                        await asyncio.sleep(0)

            flooding = asyncio.create_task(flood())
            slowest = 0.0
            for number in range(5):
                began = time.monotonic()
                await heard(one, two, b"in spite of it %d" % number)
                slowest = max(slowest, time.monotonic() - began)
            async with asyncio.timeout(10):
                await link.closed.wait()
            flooding.cancel()
            assert slowest < 2
            assert len(one._mesh._promises) <= one._mesh.habits.promises
            assert VANDAL.address not in one.peers()

    play(scenario)


def test_who_asks_for_the_same_again_and_again_gets_it_three_times() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        async with vandal(one) as (transport, link):
            got = bytearray()

            async def listen(stream: object) -> None:
                assert isinstance(stream, DirectStream)
                while data := await stream.read():
                    got.extend(data)

            transport.handle(MESHSUB, listen)
            stream = await link.open(MESHSUB)
            message = sign(VANDAL, TOPIC, b"x" * 10_000, bytes(8))
            stream.write(encode_rpc(Rpc(messages=(message,))))
            await asyncio.sleep(0.3)
            for _ in range(100):
                stream.write(encode_rpc(Rpc(want=(message.id,) * 100)))
            await asyncio.sleep(0.5)
            assert 3 * 10_000 < len(got) < 4 * 10_000
        await heard(one, two, b"after")

    play(scenario)


def test_half_a_message_on_each_of_many_streams_is_held_once() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        async with vandal(one) as (_, link):
            streams = [await link.open(MESHSUB) for _ in range(100)]
            for stream in streams:
                with contextlib.suppress(NetError):
                    stream.write(encode_number(LONGEST_RPC) + bytes(50_000))
                await asyncio.sleep(0)
            await asyncio.gather(*(answers(stream) for stream in streams[:-1]))
            assert len(one._heard.get(VANDAL.address, {})) <= 1
        await heard(one, two, b"after")

    play(scenario)


def test_a_neighbour_that_does_not_listen_misses_things_and_holds_nobody_up() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        async with vandal(one) as (transport, link):
            deaf: list[object] = []

            async def never(stream: object) -> None:
                deaf.append(stream)
                await asyncio.Event().wait()

            transport.handle(MESHSUB, never)
            stream = await link.open(MESHSUB)
            stream.write(encode_rpc(Rpc(joined=(TOPIC,), graft=(TOPIC,))))
            await until(lambda: VANDAL.address in one._mesh.topics[TOPIC], "it is in the mesh")
            for _ in range(60):
                await one.publish(TOPIC, bytes(MAX_GOSSIP_BYTES))
                await asyncio.sleep(0.01)
            assert one.lost > 0
            (held,) = [each.queued for each in one._transport.links(VANDAL.address) if isinstance(each, DirectLink)]
            assert held <= MOST_QUEUED + 2 * MAX_GOSSIP_BYTES
            await heard(two, one, b"in time", seconds=5)
            assert deaf

    play(scenario)


def test_questions_without_end_and_records_for_keeping_are_refused() -> None:
    async def scenario(hosts: Hosts) -> None:
        one, two = await pair(hosts)
        await until(lambda: len(one._table) == 1, "it has called the other one back")
        async with vandal(one) as (_, link):
            stream = await link.open(KAD)
            stream.write(encode_question(Question(PUT_VALUE, b"keep this")))
            assert await answers(stream) == b""
            stream = await link.open(KAD)
            stream.write(encode_question(Question(FIND_NODE, os.urandom(32))) * 200)
            got = await answers(stream)
            assert 0 < got.count(two.peer_id.raw) < 64
            many = [await link.open(KAD) for _ in range(4 * MOST_ANSWERS)]
            for each in many:
                each.write(b"\x7f")
            await asyncio.sleep(0.3)
            assert one._answering[VANDAL.address] <= MOST_ANSWERS
        await heard(one, two, b"after")

    play(scenario)


def test_a_ring_of_deaf_callers_does_not_come_between_honest_peers() -> None:
    """Thirty callers graft themselves onto one, and pass nothing on."""

    async def scenario(hosts: Hosts) -> None:
        one = await hosts.up("one")
        one.subscribe(TOPIC)
        async with contextlib.AsyncExitStack() as stack:
            for number in range(30):
                _, link = await stack.enter_async_context(vandal(one, f"vandal {number}"))
                stream = await link.open(MESHSUB)
                stream.write(encode_rpc(Rpc(joined=(TOPIC,), graft=(TOPIC,))))
            await until(lambda: len(one._mesh.topics[TOPIC]) >= one._mesh.habits.degree, "they are all round it")
            two = await hosts.up("two", one.address)
            await heard(one, two, b"through the ring", seconds=5)
            await heard(two, one, b"and back", seconds=5)

    play(scenario)
