"""What other coordinators are told: a summary of what reports here, when it changed, and quotes to who asks.

Only what is linked here is told. What it comes to is lading.core.survey's business.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from lading.core.atlas import Atlas
from lading.core.index import Entry
from lading.core.quotes import aim_asked
from lading.core.survey import differs
from lading.dispatch import Directory
from lading_net.core.quotas import Bucket, Quotas, Rate
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Address, Gossip, Stream
from lading_protocol.eip712 import Domain
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import encode
from lading_protocol.offers import fitting
from lading_protocol.summaries import (
    MAX_AGE_MS,
    MOST_ELSEWHERE,
    TOPIC_SUMMARIES,
    Endpoints,
    Quote,
    Quotes,
    Stock,
    SummaryAd,
    SummaryDetail,
    WantQuotes,
    make_summary,
    paged,
)

log = logging.getLogger(__name__)
_want = msgspec.msgpack.Decoder(WantQuotes)
# A page that did not change is told again after so many periods, and is good for three times as long.
REPEAT: Final = 12
LIVES: Final = 3
# Bytes a second of one page, over time: a large page that changes all the time is told less often.
PAGE_RATE: Final = 1_000
# Bytes of an answer beside its adverts: reports, and endpoints of others.
MOST_HEAD: Final = 32_768
# Questions of one peer, and of all together.
EACH = Rate(burst=64, second=32, debt=64)
ALL = Rate(burst=512, second=512, debt=512)


class _Said(msgspec.Struct, frozen=True):
    page: tuple[Stock, ...]
    at: float


class Telling:
    """`endpoints` are where others reach this coordinator. `clock` gives Unix seconds, `period` is in seconds too."""

    def __init__(
        self,
        directory: Directory,
        atlas: Atlas,
        endpoints: Endpoints,
        clock: Callable[[], float],
        rng: random.Random,
        period: float,
    ) -> None:
        self._directory = directory
        self._atlas = atlas
        self._endpoints = endpoints
        self._clock = clock
        self._rng = rng
        self._period = period
        self._said: dict[int, _Said] = {}
        self._pages = 1
        self._sequence = 0
        self._each: Quotas[Address] = Quotas(EACH)
        self._all = Bucket(ALL, clock())
        self.published = self.bytes = 0

    # Summaries

    async def publish(self, gossip: Gossip, domain: Domain, key: PrivateKey) -> None:
        """For ever."""
        while True:
            for detail, sequence, expires in await self.news():
                ad = SummaryAd(key.address, sequence, expires, bytes(32))
                data = encode(make_summary(ad, detail, domain, key))
                try:
                    await gossip.publish(TOPIC_SUMMARIES, data)
                except NetError as error:
                    log.warning("A summary of this coordinator could not be published: %s", error)
                self.published += 1
                self.bytes += len(data)
            await asyncio.sleep(self._period)

    async def news(self) -> list[tuple[SummaryDetail, int, int]]:
        """The pages that others should hear of now, with their number in time and their end."""
        stocks: list[Stock] = []
        for some in self._directory.stocks(self._clock()):
            stocks += some
            await asyncio.sleep(0)  # streams go on in between
        now, pages = self._clock(), paged(stocks)
        if len(pages) != self._pages:
            self._said, self._pages = {}, len(pages)
        sequence = self._sequence = max(int(now * 1000), self._sequence + 1)
        expires = int(now + LIVES * REPEAT * self._period) + 1
        found = []
        for number, page in enumerate(pages):
            if self._is_news(number, page, now):
                found.append((SummaryDetail(self._endpoints, number, len(pages), page), sequence, expires))
        return found

    def _is_news(self, number: int, page: tuple[Stock, ...], now: float) -> bool:
        said = self._said.get(number)
        if said is None:
            if not page:
                return False
        elif differs(said.page, page):
            if now - said.at < sum(len(encode(stock)) for stock in said.page) / PAGE_RATE:
                return False
        elif not page or now - said.at < REPEAT * self._period:
            return False
        self._said[number] = _Said(page, now)
        return True

    # Quotes

    async def serve_quotes(self, stream: Stream) -> None:
        """The handler of QUOTES."""
        messages: MessageStream[WantQuotes] = MessageStream(stream, _want)
        while (want := await messages.recv()) is not None:
            await self._pace(stream.peer)
            messages.send(self.answer(want))
            await messages.drain()

    async def _pace(self, peer: Address) -> None:
        """Whoever asks too often waits for what it took beyond its due."""
        now = self._clock()
        wait = max(self._each.wait(peer, now), self._all.wait(now))
        self._each.charge(peer, now, 1.0)
        self._all.charge(now, 1.0)
        if wait:
            await asyncio.sleep(wait)

    def answer(self, want: WantQuotes) -> Quotes:
        now, aim, agent = self._clock(), aim_asked(want), AgentId(want.agent)
        entries = self._directory.quotable(agent, aim, want.most, now, self._rng)
        hints = self._atlas.hints(agent, aim, now)[:MOST_ELSEWHERE]
        elsewhere = tuple(hint.endpoints for hint in hints)
        told = len(fitting([entry.known.advert for entry in entries], MOST_HEAD))
        return Quotes(tuple(_quote(entry, now) for entry in entries[:told]), elsewhere)


def _quote(entry: Entry, now: float) -> Quote:
    host = entry.host
    age = 0.0 if host.beat_at is None else now - host.beat_at
    return Quote(entry.known.advert, max(0, host.room), host.waiting, min(MAX_AGE_MS, max(0, int(age * 1000))))
