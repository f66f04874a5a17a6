"""What every Gossip must do, whichever network is behind: a class of tests for a subclass to run on one of them.

Adverts may come late or never while peers still find each other; so a scenario begins once all are heard by all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from lading_net.errors import LinkClosed, MessageTooLarge
from lading_net.ports import Gossip
from lading_net.subscription import MAX_GOSSIP_BYTES, QUEUE, Subscription

NAMES = ("alice", "bob", "carol")
OFFERS, NOTICES = "/lading/offers/1", "/lading/coordinators/1"

Scenario = Callable[[Sequence[Gossip]], Awaitable[None]]


async def reader_of(gossip: Gossip, topic: str = OFFERS) -> Subscription:
    """A reader from now on, once everybody has had time to know that there is one."""
    reader = gossip.subscribe(topic)
    assert isinstance(reader, Subscription)
    await asyncio.sleep(0.3)
    return reader


async def got(reader: Subscription) -> bytes:
    async with asyncio.timeout(10):
        return await anext(reader)


class GossipContract:
    def run(self, scenario: Scenario) -> None:
        """Brings three peers up that know each other and plays the scenario with them, within a time limit."""
        raise NotImplementedError

    def test_all_others_hear_it_once_and_the_speaker_does_not(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            readers = [await reader_of(each) for each in peers]
            for number, speaker in enumerate(peers):
                await speaker.publish(OFFERS, b"%d" % number)
            for number, reader in enumerate(readers):
                heard = {await got(reader), await got(reader)}
                assert heard == {b"0", b"1", b"2"} - {b"%d" % number}
                assert not reader._waiting

        self.run(scenario)

    def test_topics_are_apart_and_one_may_speak_where_one_does_not_listen(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            offers, notices = await reader_of(peers[1]), await reader_of(peers[2], NOTICES)
            await peers[0].publish(OFFERS, b"an offer")
            await peers[0].publish(NOTICES, b"a notice")
            assert await got(offers) == b"an offer"
            assert await got(notices) == b"a notice"
            await asyncio.sleep(0.3)
            assert not offers._waiting
            assert not notices._waiting

        self.run(scenario)

    def test_as_much_as_may_be_said_arrives_and_more_is_refused(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            reader = await reader_of(peers[1])
            with pytest.raises(MessageTooLarge):
                await peers[0].publish(OFFERS, bytes(MAX_GOSSIP_BYTES + 1))
            await peers[0].publish(OFFERS, b"x" * MAX_GOSSIP_BYTES)
            assert await got(reader) == b"x" * MAX_GOSSIP_BYTES
            await peers[0].publish(OFFERS, b"")
            assert await got(reader) == b""

        self.run(scenario)

    def test_two_readers_of_one_peer_hear_the_same(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            readers = [await reader_of(peers[1]) for _ in range(2)]
            await peers[2].publish(OFFERS, b"for both")
            assert [await got(reader) for reader in readers] == [b"for both"] * 2

        self.run(scenario)

    def test_who_leaves_a_topic_hears_nothing_until_it_is_back(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            reader = await reader_of(peers[1])
            peers[1].leave(OFFERS)
            peers[1].leave(OFFERS)
            assert [data async for data in reader] == []
            await asyncio.sleep(0.3)
            await peers[0].publish(OFFERS, b"meanwhile")
            await asyncio.sleep(6)  # as long as gossip remembers for those who come late
            back = await reader_of(peers[1])
            await peers[0].publish(OFFERS, b"again")
            assert await got(back) == b"again"

        self.run(scenario)

    def test_a_reader_that_lags_loses_what_is_too_much(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            slow, quick = await reader_of(peers[1]), await reader_of(peers[1], NOTICES)
            for number in range(QUEUE + 10):
                await peers[0].publish(OFFERS, b"%d" % number)
                if number % 100 == 0:
                    await asyncio.sleep(0.05)
            while slow.lost < 10:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await peers[0].publish(NOTICES, b"the other topic goes on")
            assert await got(quick) == b"the other topic goes on"
            assert slow.lost == 10
            assert len(slow._waiting) == QUEUE

        self.run(scenario)

    def test_closing_ends_readers_is_final_and_others_go_on(self) -> None:
        async def scenario(peers: Sequence[Gossip]) -> None:
            first, second = await reader_of(peers[0]), await reader_of(peers[1])
            assert len(peers[0].peers()) == len(set(peers[0].peers())) == 2
            await peers[2].close()
            await peers[2].close()
            assert peers[2].peers() == []
            ended = peers[2].subscribe(OFFERS)
            assert [data async for data in ended] == []
            with pytest.raises(LinkClosed):
                await peers[2].publish(OFFERS, b"x")
            while len(peers[0].peers()) != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await peers[1].publish(OFFERS, b"without it")
            assert await got(first) == b"without it"
            assert not second._waiting

        self.run(scenario)
