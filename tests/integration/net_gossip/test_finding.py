"""Peers that know one address find a network, and anybody finds any of them by its id."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from factories import key
from integration.net_gossip.support import TOPIC, Hosts, play, until
from lading_net.core.kademlia import Contact, spot
from lading_net.core.places import place
from lading_net.direct import DirectLink, DirectTransport
from lading_net.errors import DialFailed, NetTimeout
from lading_net.gossip import MeshGossip, seeking
from lading_net.gossip.asking import nearest_of
from lading_net.gossip.finding import find_hosts
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Link
from lading_protocol.ids import AgentId

T = TypeVar("T")
HOSTS, PEERS, TURNS = 48, 6, 12
HALF, THIRD = HOSTS // 2, HOSTS // 3
QUICK_THEN_QUIET = (0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 600.0)


def contact(host: MeshGossip) -> Contact:
    here = Endpoint.parse(host.address)
    return Contact(host.peer_id, (Endpoint("ip4", here.host, here.port),))


async def find(stranger: DirectTransport, start: Contact, wanted: PeerId) -> Contact | None:
    """As any Kademlia client looks for a peer: asks the nearest that it has heard of, again and again."""
    known, asked = {start.peer: start}, set[PeerId]()
    for _ in range(TURNS):
        if not (left := known.keys() - asked):
            break
        nearest = min(left, key=lambda peer: spot(peer.raw) ^ spot(wanted.raw))
        asked.add(nearest)
        link = await stranger.dial(known[nearest].texts[0], nearest.address)
        known |= {one.peer: one for one in await nearest_of(link, wanted.raw)}
        if wanted in known:
            return known[wanted]
    return None


async def eventually(found: Callable[[], Awaitable[T | None]], what: str, seconds: float = 30) -> T:
    """What is found once the hosts looked around often enough; all share a loop, which may be too busy to answer."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(DialFailed, NetTimeout):
                    if one := await found():
                        return one
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


def test_in_a_network_of_few_links_each_host_and_agent_is_found_from_anybody() -> None:
    """No host is linked to more than a few of the others, so that it depends on who is linked to whom."""

    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        all_ = [first]
        for number in range(1, HOSTS):
            all_.append(await hosts.up(f"host {number}", first.address, max_peers=PEERS))
        await until(lambda: min(len(one.peers()) for one in all_) >= PEERS, "each has neighbours enough", 60)
        for number, one in enumerate(all_):
            one.provide([AgentId(bytes([number]) * 32)], [one.address])
        assert sum(len(one.peers()) for one in all_) < HOSTS * HALF
        stranger = DirectTransport(key("stranger"))
        try:
            for number, one in enumerate(all_):
                agent, name = AgentId(bytes([number]) * 32), one.peer_id
                start = all_[(number + (THIRD if number % 2 else HALF)) % HOSTS]
                begin, texts = contact(start), [start.address]
                found = await eventually(lambda: find(stranger, begin, name), f"host {number} is found")  # noqa: B023
                assert found.texts == (one.address,)
                await eventually(lambda: find_hosts(stranger, texts, agent), f"agent {number} is found")  # noqa: B023
        finally:
            await stranger.close()

    play(scenario, 110)


def test_all_come_together_around_one_address() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        others = [await hosts.up(f"host {number}", first.address) for number in range(1, 30)]
        await until(lambda: min(len(one.peers()) for one in others) >= 8, "each has neighbours enough")
        readers = [one.subscribe(TOPIC) for one in others]
        await asyncio.sleep(1.5)
        await others[3].publish(TOPIC, b"news")
        async with asyncio.timeout(2):
            assert [await anext(reader) for reader in (*readers[:3], *readers[4:])] == [b"news"] * 28

    play(scenario)


