"""What the coordinator answers to peers: heartbeats, offers, settling and cases; and what it tells everyone by gossip.

Each handler is one conversation on one stream. Whom to choose is matching's business, what is owed the purse's.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

import msgspec

from lading.core.matching import within
from lading.dispatch import Directory, Purse
from lading_coordinator.agents import Agents
from lading_coordinator.core.places import Places
from lading_coordinator.metrics import Metrics
from lading_coordinator.standing import Standing
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Gossip, Stream, StreamHandler
from lading_protocol import OLDEST, VERSION
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, short
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import (
    TOPIC_COORDINATORS,
    TOPIC_OFFERS,
    VOUCHER_PAGE,
    Advert,
    Adverts,
    Beat,
    Collect,
    CoordinatorDetail,
    Hello,
    ToIndex,
    Vouchers,
    WantOffers,
    encode,
)
from lading_protocol.offers import CoordinatorAd, KnownOffer, check_advert, fitting, make_notice
from lading_protocol.receipts import Offer

log = logging.getLogger(__name__)
NOTICE_SECONDS = 30.0
NOTICE_LIFE = 600
# Gossip is from anybody: it must leave room for the hosts that are linked, and names without a stake, which are free,
# for those that have one. So many offers of all that are not linked, and of the strangers among them.
MAX_GOSSIPED, MAX_OF_STRANGERS = 20_000, 2_000
CHECK_SECONDS = 5.0
LEARN_TURNS = 10
_to_index = msgspec.msgpack.Decoder(ToIndex)
_want = msgspec.msgpack.Decoder(WantOffers)
_collect = msgspec.msgpack.Decoder(Collect)
_advert = msgspec.msgpack.Decoder(Advert)


class Index:
    """Feeds the directory from heartbeats and gossip. `clock` gives Unix seconds. Of what is gossiped only offers in
    `regions` are kept, all where none is named; who is linked is kept wherever it stands."""

    def __init__(
        self,
        directory: Directory,
        standing: Standing,
        agents: Agents,
        domain: Domain,
        metrics: Metrics,
        clock: Callable[[], float],
        regions: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._regions = tuple(regions)
        self._standing = standing
        self._agents = agents
        self._domain = domain
        self._metrics = metrics
        self._clock = clock
        self._places = Places(MAX_GOSSIPED, MAX_OF_STRANGERS)
        self._streams: dict[Address, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve_heartbeat(self, stream: Stream) -> None:
        """The handler of HEARTBEAT. A host is eligible from its first beat until this stream ends."""
        host = stream.peer
        messages: MessageStream[ToIndex] = MessageStream(stream, _to_index)
        self._streams[host] = stream
        greeted = False
        try:
            while (message := await messages.recv()) is not None:
                match message:
                    case Hello():
                        await self._hello(host, message)
                        greeted = True
                    case Beat() if greeted:
                        self._directory.beat(host, message.free, message.waiting, self._clock())
                    case _:
                        log.info("Host %s beats without a greeting", short(host))
                        return
        finally:
            if self._streams.get(host) is stream:
                del self._streams[host]
                self._directory.gone(host)
                log.info("Host %s is gone", short(host))
            self._count()

    async def _hello(self, host: Address, hello: Hello) -> None:
        if not OLDEST <= hello.version <= VERSION:
            log.info("Host %s speaks version %d, this is %d to %d", short(host), hello.version, OLDEST, VERSION)
            return
        offers = [known for advert in hello.adverts if (known := self._checked(advert, host)) is not None]
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._standing.check(host)
                offers = await self._fair(offers)
        except TimeoutError:
            log.info("Host %s: the chain is slow to say whether it has a stake", short(host))
        new = not self._directory.offers_of(host)
        self._place(host, offers)
        self._directory.forgive(host, self._clock())
        if new:
            log.info("Host %s is here with %s", short(host), ", ".join(one.detail.name for one in offers) or "no offer")
        for known in offers:
            self._later(self._agents.learn(known.agent, host))
        self._count()

    async def _fair(self, offers: list[KnownOffer]) -> list[KnownOffer]:
        """Those under terms that were agreed for their agent."""
        fair = []
        for known in offers:
            if await self._agents.sold_under(known.agent, known.terms):
                fair.append(known)
            else:
                log.warning("Host %s offers %s under foreign terms", short(known.host), short(known.agent))
        return fair

    def _place(self, host: Address, offers: list[KnownOffer]) -> None:
        self._directory.replace(host, offers)
        for known in offers:
            self._directory.sunset(known.terms, self._agents.sunset_of(known.agent, known.terms))

    def _checked(self, advert: Advert, host: Address) -> KnownOffer | None:
        try:
            known = check_advert(advert, self._domain, self._clock())
        except LadingError as error:
            log.info("An offer of host %s is refused: %s", short(host), error.message)
            return None
        if known.host != host:
            log.info("Host %s shows an offer of %s as its own", short(host), short(known.host))
            return None
        return known

    def beats(self, host: Address) -> bool:
        """Whether it is linked and beats."""
        return host in self._streams

    async def serve_offers(self, stream: Stream) -> None:
        """The handler of OFFERS."""
        messages: MessageStream[WantOffers] = MessageStream(stream, _want)
        while (ask := await messages.recv()) is not None:
            now = self._clock()
            known = [
                one.advert
                for one in self._directory.offers()
                if one.offer.expires > now and (not ask.agent or one.agent == ask.agent)
            ]
            messages.send(Adverts(fitting(known)))
            await messages.drain()

    async def listen(self, gossip: Gossip) -> None:
        """Takes in the offers that everyone publishes, until the gossip ends."""
        async for data in gossip.subscribe(TOPIC_OFFERS):
            try:
                advert = _advert.decode(data)
                if self._is_news(advert):  # a linked host says itself what it offers, and that is checked further
                    self._take(advert)
            except (LadingError, msgspec.DecodeError, UnicodeDecodeError) as error:
                log.debug("A gossiped offer is refused: %s", error)

    def _take(self, advert: Advert) -> None:
        """Keeps a gossiped offer in place of an older one, or where there is room. Raises LadingError for a bad one."""
        offer = unpack(Offer, advert.offer).value
        host, held = Address(offer.host), self._directory.offers_of(Address(offer.host))
        stranger = not self._standing.has_stake(host)
        renewed = any(one.agent == offer.agent and one.terms == offer.terms for one in held)
        if renewed or self._places.free(stranger=stranger):
            self._directory.put(check_advert(advert, self._domain, self._clock()))
            self._places.take(host, self._heard_of(host), stranger=stranger)

    def _heard_of(self, host: Address) -> int:
        """Offers of it that are kept by hearsay alone."""
        return 0 if host in self._streams else len(self._directory.offers_of(host))

    def _is_news(self, advert: Advert) -> bool:
        """A signature costs more to check than a number to compare. Offers of other regions are news where another
        coordinator quoted the host."""
        offer = unpack(Offer, advert.offer).value
        if not self._directory.quotes(Address(offer.host)) and not self._is_ours(advert.detail.region):
            return False
        return offer.host not in self._streams and not any(
            held.agent == offer.agent and held.terms == offer.terms and held.offer.sequence >= offer.sequence
            for held in self._directory.offers_of(Address(offer.host))
        )

    def _is_ours(self, region: str) -> bool:
        return not self._regions or any(within(region, one) for one in self._regions)

    async def tend(self) -> None:
        """Forgets what expired and asks the chain again about hosts in doubt, for ever."""
        turn = 0
        while True:
            await asyncio.sleep(1.0)
            await self._standing.recheck()
            self._directory.prune(self._clock())
            self._places.recount(self._heard_of, lambda host: not self._standing.has_stake(host))
            if turn % LEARN_TURNS == 0:
                self._count()
            turn += 1
            if turn % LEARN_TURNS == 0:
                await self._learn_again()

    async def _learn_again(self) -> None:
        """Agents whose manifest was not to be had when their host came, for instance while the chain was away."""
        for host in list(self._streams):
            offers = self._directory.offers_of(host)
            fair = await self._fair(offers)
            if len(fair) < len(offers) and host in self._streams:  # it may have left meanwhile
                self._place(host, fair)
            for known in fair:
                await self._agents.learn(known.agent, host)

    def _count(self) -> None:
        self._metrics.quoted.set(self._directory.quoted)
        self._metrics.hosts.set(self._directory.linked)
        self._metrics.offers.set(self._directory.size)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def announce(
    gossip: Gossip,
    detail: Callable[[], CoordinatorDetail],
    domain: Domain,
    key: PrivateKey,
    clock: Callable[[], float],
) -> None:
    """Publishes this coordinator's notice now and again, for ever."""
    while True:
        now = int(clock())
        ad = CoordinatorAd(key.address, now, now + NOTICE_LIFE, bytes(32))
        try:
            await gossip.publish(TOPIC_COORDINATORS, encode(make_notice(ad, detail(), domain, key)))
        except NetError as error:
            log.warning("This coordinator's notice could not be published: %s", error)
        await asyncio.sleep(NOTICE_SECONDS)


def settle_handler(purse: Purse) -> StreamHandler:
    """The handler of SETTLE: a host gets the latest vouchers that are for it, however it lost them."""

    async def handler(stream: Stream) -> None:
        messages: MessageStream[Collect] = MessageStream(stream, _collect)
        while await messages.recv() is not None:
            for page in purse.pages(stream.peer, VOUCHER_PAGE):
                messages.send(Vouchers(tuple(page)))
                await messages.drain()

    return handler
