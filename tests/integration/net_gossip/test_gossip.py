"""A gossip host over loopback: found from one address, heard by all, hard to kill, quick to close."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from factories import key
from integration.net_gossip.support import ANY_PORT, TOPIC, Hosts, heard, play, until
from lading_net.core.rpc import MESHSUB, Rpc, encode_rpc, sign
from lading_net.direct import DirectTransport
from lading_net.errors import BadEndpoint, LinkClosed, ListenFailed, NetError, PortInUse
from lading_net.gossip import MeshGossip
from lading_net.peer import Endpoint, PeerId
from lading_net.protobuf import encode_field, encode_number
from lading_protocol.keys import PrivateKey

NAMES = ["one", "two", "three", "four", "five"]


async def mesh(hosts: Hosts) -> list[MeshGossip]:
    """Five hosts, of which four know the first one's address only, all connected to all."""
    first = await hosts.up(NAMES[0])
    others = await asyncio.gather(*(hosts.up(name, first.address) for name in NAMES[1:]))
    all_hosts = [first, *others]
    await until(lambda: all(len(host.peers()) == 4 for host in all_hosts), "everyone is connected to everyone")
    return all_hosts


def test_five_hosts_find_each_other_from_one_address_and_hear_each_other() -> None:
    async def scenario(hosts: Hosts) -> None:
        found = await mesh(hosts)
        for number, host in enumerate(found):
            others = {key(name).address for name in NAMES if name != NAMES[number]}
            assert set(host.peers()) == others
            assert Endpoint.parse(host.address).peer is not None
        await asyncio.gather(*(heard(host, found[0], b"hello") for host in found[1:]))
        await heard(found[0], found[4], b"from the last")

    play(scenario)


def test_a_message_comes_once_and_never_back_to_its_sender() -> None:
    async def scenario(hosts: Hosts) -> None:
        found = await mesh(hosts)
        readers = [host.subscribe(TOPIC) for host in found]
        await asyncio.gather(*(heard(host, found[0], b"warm") for host in found[1:]))
        sent = [b"%d" % number for number in range(50)]
        for text in sent:
            await found[1].publish(TOPIC, text)
        sent.append(b"end")  # which may overtake another one
        await found[1].publish(TOPIC, b"end")
        for number, reader in enumerate(readers):
            if number == 1:
                continue
            got: list[bytes] = []
            while len(got) < len(sent):
                if (text := await anext(reader)) != b"warm":
                    got.append(text)
            assert sorted(got) == sorted(sent)
        await found[0].publish(TOPIC, b"for one to hear")
        while (text := await anext(readers[1])) != b"for one to hear":
            assert text == b"warm"

    play(scenario)


def test_the_bootstrap_peer_may_come_late_and_come_back() -> None:
    async def scenario(hosts: Hosts) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        place = f"/ip4/127.0.0.1/tcp/{port}"
        probe = hosts.make("late", listen=place)
        early = await hosts.up("early", f"{place}/p2p/{probe.peer_id}")
        await asyncio.sleep(1)
        assert early.peers() == []
        await probe.start()
        await heard(early, probe, b"here I am")
        await probe.close()
        await until(lambda: early.peers() == [], "the peer is missed")
        again = await hosts.up("late", listen=place)
        await heard(early, again, b"back again")

    play(scenario)


def test_garbage_on_every_protocol_leaves_the_host_alive() -> None:
    async def scenario(hosts: Hosts) -> None:
        one = await hosts.up("one")
        two = await hosts.up("two", one.address)
        await heard(two, one, b"before")
        place = Endpoint.parse(one.address)
        for junk in (b"", b"\x00" * 64, os.urandom(4_096), b"\x13/multistream/1.0.0\n" + os.urandom(200)):
            _, writer = await asyncio.open_connection(place.host, place.port)
            writer.write(junk)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        hostile = DirectTransport(key("hostile"))
        try:
            for protocol in (
                "/meshsub/1.1.0",
                "/ipfs/kad/1.0.0",
                "/ipfs/id/1.0.0",
                "/ipfs/id/push/1.0.0",
                "/ipfs/ping/1.0.0",
            ):
                for junk in (b"", b"\x05hello", b"\xff" * 32, b"\x80\x01" + os.urandom(128), b"\xff\xff\xff\x7f"):
                    link = await hostile.dial(one.address, None)
                    try:
                        stream = await link.open(protocol)
                        stream.write(junk)
                        await stream.close()
                        async with asyncio.timeout(0.2):
                            while await stream.read():
                                pass
                    except (NetError, TimeoutError):
                        pass
        finally:
            await hostile.close()
        await heard(two, one, b"after")
        await heard(one, two, b"after, the other way")

    play(scenario)


def rpc_with(sender: PeerId, text: bytes, signer: PrivateKey | None) -> bytes:
    """A gossip RPC by hand: field 2 holds a message of from, data, seqno, topic and signature."""
    parts = (sender.raw, text, os.urandom(8), TOPIC.encode())
    body = b"".join(encode_field(number, part) for number, part in enumerate(parts, 1))
    if signer is not None:
        digest = hashlib.sha256(b"libp2p-pubsub:" + body).digest()
        body += encode_field(5, signer.sign_der(digest))
    rpc = encode_field(2, body)
    return encode_number(len(rpc)) + rpc


