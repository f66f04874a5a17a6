"""Being found: adverts on gossip, and a live link with heartbeats to every coordinator that we know.

Dials out, so that a host behind a router is reachable over its own links. Chooses nothing and serves no jobs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from lading.core.matching import within
from lading.dispatch.directory import Directory
from lading_net.core.places import Place, diverse, place
from lading_net.dialling import dial_any
from lading_net.errors import BadEndpoint, DialFailed, NetError
from lading_net.messages import MessageStream
from lading_net.peer import Endpoint
from lading_net.ports import Link, Stream
from lading_net.speech import agreed_with
from lading_node.agents import Agent
from lading_node.ports import Doors
from lading_node.sampling import sample
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, short
from lading_protocol.messages import (
    HEARTBEAT,
    TOPIC_COORDINATORS,
    TOPIC_OFFERS,
    Advert,
    Adverts,
    Beat,
    Hello,
    Notice,
    WantOffers,
    decode,
    encode,
)
from lading_protocol.offers import check_advert, check_notice, fitting

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# What happens within this time goes into one beat.
GATHER_SECONDS = 0.05
PUBLISH_SECONDS = 300.0
DIAL_SECONDS = 10.0
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
AT_ONCE = 0.05
"""Within which a link that had held is dialled again; of many hosts at once, each at a moment of its own."""

HELD_SECONDS = 2.0
MAX_COORDINATORS = 64
COORDINATORS_OF_AREA = 4  # heard of, so that no one owner of many addresses is all that we work for
MAX_HEARD = 4096
OTHERS_SECONDS = 60.0
"""After which one of another region gives way, and for how long it is left alone then."""

OF_OTHERS = "it would rather have hosts of other regions"
MOST_LINKS = 4
"""To coordinators that were heard of; those that the operator names are linked all the same. The others wait."""

OFFER_BYTES, NOTICE_BYTES = 15.0, 5.0
"""What a node listens to per second, over time: gossip carries each byte some fifteen times (tests/bench)."""

_want = msgspec.msgpack.Decoder(WantOffers)


class Coordinator(msgspec.Struct):
    """Someone we keep a link to. `address` is unknown for a configured endpoint without a peer id, until we are linked.

    `state` says in words how it stands, `version` of the protocol we speak with it (0: not asked yet), `regions` whose
    hosts it would have (none: all).
    """

    endpoints: tuple[str, ...]
    address: Address | None = None
    state: str = "not linked yet"
    linked: bool = False
    version: int = 0
    regions: frozenset[str] = frozenset()


class _News:
    """Why a link's next beat comes at once; with all offers where these changed."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.offers = True


class _Room:
    """So many may be inside at once; `waiting` is how many would like to."""

    def __init__(self, places: int) -> None:
        self.waiting = 0
        self._places = asyncio.Semaphore(places)

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(self, *how: object) -> None:
        self._places.release()


