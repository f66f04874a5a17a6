"""What a coordinator tells the others: only what reports to it, when it matters, as much as a message carries."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from factories import NOW, chat_request, unsigned_offer, with_changes
from lading.core.atlas import Atlas
from lading.core.matching import Want, aim_of
from lading.core.quotes import want_of
from lading.dispatch.directory import Directory
from lading_coordinator.regions.telling import Telling
from lading_net.clock import run_virtual
from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import MAX_FRAME, Advert, encode
from lading_protocol.summaries import MOST_QUOTES, SummaryDetail

AGENT = AgentId(b"\xaa" * 32)
OWN = Address(bytes([254]) * 20)
AIM = aim_of(Want(chat_request()))


class Office:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.directory = Directory(needs_beats=True)
        self.telling = Telling(self.directory, Atlas(OWN), ("/ip4/10.0.0.1/tcp/1",), self.now, random.Random(1), 5.0)

    def now(self) -> float:
        return NOW + self.loop.time()

    def host(self, n: int, price: int = 100, free: int = 4, **changes: object) -> None:
        known = unsigned_offer(n.to_bytes(20, "big"), price, 2 * price, expires=int(NOW) + 80_000, **changes)
        advert = Advert(known.offer.words() + bytes(65), known.detail)
        self.directory.replace(known.host, [with_changes(known, advert=advert)])
        self.directory.beat(known.host, free, 0, self.now())

    async def news(self) -> list[SummaryDetail]:
        return [detail for detail, _, _ in await self.telling.news()]

    async def told_in(self, seconds: int, meanwhile: Callable[[], None]) -> int:
        told = 0
        for _ in range(seconds // 5):
            meanwhile()
            told += len(await self.news())
            await asyncio.sleep(5)
        return told


def play(story: Callable[[Office], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(Office())

    run_virtual(main(), seed=1, limit=7200)


def test_nothing_is_told_while_there_is_nothing_and_what_is_gone_is_told_once() -> None:
    async def story(office: Office) -> None:
        assert await office.news() == []
        office.host(1)
        (first,) = await office.news()
        assert [(one.hosts, one.free) for one in first.stocks] == [(1, 4)]
        assert await office.news() == []
        await asyncio.sleep(10)
        office.directory.gone(Address((1).to_bytes(20, "big")))
        (last,) = await office.news()
        assert last.stocks == ()
        await asyncio.sleep(200)
        assert await office.news() == []

    play(story)


def test_what_stays_as_it_is_is_told_each_minute_and_a_large_page_that_changes_no_more_than_its_due() -> None:
    async def story(office: Office) -> None:
        for n in range(300):
            office.host(n, region=f"r{n % 60}", agent=bytes([n // 60 % 2 + 1]) * 32)
        wobble = random.Random(2)

        def beats() -> None:
            for n in range(300):
                office.directory.beat(Address(n.to_bytes(20, "big")), 4, 0, office.now())

        def change() -> None:
            for n in range(300):
                office.directory.beat(Address(n.to_bytes(20, "big")), wobble.randrange(2), 0, office.now())

        assert await office.told_in(300, beats) == 5
        (page,) = office.telling._said.values()
        size = sum(len(encode(stock)) for stock in page.page)
        told = await office.told_in(300, change)
        assert size > 6_000
        assert 5 <= told <= 300 * 1_000 / size + 1

    play(story)


def test_what_others_quoted_is_neither_summed_up_nor_quoted() -> None:
    async def story(office: Office) -> None:
        office.host(1)
        for n in range(2, 40):
            known = unsigned_offer(n.to_bytes(20, "big"), 10, 20, expires=int(NOW) + 80_000)
            assert office.directory.quote(known, 4, 0, office.now())
        (page,) = await office.news()
        (stock,) = page.stocks
        assert (stock.hosts, stock.free, stock.corners) == (1, 4, (("100", "200"),))
        quotes = office.telling.answer(want_of(AGENT, AIM, MOST_QUOTES)).quotes
        assert len(quotes) == 1

    play(story)


def test_an_answer_is_never_more_than_a_message_carries() -> None:
    async def story(office: Office) -> None:
        ways = tuple(f"/ip4/10.0.0.{n}/tcp/4101/p2p/{'x' * 230}" for n in range(8))
        for n in range(600):
            office.host(n, price=100 + n % 7, endpoints=ways, name="n" * 128)
        asked = want_of(AGENT, AIM, MOST_QUOTES)
        answer = office.telling.answer(asked)
        assert 100 < len(answer.quotes) <= MOST_QUOTES
        assert len(encode(answer)) <= MAX_FRAME
        assert len({quote.advert.offer for quote in answer.quotes}) == len(answer.quotes)
        few = office.telling.answer(msgspec.structs.replace(asked, most=3))
        assert len(few.quotes) == 3

    play(story)


def test_those_who_ask_are_not_all_sent_to_the_same_hosts() -> None:
    async def story(office: Office) -> None:
        for n in range(400):
            office.host(n)
        asked = want_of(AGENT, AIM, 8)
        told = [quote.advert.offer for _ in range(40) for quote in office.telling.answer(asked).quotes]
        assert len(told) == 320
        assert len(set(told)) > 150

    play(story)
