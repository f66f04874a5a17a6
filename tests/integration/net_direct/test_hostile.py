"""Hostile peers at the door and behind it, over real sockets: memory stays bounded and the honest are served.

Attackers call from 127.6.0.0/16 where it matters that they are elsewhere: the whole of 127.0.0.0/8 is this machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from integration.net_direct.raw import DATA, PING, SYN, WINDOW, RawPeer, call_in_vain, connect, frame, gone, opening
from integration.net_direct.support import ONE, THREE, TWO, Net, play, read_all
from lading_net.core.guard import Limits as Guarded
from lading_net.core.quotas import Rate
from lading_net.direct import DirectSettings, Limits
from lading_net.direct.socket import LinkSocket
from lading_net.errors import NetError, PeerBarred
from lading_net.ports import Link, Stream
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 without asking")


async def ask(link: Link, text: bytes) -> bytes:
    stream = await link.open("/echo/1")
    stream.write(text)
    await stream.close()
    return await read_all(stream)


@asynccontextmanager
async def crowd(where: str, size: int, first: bytes = b"", area: int = 6) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections from as many machines of one area, each of which says `first` and nothing more."""
    made = []
    for number in range(size):
        reader, writer = await connect(where, f"127.{area}.{number // 250}.{number % 250 + 1}")
        writer.write(first)
        made.append((reader, writer))
    try:
        yield [reader for reader, _ in made]
    finally:
        for _, writer in made:
            writer.close()