class Presence:
    def __init__(self, doors: Doors, agents: Sequence[Agent], coordinators: Sequence[str]) -> None:
        """`coordinators` are multiaddrs. Raises BadEndpoint for one that is none."""
        self._doors = doors
        self._agents = agents
        self.coordinators: list[Coordinator] = []
        self._news: list[_News] = []
        self._heard_offers = Directory(needs_beats=False, limit=MAX_HEARD)
        self._publish = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._room = _Room(MOST_LINKS)
        self._talks: list[Callable[[Link], Coroutine[Any, Any, None]]] = []
        for text in coordinators:
            peer = Endpoint.parse(text).peer
            self.coordinators.append(Coordinator((text,), peer.address if peer is not None else None))

    def accompany(self, talk: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
        """Hold this conversation, too, with every coordinator for as long as we are linked to it."""
        self._talks.append(talk)

    def is_coordinator(self, peer: Address) -> bool:
        """One that we are linked to."""
        return any(one.linked and one.address == peer for one in self.coordinators)

    def adverts(self) -> tuple[Advert, ...]:
        return tuple(agent.offer.advert for agent in self._agents if agent.offer is not None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for coordinator in self.coordinators:
                group.create_task(self._keep(coordinator, contextlib.nullcontext()))
            if self._doors.gossip is not None:
                group.create_task(self._advertise())
                group.create_task(self._listen())
                group.create_task(self._listen_for_offers())
            await asyncio.Event().wait()

    async def serve_offers(self, stream: Stream) -> None:
        """The handler of the offers protocol: our own adverts, and others' that were heard on gossip."""
        messages: MessageStream[WantOffers] = MessageStream(stream, _want)
        while (ask := await messages.recv()) is not None:
            now = self._doors.clock()
            known = [agent.offer for agent in self._agents if agent.offer is not None]
            known += [offer for offer in self._heard_offers.offers() if offer.offer.expires > now]
            adverts = [offer.advert for offer in known if ask.agent in (b"", offer.agent)]
            messages.send(Adverts(fitting(adverts)))
            await messages.drain()

    async def link_to(self, peer: Address) -> Link:
        """A live link to a peer, or a new one where an endpoint is known. Raises NetError."""
        for link in self._doors.transport.links():
            if link.peer == peer and not link.closed.is_set():
                return link
        for coordinator in self.coordinators:
            if coordinator.address == peer:
                return await self._dial(coordinator)
        raise DialFailed(f"No address of {short(peer)} is known and it has no link to us.")

    # Coordinators

    async def _keep(self, coordinator: Coordinator, room: AbstractAsyncContextManager[None]) -> None:
        backoff = FIRST_BACKOFF
        clock = asyncio.get_running_loop().time
        while True:
            linked_at: float | None = None
            gave_way = False
            async with room:
                try:
                    link = await self._dial(coordinator)
                    linked_at = clock()
                    coordinator.address = Address(link.peer)
                    if any(other.linked and other.address == link.peer for other in self.coordinators):
                        self.coordinators.remove(coordinator)  # configured by address, and heard of: once is enough
                        return
                    if coordinator.version == 0:  # it does not change while the process lives that we ask
                        agreed = await agreed_with(link)
                        coordinator.version, coordinator.regions = agreed.version, agreed.regions
                    coordinator.state, coordinator.linked = "linked", True
                    gave_way = await self._linked(link, coordinator, may_leave=room is self._room)
                    coordinator.state = OF_OTHERS if gave_way else "the link was lost"
                except (LadingError, TimeoutError) as error:
                    coordinator.state, coordinator.version = str(error) or "it does not answer", 0
                coordinator.linked = False
            if gave_way:
                await asyncio.sleep(self._some_time())
                continue
            if linked_at is not None and clock() - linked_at >= HELD_SECONDS:
                backoff = FIRST_BACKOFF
                await asyncio.sleep(AT_ONCE * self._doors.rng.random())
                continue
            await asyncio.sleep(backoff * (0.75 + self._doors.rng.random() / 2))
            backoff = min(LONGEST_BACKOFF, 2 * backoff)

    async def _dial(self, coordinator: Coordinator) -> Link:
        return await dial_any(self._doors.transport, coordinator.endpoints, coordinator.address, DIAL_SECONDS)

    async def _linked(self, link: Link, coordinator: Coordinator, *, may_leave: bool) -> bool:
        """Until the link or the stream ends; or, at one of another region that we only heard of, until it is time to
        give its place to one that waits, which may be of ours: then True."""
        serving = asyncio.ensure_future(self._accompanied(link, coordinator.version))
        try:
            while not serving.done():
                await asyncio.wait({serving}, timeout=self._some_time())
                if may_leave and not serving.done() and self._room.waiting and not self._is_of(coordinator):
                    return True
            await serving
            return False
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    def _some_time(self) -> float:
        """Not the same for all, so that they do not leave together for one that waits."""
        return OTHERS_SECONDS * (0.75 + self._doors.rng.random() / 2)

    def _is_of(self, coordinator: Coordinator) -> bool:
        """Whether it would have hosts of our region, as far as it and we say."""
        ours = {agent.offer.detail.region for agent in self._agents if agent.offer is not None}
        named = coordinator.regions
        return not named or any(not region or within(region, one) for region in ours for one in named)

    async def _accompanied(self, link: Link, version: int) -> None:
        talks = [asyncio.ensure_future(talk(link)) for talk in self._talks]
        try:
            await self._beat(link, version)
        finally:
            for talk in talks:
                talk.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _beat(self, link: Link, version: int) -> None:
        """Until the link or the stream ends."""
        stream = await link.open(HEARTBEAT)
        news = _News()
        self._news.append(news)
        ending = asyncio.ensure_future(link.closed.wait())
        ending.add_done_callback(lambda _: news.wake.set())  # the next beat would come too late to notice
        messages: MessageStream[object] = MessageStream(stream, msgspec.msgpack.Decoder(object))
        try:
            while not link.closed.is_set():
                news.wake.clear()
                if news.offers:
                    news.offers = False
                    messages.send(Hello(version, self.adverts()))
                messages.send(Beat(sum(agent.free for agent in self._agents), 0))
                await messages.drain()
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await news.wake.wait()
                        await asyncio.sleep(GATHER_SECONDS)
                except TimeoutError:
                    pass
        finally:
            ending.cancel()
            self._news.remove(news)
            stream.reset()

    # Gossip

    def offers_changed(self) -> None:
        """An offer of ours appeared, was renewed, or went away."""
        self._publish.set()
        for news in self._news:
            news.offers = True
            news.wake.set()

    def room_changed(self) -> None:
        """All slots are taken, or one is free again: coordinators would find out by refusals, or send nothing."""
        for news in self._news:
            news.wake.set()

    async def _advertise(self) -> None:
        gossip = self._doors.gossip
        assert gossip is not None
        while True:
            self._publish.clear()
            offers = [agent.offer for agent in self._agents if agent.offer is not None]
            gossip.provide([one.agent for one in offers], offers[0].detail.endpoints if offers else ())
            for advert in self.adverts():
                try:
                    await gossip.publish(TOPIC_OFFERS, encode(advert))
                except NetError as error:
                    log.warning("an offer was not published: %s", error)
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self._publish.wait()
            except TimeoutError:
                pass

    async def _listen(self) -> None:
        gossip = self._doors.gossip
        assert gossip is not None
        async for data in sample(gossip, TOPIC_COORDINATORS, NOTICE_BYTES):
            try:
                notice = decode(Notice, data)
                assert isinstance(notice, Notice)
                ad = check_notice(notice, self._doors.contracts.deployment.settlement_domain, self._doors.clock())
            except LadingError as error:
                log.debug("a coordinator's notice is not good: %s", error)
                continue
            self._heard(Address(ad.coordinator), notice.detail.endpoints)

    async def _listen_for_offers(self) -> None:
        """What other hosts advertise, so that a client may ask any one of them for the market."""
        gossip, domain = self._doors.gossip, self._doors.contracts.deployment.settlement_domain
        assert gossip is not None
        async for data in sample(gossip, TOPIC_OFFERS, OFFER_BYTES):
            try:
                advert = decode(Advert, data)
                assert isinstance(advert, Advert)
                self._heard_offers.prune(self._doors.clock())
                self._heard_offers.put(check_advert(advert, domain, self._doors.clock()))
            except LadingError as error:
                log.debug("an offer is not good: %s", error)

    def _heard(self, address: Address, endpoints: tuple[str, ...]) -> None:
        for coordinator in self.coordinators:
            if coordinator.address == address:
                # Signed by itself. Never merged by endpoint: anyone may name another's.
                coordinator.endpoints = tuple(dict.fromkeys((*endpoints, *coordinator.endpoints)))[:8]
                return
        if len(self.coordinators) >= MAX_COORDINATORS or self._group is None:
            return
        taken = [there for coordinator in self.coordinators for there in _places(coordinator.endpoints)]
        if not diverse([endpoints], _places, taken, COORDINATORS_OF_AREA):
            log.debug("coordinator %s is one too many in its part of the network", short(address))
            return
        coordinator = Coordinator(endpoints, address)
        self.coordinators.append(coordinator)
        log.info("heard of coordinator %s", short(address))
        self._group.create_task(self._keep(coordinator, self._room))


def _places(endpoints: Sequence[str]) -> list[Place]:
    found = []
    for text in endpoints:
        try:
            found.append(place(Endpoint.parse(text).host))
        except BadEndpoint:  # another transport's, which we do not dial
            continue
    return found
