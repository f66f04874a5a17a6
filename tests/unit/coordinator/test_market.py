"""The notice board: what the chain's events make of it, what a reorganisation takes back, and what the page says."""

import asyncio

from factories import key, known_offer
from lading.dispatch import Directory
from lading_contracts import events
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.epochs import Calendar
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_contracts.shares import Lot
from lading_coordinator.core.catalogue import Entry, by_promotion
from lading_coordinator.core.market import KEPT, Board, newest, phase
from lading_coordinator.marketwatch import MarketWatch
from lading_protocol.ids import ZERO_ADDRESS, Address, AgentId, Digest, TermsId, Wei, to_hex
from unit.coordinator.conftest import Play
from unit.coordinator.world import World

AGENT, OTHER = AgentId(b"\xa1" * 32), AgentId(b"\xa2" * 32)
NOBODY = Digest(bytes(32))
START = 1_800_000_000


def entry(event: events.Event, block: int = 1) -> events.Entry:
    return events.Entry(event, "ShareAuctions", block, NOBODY, NOBODY, 0)


def test_an_auction_goes_from_sealing_to_its_result() -> None:
    board, id_ = Board(), Digest(b"\x01" * 32)
    maker = Party(Address(b"\x05" * 20), Role.MAKER, 1_000)
    board.note(entry(events.AuctionOpened(id_, AGENT, 7, 4, 2, 500, Wei(9), (maker,))))
    board.note(entry(events.ShareSealed(id_, Address(b"\x06" * 20), 1)))
    board.note(entry(events.ShareRevealed(id_, Address(b"\x06" * 20), 300)))
    auction = board.auctions[id_]
    assert (auction.state, auction.sealed, auction.opened) == ("open", 1, [(b"\x06" * 20, 300)])
    board.note(entry(events.AuctionSettled(id_, TermsId(b"\x07" * 32), 450, (Address(b"\x06" * 20),), Wei(0))))
    assert (auction.state, auction.bps, auction.terms) == ("settled", 450, b"\x07" * 32)


def test_phases_follow_the_calendar() -> None:
    calendar = Calendar(1_000, 90)
    told = [phase(calendar, 2, now) for now in (1_090, 1_149, 1_150, 1_179, 1_180)]
    assert told == ["sealing", "sealing", "opening", "opening", "over"]


def test_only_the_newest_are_kept() -> None:
    board = Board()
    for n in range(KEPT + 5):
        board.note(entry(events.PromotionSealed(n, 0, ZERO_ADDRESS, 1)))
        board.note(entry(events.Redeemed(ZERO_ADDRESS, TermsId(NOBODY), 0, Wei(n), Wei(1), 1), n))
    assert len(board.promotions) == len(board.payments) == KEPT
    assert [one.block for one in newest(board.payments, 2)] == [KEPT + 4, KEPT + 3]


def test_promoted_agents_come_first_in_the_order_of_their_slots() -> None:
    board = Board()
    nothing = Wei(0), Wei(0), Wei(0), Wei(0)
    board.note(entry(events.Promoted(3, 1, OTHER, key("a").address, *nothing)))
    board.note(entry(events.Promoted(3, 0, AGENT, key("b").address, *nothing)))
    board.note(entry(events.Promoted(3, 2, AgentId(NOBODY), ZERO_ADDRESS, *nothing)))
    assert board.promoted(3) == (AGENT, OTHER)
    assert board.promoted(4) == ()
    entries = [Entry(AgentId(bytes([n]) * 32), "n", "1", ZERO_ADDRESS, (), 1, 1) for n in (1, 0xA2, 0xA1)]
    assert [one.agent[0] for one in by_promotion(entries, board.promoted(3))] == [0xA1, 0xA2, 1]


def test_offers_below_the_floor_are_dropped_and_taken_no_more() -> None:
    directory, host = Directory(needs_beats=False), key("host")
    directory.put(known_offer(host, sequence=4))
    directory.raise_floor(host.address, 5)
    assert directory.size == 0
    assert not directory.put(known_offer(host, sequence=4))
    assert directory.put(known_offer(host, sequence=5))
    directory.raise_floor(host.address, 3)
    assert not directory.put(known_offer(host, sequence=4))
    assert directory.size == 1


class Market:
    """A fake chain with one agent, and a watch on it."""

    def __init__(self) -> None:
        self.now = float(START)
        self.chain = FakeChain(lambda: self.now)
        self.floors: dict[Address, int] = {}

    async def build(self) -> None:
        self.contracts = Contracts(self.chain, await deploy(self.chain, key("bank"), Parameters.devnet()))
        self.watch = MarketWatch(self.contracts, lambda: self.now, self.floors.__setitem__)
        self.maker = key("maker")
        await self.contracts.registry.register(self.maker, AGENT)
        self.table = [Party(self.maker.address, Role.MAKER, 1_000)]
        await self.contracts.registry.agree_terms(self.maker, AGENT, self.table)

    async def catch_up(self) -> None:
        while not await self.watch.step():
            pass


def test_the_watch_reads_the_past_and_forgets_what_the_chain_took_back() -> None:
    async def main() -> None:
        market = Market()
        await market.build()
        assert not market.watch.caught_up
        await market.catch_up()
        assert market.watch.caught_up
        assert len(market.watch.board.tables) == 1
        head = await market.chain.block()
        assert head is not None
        calendar = await market.contracts.share_auctions.calendar()
        lot = Lot(AGENT, calendar.epoch_at(int(market.now)) + 1, Role.CURATOR, 1, 500)
        await market.contracts.share_auctions.open(market.maker, lot, market.table)
        await market.contracts.offer_book.raise_floor(key("host"), 9)
        await market.catch_up()
        assert [one.state for one in market.watch.board.auctions.values()] == ["open"]
        assert market.floors == {key("host").address: 9}
        market.chain.rewind(head.number)
        market.chain.mine(3)
        await market.catch_up()
        assert market.watch.board.auctions == {}
        assert len(market.watch.board.tables) == 1

    asyncio.run(main())


def test_an_outage_only_makes_the_watch_wait() -> None:
    async def main() -> None:
        market = Market()
        await market.build()
        market.chain.down = True
        running = asyncio.create_task(market.watch.run())
        await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    asyncio.run(main())


def test_the_page_and_the_json_say_the_same(play: Play) -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(10)
        tree = (await world.ask("GET", "/lading/v1/market?limit=5")).json
        assert tree["caught_up"]
        (table,) = tree["tables"]
        assert (table["terms"], table["host_bps"], table["state"]) == (to_hex(world.terms), 8_500, "open")
        page = (await world.ask("GET", "/market")).body.decode()
        assert to_hex(world.terms)[:10] in page
        assert "15 %" in page
        assert (await world.ask("GET", "/lading/v1/market?limit=x")).status == 400

    play(story)