def test_only_what_its_sender_signed_is_heard() -> None:
    async def scenario(hosts: Hosts) -> None:
        one = await hosts.up("one")
        two = await hosts.up("two", one.address)
        reader = one.subscribe(TOPIC)
        await heard(one, two, b"genuine")
        stranger = DirectTransport(key("stranger"))
        try:
            stream = await (await stranger.dial(one.address, None)).open("/meshsub/1.1.0")
            stream.write(rpc_with(stranger.peer_id, b"unsigned", None))
            stream.write(rpc_with(two.peer_id, b"in another's name", key("stranger")))
            stream.write(rpc_with(stranger.peer_id, b"with another's key", key("two")))
            stream.write(rpc_with(stranger.peer_id, b"signed", key("stranger")))
            while (text := await anext(reader)) != b"signed":
                assert text == b"genuine"
        finally:
            await stranger.close()

    play(scenario)


def test_bad_settings_are_refused_with_words() -> None:
    async def scenario(hosts: Hosts) -> None:
        one = await hosts.up("one")
        place = one.address.split("/p2p/")[0]
        with pytest.raises(PortInUse):
            await hosts.up("two", listen=place)
        with pytest.raises(ListenFailed):
            await hosts.up("two", listen="/ip4/203.0.113.7/tcp/4101")
        for bootstrap in ("nonsense", place):
            with pytest.raises(BadEndpoint):
                hosts.make("two", bootstrap)

    play(scenario)


def test_closing_is_final_quick_and_safe_at_any_moment() -> None:
    async def scenario(hosts: Hosts) -> None:
        never = hosts.make("never")
        await never.close()
        with pytest.raises(LinkClosed):
            await never.publish(TOPIC, b"x")
        one = await hosts.up("one")
        two = await hosts.up("two", one.address)
        reader = two.subscribe(TOPIC)
        await until(lambda: len(one.peers()) == 1, "they are connected")
        began = time.monotonic()
        await two.close()
        await two.close()
        assert time.monotonic() - began < 2
        assert [text async for text in reader] == []
        with pytest.raises(LinkClosed):
            await two.publish(TOPIC, b"x")
        await until(lambda: one.peers() == [], "the peer is missed")
        starting = asyncio.create_task(hosts.make("three", one.address).start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    play(scenario)


PROGRAM = f"""
import asyncio, signal, sys
from factories import key
from lading_net.gossip import MeshGossip

async def main():
    host = MeshGossip(key(sys.argv[1]), "{ANY_PORT}", sys.argv[2:])
    await host.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(host.address, flush=True)
    await stop.wait()
    await host.close()

asyncio.run(main())
"""


def test_a_process_ends_on_sigterm_without_a_word() -> None:
    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": "tests"},
        )

    processes = [start("one")]
    try:
        assert processes[0].stdout is not None
        address = processes[0].stdout.readline().strip()
        processes += [start(name, address) for name in NAMES[1:3]]
        for process in processes[1:]:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("/ip4/127.0.0.1/tcp/")
        time.sleep(0.5)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            said, _ = process.communicate(timeout=10)
            assert (process.returncode, said) == (0, "")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_flood_of_messages_drowns_nobody() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("one")
        vandal, honest = [await hosts.up(name, first.address) for name in ("two", "three")]
        await until(lambda: all(len(host.peers()) == 2 for host in (first, vandal, honest)), "they are connected")
        reader = first.subscribe(TOPIC)
        rubbish = os.urandom(2_000)

        async def flood() -> None:
            while True:
                for _ in range(100):
                    await vandal.publish(TOPIC, rubbish)
                await asyncio.sleep(0.02)

        flooding = asyncio.create_task(flood())
        try:
            await asyncio.sleep(1)
            await heard(first, honest, b"in spite of it")
            assert len(reader._waiting) <= 1_024
        finally:
            flooding.cancel()

    play(scenario)


def test_a_peer_with_two_links_may_speak_on_both_and_says_once_what_it_listens_to() -> None:
    """As rust-libp2p does where both dialled at once."""

    async def scenario(hosts: Hosts) -> None:
        one = await hosts.up("one")
        reader = one.subscribe(TOPIC)
        twins = [DirectTransport(key("twin")) for _ in range(2)]
        try:
            links = [await each.dial(one.address) for each in twins]
            first, second = [await link.open(MESHSUB) for link in links]
            first.write(encode_rpc(Rpc(joined=(TOPIC,))))
            await until(lambda: len(one._mesh._listening(TOPIC)) == 1, "it said what it listens to")
            for number, stream in enumerate((second, first, second)):
                message = sign(key("twin"), TOPIC, b"%d" % number, number.to_bytes(8, "big"))
                stream.write(encode_rpc(Rpc(messages=(message,))))
                async with asyncio.timeout(5):
                    assert await anext(reader) == b"%d" % number
            assert len(one._mesh._listening(TOPIC)) == 1
            await twins[1].close()
            first.write(encode_rpc(Rpc(messages=(sign(key("twin"), TOPIC, b"still", b"seqno123"),))))
            async with asyncio.timeout(5):
                assert await anext(reader) == b"still"
            assert len(one._mesh._listening(TOPIC)) == 1
        finally:
            for each in twins:
                await each.close()

    play(scenario)