def test_a_search_leaves_no_links_behind_but_those_nearest() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        all_ = [first, *[await hosts.up(f"host {number}", first.address, max_peers=PEERS) for number in range(1, 40)]]
        await until(lambda: min(len(one.peers()) for one in all_) >= PEERS, "each has neighbours enough", 60)
        await asyncio.sleep(1)
        one = all_[5]
        before = {link.peer for link in one._transport.links()}
        async with one._seeker.search(bytes(32)) as nearest:
            assert len(nearest) >= 8
        await until(
            lambda: {link.peer for link in one._transport.links() if link.dialled} <= before | one._seeker._held,  # type: ignore[attr-defined]
            "those that were only asked are gone",
        )

    play(scenario)


def test_who_loses_its_links_while_all_is_quiet_has_others_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeking, "LOOK_SECONDS", QUICK_THEN_QUIET)

    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        all_ = [first, *[await hosts.up(f"host {number}", first.address, max_peers=PEERS) for number in range(1, 20)]]
        await until(lambda: min(len(one.peers()) for one in all_) >= PEERS, "each has neighbours enough", 60)
        await asyncio.sleep(4)  # now nobody looks for ten minutes
        one = all_[7]
        for link in one._transport.links():
            if link.peer != first.peer_id.address:
                await link.close()
        assert len(one._transport.links()) < PEERS
        await until(lambda: len(one.peers()) >= PEERS, "others have taken their places")

    play(scenario)


def test_homes_that_nobody_can_call_do_not_keep_a_search_waiting() -> None:
    """Two thirds say that they are where nobody ever answers."""

    async def scenario(hosts: Hosts) -> None:
        nowhere = socket.socket()
        nowhere.bind(("127.0.0.1", 0))
        nowhere.listen(1024)
        hole = f"/ip4/127.0.0.1/tcp/{nowhere.getsockname()[1]}"
        first = await hosts.up("host 0")
        homes = [await hosts.up(f"home {number}", first.address, announce=[hole]) for number in range(20)]
        others = [await hosts.up(f"host {number}", first.address) for number in range(1, 10)]
        await until(lambda: min(len(one.peers()) for one in (*homes, *others)) >= 9, "all have neighbours enough", 30)
        away = "/ip4/203.0.113.7/tcp/4101"
        stranger = DirectTransport(key("stranger"))
        for number, one in enumerate((homes[3], homes[11], others[5])):
            agent = AgentId(bytes([number]) * 32)
            one.provide([agent], [away])
            await eventually(lambda: find_hosts(stranger, [first.address], agent), f"agent {number} is found")  # noqa: B023
            async with asyncio.timeout(4):  # a call to one of those homes takes five seconds
                (found,) = await find_hosts(stranger, [others[2].address], agent)
            assert found.peer == one.peer_id
        named = {each.peer for one in (first, *others, *homes) for each in one._table.nearest(0, 1000)}
        assert named <= {one.peer_id for one in (first, *others)}
        await stranger.close()
        nowhere.close()

    play(scenario, 60)


def test_who_is_gone_is_not_named_for_long() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        others = [await hosts.up(f"host {number}", first.address) for number in range(1, 6)]
        await until(lambda: len(first._table) == 5, "all are known")
        await asyncio.gather(*(one.close() for one in others[:4]))
        while len(first._table) > 1:
            await first._reach.look_after()
        assert [each.peer for each in first._table.nearest(0)] == [others[4].peer_id]

    play(scenario)


def test_a_network_in_one_area_comes_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may choose more than a few of one area, so nobody ever has enough; still they do not look without end."""
    monkeypatch.setattr(seeking, "place", lambda _: place("192.88.1.1"))
    monkeypatch.setattr(seeking, "LOOK_SECONDS", QUICK_THEN_QUIET)

    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("host 0")
        all_ = [first, *[await hosts.up(f"host {number}", first.address) for number in range(1, 24)]]
        calls = 0

        def count(link: Link) -> None:
            nonlocal calls
            calls += isinstance(link, DirectLink) and link.dialled

        for one in all_:
            one._transport.on_link(count)
        await asyncio.sleep(5)
        assert min(len(one.peers()) for one in all_) >= seeking.KIN
        assert calls > 24
        for _ in range(10):
            calls = 0
            await asyncio.sleep(2)
            if calls <= len(all_):
                return
        raise AssertionError(f"{calls} calls in the last two seconds: without end it is three a second of each")

    play(scenario)