@loops
@pytest.mark.parametrize("first", [b"", b"\x13/multi", b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20"])
def test_half_open_connections_drive_out_each_other_only(loop: str, first: bytes) -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair(DirectSettings(handshake_timeout=20, guard=Guarded(handshakes=30)))
        async with crowd(where, 150, first) as readers:
            start = time.monotonic()
            assert await ask(await one.dial(where), b"in spite of them") == b"in spite of them"
            assert time.monotonic() - start < 2
            assert len(two._arriving) <= 30
            assert sum([await gone(reader, 0.05) for reader in readers[:50]]) == 50  # the oldest of them had to go

    play(scenario, loop)


@loops
def test_a_machine_that_speaks_garbage_is_heard_ever_less(loop: str) -> None:
    async def scenario(net: Net) -> None:
        rate = Rate(burst=20, second=0.1, debt=20)
        one, two, where = await net.pair(DirectSettings(guard=Guarded(calls_of_machine=rate)))
        await call_in_vain(where, 20, "127.6.0.1")
        assert two.guard.refused["machine"] >= 10
        assert await ask(await one.dial(where), b"from elsewhere") == b"from elsewhere"

    play(scenario, loop)


@loops
def test_who_may_not_call_is_reset_before_anything_is_made_for_it(loop: str) -> None:
    async def scenario(net: Net) -> None:
        guarded = Guarded(calls_of_machine=Rate(burst=3, second=0.01), call_failed=0, call_failed_area=0)
        one, two, where = await net.pair(DirectSettings(guard=guarded))
        made: list[object] = []
        inner = two._socket

        def counted(dialled: bool, expect: Address | None) -> LinkSocket:
            made.append(None)
            return inner(dialled, expect)

        two._socket = counted  # type: ignore[method-assign]
        await call_in_vain(where, 40, "127.6.0.1")
        assert len(made) == 3
        assert two.guard.refused["machine"] == 37
        assert await ask(await one.dial(where), b"from elsewhere") == b"from elsewhere"

    play(scenario, loop)


def test_an_area_whose_machines_all_fail_is_heard_rarely_and_the_others_are_heard() -> None:
    async def scenario(net: Net) -> None:
        rate = Rate(burst=60, second=1, debt=50)
        one, two, where = await net.pair(DirectSettings(guard=Guarded(calls_of_area=rate)))
        for number in range(30):
            await call_in_vain(where, 1, f"127.6.1.{number + 1}")
        assert two.guard.refused["area"] >= 20  # a failed call costs nine of sixty
        assert await ask(await one.dial(where), b"from elsewhere") == b"from elsewhere"

    play(scenario)


@loops
def test_a_flood_of_pings_is_hung_up_on_and_its_machine_waits(loop: str) -> None:
    async def scenario(net: Net) -> None:
        guarded = Guarded(calls_of_machine=Rate(burst=300, second=1, debt=256))
        one, two, where = await net.pair(DirectSettings(pings=Rate(burst=10, second=0.1), guard=guarded))
        link = await one.dial(where)
        for _ in range(2):
            flood = await RawPeer.join(where, source="127.6.0.2")
            flood.say(frame(PING, SYN, 0, 7) * 1034)
            assert await flood.gone()
            flood.close()
        assert two.guard.refused["pings"] == 2 * 1024
        with pytest.raises(OSError):  # under another name again
            await RawPeer.join(where, source="127.6.0.2")
        assert two.guard.refused["machine"] >= 1
        assert await ask(link, b"after it") == b"after it"

    play(scenario, loop)


@loops
def test_the_end_of_a_link_with_a_crowd_of_streams_holds_nobody_up(loop: str) -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair()
        link = await one.dial(where)
        flood = await RawPeer.join(where, THREE, "127.6.0.1")
        flood.say(b"".join(opening(number, data=b"x") for number in range(1, 4001, 2)))
        await asyncio.sleep(0)
        (hostile,) = two._links[THREE.address]
        async with asyncio.timeout(10):
            while len(hostile._tasks) < 2000:  # noqa: ASYNC110  # each is served by a task
                await asyncio.sleep(0.01)
        longest, waits = 0, 0
        flood.writer.transport.abort()
        while hostile._tasks:
            before = len(hostile._tasks)
            await asyncio.sleep(0)
            longest, waits = max(longest, before - len(hostile._tasks)), waits + 1
        assert longest <= 16
        assert waits >= 125
        assert await ask(link, b"after it") == b"after it"

    play(scenario, loop)


HUGE = [
    b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f",
    b"\x13/multistream/1.0.0\n\x80\x80\x01" + bytes(100),
    b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff" + bytes(5000),
    b"\xff" * 5000,
]


@pytest.mark.parametrize("first", HUGE)
def test_a_huge_length_before_the_handshake_is_hung_up_on(first: bytes) -> None:
    async def scenario(net: Net) -> None:
        _, two, where = await net.pair()
        reader, writer = await connect(where)
        writer.write(first)
        assert await gone(reader)
        writer.close()
        await asyncio.sleep(0)
        assert not two._arriving

    play(scenario)


VIOLATIONS = [
    frame(DATA, SYN, 1, 2**32 - 1),
    frame(DATA, SYN, 2, 0),
    frame(9, 0, 0, 0),
    frame(WINDOW, SYN, 1, 0) + frame(WINDOW, 0, 1, 2**32 - 1),
    opening(1) + frame(DATA, 0, 1, 300_000),
    opening(1) + opening(1),
    b"\x01" + bytes(11),
]


@pytest.mark.parametrize("frames", VIOLATIONS)
def test_who_breaks_the_protocol_again_and_again_is_left_alone(frames: bytes) -> None:
    async def scenario(net: Net) -> None:
        _, two, where = await net.pair()
        for _ in range(2):
            peer = await RawPeer.join(where, THREE)
            peer.say(frames)
            assert await peer.gone()
            peer.close()
        with pytest.raises(PeerBarred, match="left alone"):
            await two.dial("/ip4/127.0.0.1/tcp/1", THREE.address)
        again = await RawPeer.join(where, THREE)
        assert await again.gone()
        again.close()
        assert await ask(await net.transport(ONE).dial(where), b"honest") == b"honest"

    play(scenario)


@loops
def test_a_flood_of_streams_costs_its_peer_and_nobody_else(loop: str) -> None:
    async def scenario(net: Net) -> None:
        settings = DirectSettings(openings=Rate(burst=100, second=1), streams=400)
        one, two, where = await net.pair(settings)
        link = await one.dial(where)
        flood = await RawPeer.join(where, THREE, "127.6.0.1")
        await asyncio.sleep(0.05)
        hostile = two._links[THREE.address][0]
        flood.say(b"".join(opening(number) for number in range(1, 4001, 2)))
        assert await ask(link, b"meanwhile") == b"meanwhile"
        assert sum(len(each._session.flows) for each in two._links.get(THREE.address, [])) <= 100
        await asyncio.wait_for(hostile.closed.wait(), 5)
        assert hostile.excess == 1024
        flood.close()
        assert two.guard.barred_for(THREE.address, asyncio.get_running_loop().time()) > 0
        assert await ask(link, b"after it") == b"after it"

    play(scenario, loop)


def test_a_link_may_have_as_many_streams_as_are_left_to_the_others() -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair(DirectSettings(streams=100))
        greedy = [await RawPeer.join(where) for _ in range(3)]
        for peer in greedy:
            peer.say(b"".join(opening(number) for number in range(1, 401, 2)))
            await peer.hear(b"/echo/1")
        await asyncio.sleep(0.1)
        assert sum(len(link._session.flows) for links in two._links.values() for link in links) < 100
        assert await ask(await one.dial(where), b"room for me") == b"room for me"
        for peer in greedy:
            peer.close()

    play(scenario)


@loops
def test_a_flood_of_pings_and_silence_behind_it_is_bounded(loop: str) -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair()
        link = await one.dial(where)
        flood = await RawPeer.join(where, THREE)
        flood.say(frame(PING, SYN, 0, 7) * 300_000)  # and never reads the answers
        for _ in range(20):
            assert await ask(link, b"meanwhile") == b"meanwhile"
        for each in two._links.get(THREE.address, []):
            assert len(each._session._control) <= 1 << 16
        flood.close()

    play(scenario, loop)


def test_identities_are_free_and_bring_nothing() -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair(DirectSettings(guard=Guarded(links=10)))
        honest = await one.dial(where)
        busy = await honest.open("/echo/1")
        busy.write(b"x")
        assert await busy.read() == b"x"
        churn = [await RawPeer.join(where, source=f"127.6.0.{number + 1}") for number in range(40)]
        await asyncio.sleep(0.1)
        assert len(two.links()) <= 10
        assert ONE.address in {link.peer for link in two.links()}
        late = net.transport(PrivateKey(b"8" * 32))
        assert await ask(await late.dial(where), b"late") == b"late"
        busy.write(b"still there")
        assert await busy.read() == b"still there"
        for peer in churn:
            peer.close()

    play(scenario)


def test_one_identity_has_few_links() -> None:
    async def scenario(net: Net) -> None:
        _, two, where = await net.pair()
        peers = [await RawPeer.join(where, THREE) for _ in range(12)]
        await asyncio.sleep(0.1)
        assert len(two._links[THREE.address]) <= 4
        assert [await peer.gone(0.5) for peer in peers[:8]] == [True] * 8
        for peer in peers:
            peer.close()

    play(scenario)


def test_who_asks_for_much_and_reads_nothing_does_not_fill_our_memory() -> None:
    async def scenario(net: Net) -> None:
        limits = Limits(window=1 << 20)
        one, two, where = await net.pair(DirectSettings(queued=2_000_000, limits=limits))

        async def pour(stream: Stream) -> None:
            while True:
                stream.write(bytes(100_000))
                await stream.drain()

        two.handle("/pour/1", pour)
        link = await one.dial(where)
        greedy = await RawPeer.join(where, THREE)
        for number in range(1, 101, 2):
            greedy.say(opening(number, "/pour/1") + frame(WINDOW, 0, number, 1 << 30))
        await asyncio.sleep(0.5)
        assert two._pool.queued <= 2_500_000
        assert await ask(link, b"meanwhile") == b"meanwhile"
        greedy.close()
        await asyncio.sleep(0.1)
        assert two._pool.queued <= 500_000

    play(scenario)


def test_a_recorded_conversation_played_again_reaches_nobody() -> None:
    """Heartbeats run inside: whoever replays one replays a handshake that no longer fits."""

    async def scenario(net: Net) -> None:
        one, two, where = await net.pair()
        beats: list[bytes] = []

        async def beat(stream: Stream) -> None:
            while data := await stream.read():
                beats.append(data)

        two.handle("/lading/heartbeat/1", beat)
        recorded: list[bytes] = []
        proxy = await asyncio.start_server(lambda r, w: relay(r, w, where, recorded), "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        link = await one.dial(f"/ip4/127.0.0.1/tcp/{port}", TWO.address)
        stream = await link.open("/lading/heartbeat/1")
        stream.write(b"beat")
        await asyncio.sleep(0.1)
        assert beats == [b"beat"]
        reader, writer = await connect(where)
        writer.write(b"".join(recorded))
        assert await gone(reader)
        writer.close()
        assert beats == [b"beat"]
        assert len(two.links()) == 1
        proxy.close()
        await one.close()

    play(scenario)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, into: list[bytes]) -> None:
    far_reader, far_writer = await connect(where)

    async def back() -> None:
        while data := await far_reader.read(1 << 16):
            writer.write(data)
        writer.close()

    returning = asyncio.ensure_future(back())
    try:
        while data := await reader.read(1 << 16):
            into.append(data)
            far_writer.write(data)
    except OSError:
        pass
    far_writer.close()
    await asyncio.gather(returning, return_exceptions=True)
    writer.close()


def test_we_do_not_call_one_place_without_end() -> None:
    async def scenario(net: Net) -> None:
        rate = Rate(burst=3, second=0.1)
        one = net.transport(ONE, DirectSettings(dial_timeout=0.5, guard=Guarded(dials_of_machine=rate)))
        for _ in range(3):
            with pytest.raises(NetError, match="Cannot connect"):
                await one.dial("/ip4/127.0.0.1/tcp/1")
        with pytest.raises(NetError, match="too often"):
            await one.dial("/ip4/127.0.0.1/tcp/1")
        with pytest.raises(NetError, match="Cannot connect"):
            await one.dial("/ip4/127.0.0.2/tcp/1")

    play(scenario)


def test_a_link_that_nobody_uses_is_closed_and_dialled_again_when_needed() -> None:
    async def scenario(net: Net) -> None:
        one, _, where = await net.pair(DirectSettings(keepalive=0.1, idle=0.3))
        link = await one.dial(where)
        assert await ask(link, b"used") == b"used"
        await asyncio.wait_for(link.closed.wait(), 5)
        stream = await (await one.dial(where)).open("/echo/1")
        await asyncio.sleep(1)
        stream.write(b"a stream keeps it")
        assert await stream.read() == b"a stream keeps it"

    play(scenario)
