"""The direct link and py-libp2p understand each other, whoever dials."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from integration.net_direct.support import ANY_PORT, ONE, TWO, Net, ask, play, read_all
from lading_net.errors import HandshakeFailed, LinkClosed, StreamReset, UnknownProtocol, WrongPeer
from lading_net.ports import Link
from lading_protocol.keys import PrivateKey

pytest.importorskip("libp2p")
from integration.net_direct.pyhost import PyHost

THEIRS = PrivateKey(b"7" * 32)
LARGE = os.urandom(1 << 20)
pytestmark = pytest.mark.filterwarnings("ignore")  # the other implementation's own


@pytest.fixture(scope="module")
def theirs() -> Iterator[PyHost]:
    host = PyHost(THEIRS.secret)
    yield host
    host.close()


def test_we_dial_and_their_host_answers(theirs: PyHost) -> None:
    async def scenario(net: Net) -> None:
        link = await net.transport(ONE).dial(theirs.endpoint, THEIRS.address)
        assert link.peer == THEIRS.address
        assert await ask(link, b"hello") == b"hello"
        assert await ask(link, LARGE) == LARGE

    play(scenario, "uvloop")


def test_they_dial_and_either_end_opens_streams(theirs: PyHost) -> None:
    async def scenario(net: Net) -> None:
        mine = net.transport(TWO)
        arrived: asyncio.Queue[Link] = asyncio.Queue()
        mine.on_link(arrived.put_nowait)
        where = await mine.listen(ANY_PORT)
        assert await asyncio.to_thread(theirs.call, theirs.ask, where, LARGE) == LARGE
        link = await arrived.get()
        assert link.peer == THEIRS.address
        assert await ask(link, b"back") == b"back"
        assert await mine.dial(theirs.endpoint) is link

    play(scenario)


def test_a_protocol_they_do_not_serve(theirs: PyHost) -> None:
    async def scenario(net: Net) -> None:
        link = await net.transport(PrivateKey(b"4" * 32)).dial(theirs.endpoint)
        stream = await link.open("/lading/nothing/1")
        stream.write(b"request")
        with pytest.raises((UnknownProtocol, StreamReset)):
            await stream.read()
        assert await ask(link, b"still works") == b"still works"

    play(scenario)


def test_more_streams_at_once_than_they_accept_unanswered(theirs: PyHost) -> None:
    async def scenario(net: Net) -> None:
        link = await net.transport(PrivateKey(b"5" * 32)).dial(theirs.endpoint)
        streams = [await link.open("/echo/1") for _ in range(400)]
        for number, stream in enumerate(streams):
            stream.write(b"%d" % number)
        for number, stream in enumerate(streams):
            assert await stream.read() == b"%d" % number
        for stream in streams:
            stream.reset()

    play(scenario)


def test_another_peer_than_expected(theirs: PyHost) -> None:
    async def scenario(net: Net) -> None:
        bare = theirs.endpoint.split("/p2p/")[0]
        with pytest.raises(WrongPeer):
            await net.transport(PrivateKey(b"6" * 32)).dial(bare, ONE.address)

    play(scenario)


def test_a_peer_without_an_address_is_refused_by_name() -> None:
    async def scenario(net: Net) -> None:
        other = PyHost(b"9" * 32, ed25519=True)
        try:
            bare = other.endpoint.split("/p2p/")[0]
            with pytest.raises(HandshakeFailed, match="Ed25519"):
                await net.transport(ONE).dial(bare)
        finally:
            await asyncio.to_thread(other.close)

    play(scenario)


def test_their_death_ends_our_streams() -> None:
    async def scenario(net: Net) -> None:
        other = PyHost(b"8" * 32)
        link = await net.transport(ONE).dial(other.endpoint)
        stream = await link.open("/echo/1")
        stream.write(b"alive")
        assert await stream.read() == b"alive"
        await asyncio.to_thread(other.close)
        with pytest.raises((LinkClosed, StreamReset)):
            await read_all(stream)

    play(scenario)
