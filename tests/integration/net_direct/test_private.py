"""A private network over real sockets: members talk as ever, everyone else is hung up on without a word."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from integration.net_direct.support import ANY_PORT, ONE, THREE, TWO, Net, ask, play
from lading_net.direct import DirectSettings, Relay
from lading_net.direct.multistream import proposal
from lading_net.errors import HandshakeFailed, NetError
from lading_net.ports import Link
from lading_net.private import NetworkKey

KEY = NetworkKey(bytes(range(32)))
MEMBER = DirectSettings(network=KEY, handshake_timeout=0.5)
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@loops
def test_members_talk_as_in_the_public_network(loop: str) -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await net.pair(MEMBER)
        arrived: asyncio.Queue[Link] = asyncio.Queue()
        two.on_link(arrived.put_nowait)
        link = await one.dial(where, TWO.address)
        data = os.urandom(3_000_000)
        assert await ask(link, data) == data
        assert await ask(await arrived.get(), b"and back") == b"and back"

    play(scenario, loop)


async def said_to(where: str, probe: bytes) -> bytes:
    """What the listener answers until it hangs up."""
    port = int(where.split("/")[4])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(probe)
        return await asyncio.wait_for(reader.read(100), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


PROBES = [b"", b"\x13", b"GET / HTTP/1.1\r\n\r\n", proposal("/noise"), os.urandom(100), b"\x16\x03\x01\x02\x00" * 99]


@loops
def test_a_probe_gets_no_byte_and_is_hung_up_on(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(net: Net) -> None:
        _, two, where = await net.pair(MEMBER)
        assert await asyncio.gather(*(said_to(where, probe) for probe in PROBES)) == [b""] * len(PROBES)
        assert not two._arriving

    with caplog.at_level(logging.DEBUG):
        play(scenario, loop)
    assert KEY.text().split()[-1] not in caplog.text


@loops
def test_outsiders_and_members_find_no_way_to_each_other(loop: str) -> None:
    async def scenario(net: Net) -> None:
        _, _, where = await net.pair(MEMBER)
        public = net.transport(THREE)
        with pytest.raises(HandshakeFailed):
            await public.dial(where)
        stranger = net.transport(ONE, DirectSettings(network=NetworkKey(bytes(32))))
        with pytest.raises(HandshakeFailed):
            await stranger.dial(where)
        open_door = await public.listen(ANY_PORT)
        with pytest.raises(NetError):
            await net.transport(ONE, MEMBER).dial(open_door)

    play(scenario, loop)


@loops
def test_members_also_meet_through_a_relay_among_them(loop: str) -> None:
    async def scenario(net: Net) -> None:
        middle, host, caller = net.transport(THREE, MEMBER), net.transport(TWO, MEMBER), net.transport(ONE, MEMBER)
        where = await middle.listen(ANY_PORT)
        Relay(middle, lambda: (where,), time.time).open()
        reservation = await host.reserve(await host.dial(where))
        link = await caller.dial(reservation.endpoints[0], TWO.address)
        assert link.relayed
        data = os.urandom(500_000)
        assert await ask(link, data) == data

    play(scenario, loop)
