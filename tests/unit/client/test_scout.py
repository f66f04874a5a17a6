"""Asking others for offers: one question for all who want the same, and nothing believed without its host."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from factories import NOW, chat_request, key, known_offer, network
from lading.core.atlas import Atlas
from lading.core.matching import Want, aim_of
from lading.core.survey import differs
from lading.dispatch.directory import Directory
from lading.dispatch.scout import BRING_SECONDS, Scout
from lading_net.clock import run_virtual
from lading_net.memory import MemoryNetwork
from lading_net.memory.network import Conditions
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.offers import KnownOffer
from lading_protocol.summaries import (
    QUOTES,
    KnownSummary,
    Quote,
    Quotes,
    Stock,
    SummaryAd,
    SummaryDetail,
    WantQuotes,
)

AGENT = AgentId(b"\xaa" * 32)
WANT = Want(chat_request())
DOMAIN = network().settlement_domain


class Other:
    """A coordinator that quotes what it is given."""

    def __init__(self, yard: "Yard", name: str) -> None:
        self.key = key(name)
        self.transport = yard.net.transport(self.key)
        self.quotes: tuple[Quote, ...] = ()
        self.asked: list[WantQuotes] = []
        self.delay = 0.05

    async def open(self, number: int) -> str:
        self.transport.handle(QUOTES, self._answer)
        return await self.transport.listen(f"/ip4/10.0.{number}.1/tcp/4600")

    async def _answer(self, stream: Stream) -> None:
        messages: MessageStream[WantQuotes] = MessageStream(stream, msgspec.msgpack.Decoder(WantQuotes))
        while (want := await messages.recv()) is not None:
            self.asked.append(want)
            await asyncio.sleep(self.delay)
            messages.send(Quotes(self.quotes))
            await messages.drain()


class Yard:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.net = MemoryNetwork(seed=3, conditions=Conditions(delay=0.02))
        self.directory = Directory(needs_beats=True)
        self.atlas = Atlas(key("own").address)
        self.admitted: list[KnownOffer] = []
        self.scout = Scout(self.net.transport(key("own")), self.directory, self.atlas, DOMAIN, self.now, self._admit)
        self.others: list[Other] = []

    def now(self) -> float:
        return NOW + self.loop.time()

    async def _admit(self, offers: Sequence[KnownOffer]) -> list[KnownOffer]:
        self.admitted += offers
        return list(offers)

    async def other(self, name: str, price: int = 1_000_000, free: int = 4) -> Other:
        made = Other(self, name)
        self.others.append(made)
        endpoint = await made.open(len(self.others))
        self.say(made.key, endpoint, price, free)
        return made

    def say(self, who: PrivateKey, endpoint: str, price: int, free: int) -> None:
        stock = Stock(AGENT, "", 3, free, 4096, ((str(price), str(2 * price)),))
        ad = SummaryAd(who.address, 1, int(self.now()) + 600, bytes(32))
        assert self.atlas.put(KnownSummary(ad, SummaryDetail((endpoint,), 0, 1, (stock,))), self.now())

    async def close(self) -> None:
        await self.scout.close()
        for one in self.others:
            await one.transport.close()


def play(story: Callable[[Yard], Awaitable[None]]) -> None:
    async def main() -> None:
        yard = Yard()
        try:
            await story(yard)
        finally:
            await yard.close()

    run_virtual(main(), seed=1, limit=7200)


def quote(name: str, price: int = 1_000_000, free: int = 4, age: int = 100) -> Quote:
    return Quote(known_offer(key(name), price_in=price, price_out=2 * price).advert, free, 0, age)


def test_all_who_want_the_same_wait_for_one_question() -> None:
    async def story(yard: Yard) -> None:
        other = await yard.other("other")
        other.quotes = (quote("host"),)
        found = await asyncio.gather(*(yard.scout.bring(AGENT, WANT) for _ in range(50)))
        assert found == [True] * 50
        assert len(other.asked) == 1
        assert await yard.scout.bring(AGENT, WANT)
        assert len(other.asked) == 1, "it was answered a moment ago"

    play(story)


def test_who_waits_does_so_for_a_bounded_time_however_silent_others_are() -> None:
    async def story(yard: Yard) -> None:
        for n in range(6):
            (await yard.other(f"other {n}")).delay = 1e6
        began = yard.loop.time()
        assert not await yard.scout.bring(AGENT, WANT)
        assert yard.loop.time() - began <= BRING_SECONDS + 0.01
        began = yard.loop.time()
        assert not await yard.scout.bring(AGENT, WANT)
        assert yard.loop.time() - began <= BRING_SECONDS + 0.01

    play(story)


def test_the_next_ones_are_asked_when_the_best_have_nothing_and_more_rarely_then() -> None:
    async def story(yard: Yard) -> None:
        empty = [await yard.other(f"empty {n}", price=900_000 + n) for n in range(2)]
        good = await yard.other("good")
        good.quotes = (quote("host"),)
        assert await yard.scout.bring(AGENT, WANT)
        assert [len(one.asked) for one in (*empty, good)] == [1, 1, 1]
        for _ in range(20):
            await asyncio.sleep(1)
            yard.scout.want_more(AGENT, aim_of(WANT))
        assert all(2 <= len(one.asked) <= 4 for one in empty)
        assert 8 <= len(good.asked) <= 11

    play(story)


def test_nobody_is_asked_for_what_nobody_says_to_have() -> None:
    async def story(yard: Yard) -> None:
        other = await yard.other("other")
        assert not await yard.scout.bring(AgentId(b"\x01" * 32), WANT)
        assert (other.asked, yard.loop.time()) == ([], 0.0)

    play(story)


@pytest.mark.parametrize("what", ["forged", "expired", "another agent's", "a twin"])
def test_what_its_host_did_not_sign_for_this_is_not_kept(what: str) -> None:
    async def story(yard: Yard) -> None:
        other = await yard.other("other")
        good = quote("host")
        advert = good.advert
        match what:
            case "forged":
                bad = msgspec.structs.replace(advert, offer=advert.offer[:-40] + bytes(40))
            case "expired":
                bad = known_offer(key("old"), now=NOW - 3590).advert
                await asyncio.sleep(20)
            case "another agent's":
                bad = known_offer(key("host"), agent=b"\x0b" * 32).advert
            case _:
                bad = advert
        other.quotes = (msgspec.structs.replace(good, advert=bad), good) if what == "a twin" else (Quote(bad, 4, 0, 0),)
        found = await yard.scout.bring(AGENT, WANT)
        assert found == (what == "a twin")
        assert yard.directory.size == (what == "a twin")
        assert len(yard.admitted) == (what == "a twin")
        if what in ("forged", "expired"):
            assert yard.atlas.voices() == [], "who quotes what was not signed is not heard any more"

    play(story)


def test_one_that_does_not_know_the_question_costs_a_round_trip() -> None:
    async def story(yard: Yard) -> None:
        older = key("older")
        transport = yard.net.transport(older)
        yard.say(older, await transport.listen("/ip4/10.0.77.1/tcp/4600"), 900_000, 4)
        good = await yard.other("good")
        good.quotes = (quote("host"),)
        began = yard.loop.time()
        assert await yard.scout.bring(AGENT, WANT)
        assert yard.loop.time() - began <= 0.5
        await transport.close()

    play(story)


def test_an_old_report_is_worth_what_is_left_of_it() -> None:
    async def story(yard: Yard) -> None:
        other = await yard.other("other")
        other.quotes = (quote("host", age=4_900),)
        assert await yard.scout.bring(AGENT, WANT)
        await asyncio.sleep(0.2)
        assert yard.directory.choose(AGENT, WANT, yard.now(), random.Random(1)) is None

    play(story)


def test_many_questions_at_once_are_no_more_than_may_run() -> None:
    async def story(yard: Yard) -> None:
        other = await yard.other("other")
        other.delay = 1.0
        for n in range(200):
            agent = AgentId(n.to_bytes(32, "big"))
            stock = Stock(agent, "", 3, 4, 4096, (("1", "1"),))
            ad = SummaryAd(key(f"c{n % 40}").address, n + 2, int(yard.now()) + 600, bytes(32))
            detail = SummaryDetail((f"/ip4/10.9.{n}.1/tcp/1",), 0, 1, (stock,))
            yard.atlas.put(KnownSummary(ad, detail), yard.now() + n)
            yard.scout.want_more(agent, aim_of(WANT))
        assert len(yard.scout._asking) <= 32
        assert len(yard.scout._hungry) <= 256

    play(story)


def test_a_summary_is_told_again_for_what_matters_far_away() -> None:
    base = Stock(AGENT, "eu", 100, 40, 4096, (("1000", "2000"), ("1000", "2000")), (("P", "exact"), ("V", "exact")))

    def changed(**changes: object) -> bool:
        return differs([base], [msgspec.structs.replace(base, **changes)])

    assert not changed()
    assert not changed(free=41, hosts=99, corners=(("1049", "2000"), ("951", "2000")))
    assert not changed(kinds=(("V", "exact"), ("P", "exact")))
    assert changed(free=0)
    assert changed(free=80)
    assert changed(hosts=50)
    assert changed(context=8192)
    assert changed(corners=(("1051", "2000"), ("1000", "2000")))
    assert changed(corners=(("1000", "2000"),))
    assert changed(kinds=(("V", "exact"),))
    assert differs([base], [])
    assert differs([base], [msgspec.structs.replace(base, region="us")])
    assert differs([msgspec.structs.replace(base, free=0)], [msgspec.structs.replace(base, free=1)])
