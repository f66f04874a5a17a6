"""Links through a relay, over loopback: sealed between the ends, bounded by the relay, given up for a direct one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from integration.net_direct.support import ANY_PORT, ONE, THREE, TWO, Net, play, read_all
from lading_net.direct import DirectLink, DirectSettings, DirectStream, DirectTransport, Relay, RelaySettings
from lading_net.direct import relaywire as wire
from lading_net.direct.relay import read_message
from lading_net.errors import DialFailed, LinkClosed, NetError, StreamReset, WrongPeer
from lading_net.peer import Endpoint
from lading_net.ports import Stream
from lading_net.private import NetworkKey
from lading_protocol.keys import PrivateKey


class Curious(Relay):
    """A relay that keeps what it carries."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen = bytearray()

    async def _pump(self, source: DirectStream, sink: DirectStream) -> None:
        read = source.read

        class Tapped:
            async def read(_self) -> bytes:
                data = await read()
                self.seen += data
                return data

        await super()._pump(Tapped(), sink)  # type: ignore[arg-type]


class Town:
    """A relay, a host with a place there that listens nowhere, and a caller. `way` leads to the host."""

    def __init__(
        self, net: Net, settings: RelaySettings | None = None, network: tuple[NetworkKey | None, ...] = (None,) * 3
    ) -> None:
        keyed = zip((THREE, TWO, ONE), network, strict=True)
        self.middle, self.host, self.caller = (net.transport(k, DirectSettings(network=n)) for k, n in keyed)
        self.where = ""
        self.relay = Curious(self.middle, lambda: (self.where,), time.time, settings)
        self.relay.open()

    async def settle(self) -> str:
        self.where = await self.middle.listen(ANY_PORT)
        self.link = await self.host.dial(self.where)
        self.reservation = await self.host.reserve(self.link)
        (self.way,) = self.reservation.endpoints
        return self.way


def played(story: Callable[[Town], Awaitable[None]], settings: RelaySettings | None = None) -> None:
    async def scenario(net: Net) -> None:
        town = Town(net, settings)
        await town.settle()
        await story(town)

    play(scenario)


async def ask(link: DirectLink, data: bytes) -> bytes:
    stream = await link.open("/echo/1")
    reading = asyncio.create_task(read_all(stream))
    stream.write(data)
    await stream.drain()
    await stream.close()
    return await reading


def test_both_ends_open_streams_and_the_relay_reads_nothing() -> None:
    async def story(town: Town) -> None:
        assert town.reservation.expires > time.time() + 3000
        link = await town.caller.dial(town.way)
        assert (link.peer, link.relayed, link.seen_at) == (town.host.address, True, None)
        secret = b"nobody else's business" * 1000
        assert await ask(link, secret) == secret
        back = next(each for each in town.host.links() if each.peer == town.caller.address)
        assert isinstance(back, DirectLink)
        assert await ask(back, secret) == secret
        assert len(town.relay.seen) > 4 * len(secret)
        assert b"nobody" not in town.relay.seen
        assert await town.caller.dial(town.way) is link

    played(story)


def test_a_relay_of_a_private_network_serves_those_who_have_its_key_only() -> None:
    keys = NetworkKey(bytes(range(32))), NetworkKey(bytes(32))

    async def scenario(net: Net) -> None:
        town = Town(net, network=(keys[0],) * 3)
        way = await town.settle()
        link = await town.caller.dial(way)
        secret = b"nobody else's business" * 1000
        assert (link.relayed, await ask(link, secret)) == (True, secret)
        assert b"nobody" not in town.relay.seen
        for network in (None, keys[1]):
            stranger = net.transport(PrivateKey(b"8" * 32), DirectSettings(network=network, dial_timeout=1))
            with pytest.raises(NetError):
                await stranger.dial(way)
        assert town.relay.running == 1

    play(scenario)


def test_what_a_caller_said_before_it_was_gone_arrives() -> None:
    async def story(town: Town) -> None:
        heard: list[bytes] = []
        over = asyncio.Event()

        async def listen(stream: Stream) -> None:
            try:
                while data := await stream.read():
                    heard.append(data)
            finally:
                over.set()

        town.host.handle("/listen/1", listen)
        link = await town.caller.dial(town.way)
        stream = await link.open("/listen/1")
        (outer,) = (one for one in town.middle.links() if one.peer == town.caller.address)
        assert isinstance(outer, DirectLink)
        received, sizes = outer.data_received, [0]

        def last_words(data: bytes | memoryview) -> None:
            sizes[0] += len(data)
            received(data)
            if sizes[0] > 10_000:
                outer.connection_lost(None)

        outer.data_received = last_words  # type: ignore[method-assign]
        onward = town.middle.link_to(town.host.address)
        assert onward is not None
        onward.pause_writing()
        stream.write(bytes(10_000))
        await asyncio.sleep(0.05)
        onward.resume_writing()
        await asyncio.wait_for(over.wait(), 5)
        assert sum(map(len, heard)) == 10_000

    played(story)


def test_much_at_once_in_both_directions_and_many_streams() -> None:
    async def story(town: Town) -> None:
        link = await town.caller.dial(town.way)
        large = bytes(range(256)) * 20_000
        answers = await asyncio.gather(*(ask(link, large) for _ in range(3)), *(ask(link, b"x") for _ in range(300)))
        assert answers == [large] * 3 + [b"x"] * 300

    played(story)


