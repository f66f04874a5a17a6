"""Calling back, addresses tried side by side, versions: who is reached hears where, nobody is made to call others."""

from __future__ import annotations

import asyncio
import socket

import pytest

from integration.net_direct.support import ANY_PORT, HASTY, ONE, THREE, TWO, Net, play, read_all
from lading_net.binaddr import encode_endpoint
from lading_net.dialling import dial_any
from lading_net.direct import CallBack, DirectTransport, ask_to_be_called
from lading_net.direct.autonat import AUTONAT, BAD_REQUEST
from lading_net.direct.relaywire import framed
from lading_net.errors import DialFailed, NetError, NetTimeout, StreamReset
from lading_net.peer import Endpoint
from lading_net.protobuf import decode_message, encode_count, encode_field
from lading_net.speech import agreed_with, serve_speech
from lading_protocol import VERSION
from lading_protocol.keys import PrivateKey
from lading_protocol.speech import FEATURES, Agreed, Speech


async def friends(net: Net) -> tuple[DirectTransport, DirectTransport, str]:
    """Somebody who asks, somebody who calls back, and where the latter listens."""
    one, two = net.transport(ONE), net.transport(TWO, HASTY)
    CallBack(two.handle, two.stranger).open()
    return one, two, await two.listen(ANY_PORT)


def test_the_first_endpoint_that_answers_is_told() -> None:
    async def scenario(net: Net) -> None:
        one, _, where = await friends(net)
        mine = await one.listen(ANY_PORT)
        seen_links = len(one.links())
        link = await one.dial(where)
        answer = await ask_to_be_called(link, one.peer_id, ["/ip4/127.0.0.1/tcp/9", mine])
        assert answer.endpoint == mine.split("/p2p/")[0]
        assert answer.seen is not None
        assert answer.seen[0] == "127.0.0.1"
        await asyncio.sleep(0.05)
        assert len(one.links()) == seen_links + 1  # the stranger is gone again

    play(scenario)


def test_who_is_not_reached_hears_why_and_how_it_is_seen() -> None:
    async def scenario(net: Net) -> None:
        one, _, where = await friends(net)
        link = await one.dial(where)
        answer = await ask_to_be_called(link, one.peer_id, ["/ip4/127.0.0.1/tcp/9"])
        assert (answer.endpoint, "Cannot connect" in answer.why) == ("", True)
        other = net.transport(THREE)  # somebody else listens there
        answer = await ask_to_be_called(link, one.peer_id, [await other.listen(ANY_PORT)])
        assert (answer.endpoint, "found 0x" in answer.why) == ("", True)

    play(scenario)


def test_nobody_is_called_but_the_asker() -> None:
    async def scenario(net: Net) -> None:
        one, _, where = await friends(net)
        link = await one.dial(where)
        with socket.create_server(("127.0.0.2", 0)) as victim:
            victim.settimeout(0.2)
            port = victim.getsockname()[1]
            answer = await ask_to_be_called(link, one.peer_id, [f"/ip4/127.0.0.2/tcp/{port}"] * 4)
            assert answer.endpoint == ""
            assert "none of the addresses" in answer.why
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(victim.accept)

    play(scenario)


@pytest.mark.parametrize("garbage", [b"", b"\x02\x08", framed(b""), framed(b"\x08\x00\x12\x00"), b"\xff\xff\xff\xff"])
def test_garbage_is_refused(garbage: bytes) -> None:
    async def scenario(net: Net) -> None:
        one, _, where = await friends(net)
        stream = await (await one.dial(where)).open(AUTONAT)
        stream.write(garbage)
        await stream.close()
        try:
            answer = await read_all(stream)
        except StreamReset:
            return
        fields, _ = decode_message(decode_message(answer[1:])[0][3][-1])[0], 0
        assert b"malformed" in fields[2][-1]

    play(scenario)


def test_the_question_is_libp2ps() -> None:
    """A question as another implementation writes it, with a relay's address and one of another kind among them."""

    async def scenario(net: Net) -> None:
        one, _, where = await friends(net)
        mine = Endpoint.parse(await one.listen(ANY_PORT))
        quic = b"\x04\x7f\x00\x00\x01\x91\x02\x10\x05\xcd\x03"
        info = encode_field(1, one.peer_id.raw) + encode_field(2, quic) + encode_field(2, encode_endpoint(mine))
        stream = await (await one.dial(where)).open(AUTONAT)
        stream.write(framed(encode_count(1, 0) + encode_field(2, encode_field(1, info))))
        await stream.close()
        fields, counts = decode_message((await read_all(stream))[1:])
        response, numbers = decode_message(fields[3][-1])
        assert (counts[1], numbers[1]) == (1, 0)
        assert response[3] == [encode_endpoint(mine)]
        assert BAD_REQUEST not in numbers.values()

    play(scenario)


def test_the_first_address_that_answers_wins_and_a_dead_one_costs_its_head_start() -> None:
    async def scenario(net: Net) -> None:
        one, two, where = await friends(net)
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and says nothing
            dead = f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}"
            clock = asyncio.get_running_loop().time
            began = clock()
            link = await dial_any(one, [dead, dead, where], two.address)
            assert link.peer == two.address
            assert 0.2 < clock() - began < 1.0
            with pytest.raises(NetTimeout):
                await dial_any(one, [dead], PrivateKey(b"9" * 32).address, 0.3)
        with pytest.raises(DialFailed, match="Cannot connect"):
            await dial_any(one, ["/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/10"], None)
        with pytest.raises(DialFailed, match="no address"):
            await dial_any(one, [], two.address)
        with pytest.raises(NetError):
            await dial_any(one, ["nonsense"], two.address)

    play(scenario)


def test_a_peer_that_does_not_know_the_question_of_versions_is_of_the_first() -> None:
    async def scenario(net: Net) -> None:
        one, other, where = await net.pair()
        link = await one.dial(where)
        assert (await agreed_with(link)).version == 1
        serve_speech(other, Speech(VERSION, VERSION + 1, FEATURES))
        assert await agreed_with(link) == Agreed(VERSION, frozenset(FEATURES))

    play(scenario)
