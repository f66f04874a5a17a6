"""Gossip in memory, and the bounded queue that every gossip reader has."""

from __future__ import annotations

import asyncio
import gc

import pytest

from factories import key
from lading_net.clock import run_virtual
from lading_net.errors import LinkClosed, MessageTooLarge
from lading_net.memory import Conditions, MemoryNetwork
from lading_net.subscription import MAX_GOSSIP_BYTES, QUEUE, Subscriptions

ALICE, BOB, CAROL = key("alice"), key("bob"), key("carol")


def test_adverts_reach_all_others_after_the_delay() -> None:
    async def main() -> None:
        net = MemoryNetwork(1, Conditions(delay=0.25))
        alice, bob, carol = net.gossip(ALICE), net.gossip(BOB), net.gossip(CAROL)
        readers = [each.subscribe("offers") for each in (alice, bob, carol)]
        other_topic = bob.subscribe("coordinators")
        await alice.publish("offers", b"one")
        assert [await anext(reader) for reader in readers[1:]] == [b"one", b"one"]
        assert asyncio.get_running_loop().time() == 0.25
        await bob.publish("offers", b"two")
        assert await anext(readers[0]) == b"two"  # and never its own "one"
        assert set(alice.peers()) == {BOB.address, CAROL.address}
        await alice.close()
        await bob.close()
        await carol.close()
        assert [data async for data in other_topic] == []

    run_virtual(main())


def test_a_partition_loses_adverts_and_healing_brings_no_old_ones() -> None:
    async def main() -> None:
        net = MemoryNetwork(1, Conditions(delay=0.1))
        alice, bob = net.gossip(ALICE), net.gossip(BOB)
        reader = bob.subscribe("offers")
        await alice.publish("offers", b"under way")
        net.partition([ALICE.address])
        await alice.publish("offers", b"into the wall")
        assert alice.peers() == []
        await asyncio.sleep(1)
        net.heal()
        await alice.publish("offers", b"after")
        assert await anext(reader) == b"after"

    run_virtual(main())


def test_gossip_is_lost_by_chance_and_the_dead_hear_nothing() -> None:
    async def main() -> int:
        net = MemoryNetwork(5, Conditions(gossip_loss=0.5))
        alice, bob = net.gossip(ALICE), net.gossip(BOB)
        reader = bob.subscribe("offers")
        for _ in range(200):
            await alice.publish("offers", b"x")
        await asyncio.sleep(1)
        net.kill(BOB.address)
        await alice.publish("offers", b"x")
        with pytest.raises(LinkClosed):
            await bob.publish("offers", b"x")
        return len([data async for data in reader])

    assert 70 < run_virtual(main()) < 130


def test_too_large_an_advert_is_refused() -> None:
    async def main() -> None:
        net = MemoryNetwork(1)
        alice, bob = net.gossip(ALICE), net.gossip(BOB)
        reader = bob.subscribe("offers")
        with pytest.raises(MessageTooLarge):
            await alice.publish("offers", bytes(MAX_GOSSIP_BYTES + 1))
        await alice.publish("offers", bytes(MAX_GOSSIP_BYTES))
        assert await anext(reader) == bytes(MAX_GOSSIP_BYTES)

    run_virtual(main())


def test_a_lagging_reader_loses_the_oldest_and_knows_how_many() -> None:
    async def main() -> None:
        readers = Subscriptions()
        lagging = readers.add("offers")
        for number in range(QUEUE + 3):
            readers.feed("offers", b"%d" % number)
        assert lagging.lost == 3
        assert await anext(lagging) == b"3"
        readers.close()
        assert len([data async for data in lagging]) == QUEUE - 1
        assert [data async for data in readers.add("offers")] == []

    run_virtual(main())


def test_a_dropped_reader_is_forgotten() -> None:
    readers = Subscriptions()
    reader = readers.add("offers")
    kept = readers.add("offers")
    del reader
    gc.collect()
    readers.feed("offers", b"x")
    assert readers.count("offers") == 1
    del kept
    gc.collect()
    assert readers.count("offers") == 0