def test_an_end_is_heard_at_the_other_end() -> None:
    async def story(town: Town) -> None:
        link = await town.caller.dial(town.way)
        stream = await link.open("/echo/1")
        stream.write(b"last words")
        assert await stream.read() == b"last words"
        await link.close()
        for _ in range(100):
            if not town.relay.running and len(town.host.links()) == 1:
                break
            await asyncio.sleep(0.02)
        assert town.relay.running == 0
        again = await town.caller.dial(town.way)
        assert await ask(again, b"hello") == b"hello"
        await town.middle.close()
        await asyncio.wait_for(again.closed.wait(), 5)
        with pytest.raises(LinkClosed):
            await again.open("/echo/1")

    played(story)


def test_a_direct_link_takes_over() -> None:
    async def story(town: Town) -> None:
        link = await town.caller.dial(town.way)
        running = await link.open("/echo/1")
        running.write(b"one")
        assert await running.read() == b"one"
        direct = await town.host.dial(await town.caller.listen(ANY_PORT))
        assert not direct.relayed
        found = await town.caller.dial(town.way)
        assert not found.relayed
        running.write(b"two")  # what runs on the old link runs on
        assert await running.read() == b"two"

    played(story)


def test_who_has_no_place_is_not_reached() -> None:
    async def scenario(net: Net) -> None:
        town = Town(net)
        way = await town.settle()
        await town.link.close()
        with pytest.raises(DialFailed, match="no reservation"):
            await town.caller.dial(way)
        nobody = Endpoint.parse(town.where)
        other = net.transport(PrivateKey(b"4" * 32))
        await other.dial(town.where)  # linked, and never asked to be called
        with pytest.raises(DialFailed, match="no reservation"):
            await town.caller.dial(str(Endpoint("ip4", nobody.host, nobody.port, other.peer_id, nobody.peer)))

    play(scenario)


def test_a_relay_cannot_pass_another_peer_off() -> None:
    async def scenario(net: Net) -> None:
        town = Town(net)
        await town.settle()
        impostor = net.transport(PrivateKey(b"5" * 32))
        stolen = await impostor.dial(town.where)
        await impostor.reserve(stolen)
        town.relay._links.link_to = lambda peer: town.middle._best(impostor.address)  # type: ignore[method-assign]
        with pytest.raises((WrongPeer, NetError)):
            await town.caller.dial(town.way)
        assert not [link for link in town.caller.links() if link.peer != town.middle.address]

    play(scenario)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (RelaySettings(reservations=0), "no room for another reservation"),
        (RelaySettings(connections=0), "as many connections as it will"),
        (RelaySettings(connections_each=0), "as many connections as it will"),
    ],
)
def test_limits_are_said_in_words(settings: RelaySettings, why: str) -> None:
    async def scenario(net: Net) -> None:
        town = Town(net, settings)
        with pytest.raises(DialFailed, match=why):
            await town.caller.dial(await town.settle())

    play(scenario)


@pytest.mark.parametrize("settings", [RelaySettings(data=100_000), RelaySettings(duration=1)])
def test_a_connection_ends_with_its_bytes_or_its_time(settings: RelaySettings) -> None:
    async def story(town: Town) -> None:
        link = await town.caller.dial(town.way)

        async def talk() -> None:
            for _ in range(1000):
                await ask(link, bytes(2000))
                await asyncio.sleep(0.01)

        with pytest.raises((LinkClosed, StreamReset)):
            await talk()
        await asyncio.wait_for(link.closed.wait(), 3)
        assert town.relay.running == 0
        assert settings.data > 100_000 or town.relay.carried < 300_000

    played(story, settings)


def test_no_relay_behind_a_relay() -> None:
    async def scenario(net: Net) -> None:
        town = Town(net)
        way = await town.settle()
        second = Relay(town.host, lambda: (way,), time.time)
        second.open()
        link = await town.caller.dial(way)
        with pytest.raises(DialFailed, match="does not relay for us"):
            await town.caller.reserve(link)

    play(scenario)


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", b"\x00", b"\x02\x08", b"\x02\x08\x07", wire.framed(b"\x08\x01\x12\x02\x0a\x00")]
)
def test_garbage_is_answered_and_forgotten(garbage: bytes) -> None:
    async def story(town: Town) -> None:
        link = await town.caller.dial(town.where)
        stream = await link.open(wire.HOP)
        stream.write(garbage)
        await stream.close()
        answer, _ = await read_message(stream)
        assert wire.decode_hop(answer).status in (wire.MALFORMED_MESSAGE, wire.UNEXPECTED_MESSAGE)
        assert town.relay.running == 0

    played(story)


def test_a_caller_that_says_nothing_does_not_hold_a_place() -> None:
    """The host is asked to accept, and then the caller sends no handshake: its slot at the relay is freed in time."""

    async def scenario(net: Net) -> None:
        town = Town(net)
        town.host = DirectTransport(TWO, msgspec.structs.replace(town.host._settings, handshake_timeout=0.2))
        net._made.append(town.host)
        await town.settle()
        link = await town.caller.dial(town.where)
        stream = await link.open(wire.HOP)
        stream.write(wire.encode_hop(wire.RelayMessage(wire.CONNECT, peer=town.host.peer_id.raw)))
        answer, _ = await read_message(stream)
        assert wire.decode_hop(answer).status == wire.OK
        assert town.relay.running == 1
        with pytest.raises(StreamReset):
            await read_all(stream)
        assert town.relay.running == 0

    play(scenario)
