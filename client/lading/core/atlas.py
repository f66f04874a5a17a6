"""What other coordinators say they have, by agent: whom to ask when the own index cannot serve a request as well.

All of it is hearsay, so it only ever decides who is asked. Bounded whoever speaks: keys are free, so a crowd of new
coordinators drives out one another, never one that has proved its word.
"""

from collections.abc import Iterator
from sys import intern
from typing import Final

import msgspec

from lading.core.matching import FAR, TRUST, Aim, Filters, distance, within
from lading_net.core.crowds import Crowd
from lading_net.core.places import Place, place
from lading_net.core.scores import Scores
from lading_protocol.ids import Address, AgentId
from lading_protocol.summaries import KnownSummary, Stock

MOST_COORDINATORS: Final = 64
# Shelves of all coordinators together, and those that one may fill once others need the room.
MOST_SHELVES: Final = 16_384
FAIR_SHELVES: Final = 1_024
# So many of one part of the network keep their places because they proved their word; the others may be driven out.
PROVED_OF_AREA: Final = 8
# When there is no room, a newcomer takes another's place at most so often: an honest one must live to be asked.
NEWCOMER_SECONDS: Final = 2.0
# A page is checked again at most so often: a signature costs more than what is behind it.
PAGE_SECONDS: Final = 0.25
# Points for a look in vain; who has more than the limit is not believed until they have decayed.
POINTS_IN_VAIN: Final = 1.0
POINTS_SILENT: Final = 0.5
POINTS_FORGED: Final = 8.0
MOST_POINTS: Final = 3.0
HALF_LIFE: Final = 120.0
# It promised a price and quoted one that is dearer by more than this many tenths.
DEARER: Final = 15
MOST_HINTS: Final = 8


class Shelf:
    """One coordinator's stock of an agent in a region. `corners` are prices in and out, one pair after the other."""

    __slots__ = ("context", "coordinator", "corners", "free", "hosts", "kinds", "page", "region")

    def __init__(self, coordinator: "Voice", page: "Page", stock: Stock) -> None:
        self.coordinator = coordinator
        self.page = page
        self.region = intern(stock.region)
        self.hosts = stock.hosts
        self.free = stock.free
        self.context = stock.context
        self.corners = tuple(int(price) for corner in stock.corners for price in corner)
        self.kinds = tuple((intern(tier), intern(level)) for tier, level in stock.kinds)


class Page:
    """One page of a coordinator's summary, and whose shelves it filled."""

    __slots__ = ("agents", "came", "expires", "sequence")

    def __init__(self, sequence: int, expires: int, came: float) -> None:
        self.came = came
        self.sequence = sequence
        self.expires = expires
        self.agents: set[AgentId] = set()


class Voice:
    """A coordinator that is heard. `proved`: offers that it quoted were good."""

    __slots__ = ("address", "area", "endpoints", "newest", "pages", "proved", "shelves", "split")

    def __init__(self, address: Address, area: bytes) -> None:
        self.address = address
        self.area = area
        self.endpoints: tuple[str, ...] = ()
        self.newest = 0
        self.pages: dict[int, Page] = {}
        self.split = 1
        self.shelves = 0
        self.proved = False


class Hint(msgspec.Struct, frozen=True):
    """Who might have it, at which score (as lading.core.matching counts); `free` slots it says."""

    coordinator: Address
    endpoints: tuple[str, ...]
    region: str
    score: int
    free: int


class Atlas:
    """`own` is our own address: what we say ourselves is no news."""

    def __init__(self, own: Address, *, coordinators: int = MOST_COORDINATORS, shelves: int = MOST_SHELVES) -> None:
        self._own = own
        self._most = shelves
        self._fair = min(FAIR_SHELVES, max(1, shelves // 2))
        self._voices: dict[Address, Voice] = {}
        self._crowd: Crowd[Address] = Crowd(coordinators)
        self._room = coordinators
        self._shelves: dict[AgentId, dict[tuple[Address, str], Shelf]] = {}
        self._scores: Scores[Address] = Scores(MOST_POINTS, HALF_LIFE)
        self._came = float("-inf")
        self.size = 0

    # What is heard

    def wants(self, coordinator: Address, sequence: int, page: int, now: float) -> bool:
        """Whether a page is worth checking its signature."""
        if coordinator == self._own or self._scores.barred_for(coordinator, now):
            return False
        voice = self._voices.get(coordinator)
        if voice is None:
            return len(self._voices) < self._room or now - self._came >= NEWCOMER_SECONDS
        held = voice.pages.get(page)
        if held is None:
            return sequence >= voice.newest
        return sequence > held.sequence and not 0 <= now - held.came < PAGE_SECONDS

    def put(self, known: KnownSummary, now: float) -> bool:
        """Keep a checked page; False when it is no news or there is no room for its author."""
        ad, detail = known.ad, known.detail
        if not self.wants(known.coordinator, ad.sequence, detail.page, now):
            return False
        voice = self._voices.get(known.coordinator)
        if voice is None:
            voice = self._enter(known.coordinator, detail.endpoints, now)
            if voice is None:
                return False
        elif detail.pages != voice.split:
            if ad.sequence <= voice.newest:
                return False
            self._clear(voice)
        voice.split, voice.endpoints = detail.pages, detail.endpoints
        voice.newest = max(voice.newest, ad.sequence)
        self._drop_page(voice, detail.page)
        if detail.stocks:
            self._fill(voice, Page(ad.sequence, ad.expires, now), detail.page, detail.stocks)
        return True

    def _enter(self, address: Address, endpoints: tuple[str, ...], now: float) -> Voice | None:
        where = place_of(endpoints)
        leaving = self._crowd.enter(address, where, self._may_go)
        if leaving:
            self._came = now
            if leaving == [address]:
                return None
            self._leave(leaving[0])
        voice = self._voices[address] = Voice(address, where.area)
        return voice

    def _may_go(self, address: Address) -> bool:
        voice = self._voices[address]
        return not voice.proved or sum(one.area == voice.area for one in self._voices.values()) > PROVED_OF_AREA

    def _fill(self, voice: Voice, page: Page, number: int, stocks: tuple[Stock, ...]) -> None:
        voice.pages[number] = page
        for stock in stocks:
            if self.size >= self._most and not self._make_room(voice):
                return
            agent = AgentId(stock.agent)
            self._shelves.setdefault(agent, {})[voice.address, stock.region] = Shelf(voice, page, stock)
            page.agents.add(agent)
            voice.shelves += 1
            self.size += 1

    def _make_room(self, voice: Voice) -> bool:
        """Whoever fills most gives way, a page at a time, to one that has less than its fair part."""
        if voice.shelves >= self._fair:
            return False
        widest = max(self._voices.values(), key=lambda one: (one.shelves, not one.proved))
        if widest is voice or widest.shelves <= voice.shelves:
            return False
        self._drop_page(widest, max(widest.pages, key=lambda number: len(widest.pages[number].agents)))
        return self.size < self._most

    # Forgetting

    def prune(self, now: float) -> None:
        for voice in list(self._voices.values()):
            for number in [number for number, page in voice.pages.items() if page.expires <= now]:
                self._drop_page(voice, number)
            if not voice.pages:
                self._leave(voice.address)

    def _leave(self, address: Address) -> None:
        voice = self._voices.pop(address, None)
        if voice is not None:
            self._clear(voice)
            self._crowd.leave(address)

    def _clear(self, voice: Voice) -> None:
        for number in list(voice.pages):
            self._drop_page(voice, number)

    def _drop_page(self, voice: Voice, number: int) -> None:
        page = voice.pages.pop(number, None)
        for agent in page.agents if page is not None else ():
            shelves = self._shelves[agent]
            for key in [key for key, shelf in shelves.items() if shelf.page is page]:
                del shelves[key]
                voice.shelves -= 1
                self.size -= 1
            if not shelves:
                del self._shelves[agent]

    # How it turned out

    def proved(self, coordinator: Address) -> None:
        """What it quoted was good."""
        voice = self._voices.get(coordinator)
        if voice is not None:
            voice.proved = True

    def in_vain(self, coordinator: Address, now: float, points: float = POINTS_IN_VAIN) -> None:
        """A look that brought nothing, or not what was said. Who has too much of it leaves."""
        if coordinator not in self._voices:
            return
        self._scores.blame(coordinator, points, now)
        if self._scores.barred_for(coordinator, now):
            self._leave(coordinator)

    # Looking

    def hints(self, agent: AgentId, aim: Aim, now: float) -> list[Hint]:
        """The coordinators that may serve this best, best first: those with free slots before the others."""
        found: dict[Address, tuple[bool, int, Shelf]] = {}
        for shelf in self._shelves.get(agent, {}).values():
            if shelf.page.expires <= now or (least := least_score(shelf, aim)) is None:
                continue
            address = shelf.coordinator.address
            key = (shelf.free <= 0, least)
            if address not in found or key < found[address][:2]:
                found[address] = (*key, shelf)
        best = sorted(found.values(), key=lambda one: (one[0], one[1], one[2].coordinator.address))[:MOST_HINTS]
        return [
            Hint(shelf.coordinator.address, shelf.coordinator.endpoints, shelf.region, least, shelf.free)
            for _, least, shelf in best
        ]

    def agents(self) -> Iterator[AgentId]:
        return iter(self._shelves)

    def shelves(self, agent: AgentId, now: float) -> list[Shelf]:
        return [shelf for shelf in self._shelves.get(agent, {}).values() if shelf.page.expires > now]

    def serves(self, agent: AgentId, now: float) -> bool:
        """Whether somebody says that hosts of the agent are there."""
        shelves = self._shelves.get(agent)
        return shelves is not None and any(shelf.hosts and shelf.page.expires > now for shelf in shelves.values())

    def voices(self) -> list[Voice]:
        return list(self._voices.values())


def least_score(shelf: Shelf, aim: Aim) -> int | None:
    """The best score that the shelf promises for this, None where nothing of it will do."""
    filters, cap = aim.filters, aim.cap
    if not shelf.hosts or (aim.length and aim.length >= shelf.context) or not fits_kinds(shelf, filters):
        return None
    if filters.region and not within(shelf.region, filters.region):
        return None
    factor = TRUST * FAR[distance(filters.near, shelf.region)]
    least: int | None = None
    for at in range(0, len(shelf.corners), 2):
        inp, out = shelf.corners[at], shelf.corners[at + 1]
        if cap is not None and (inp > cap.input or out > cap.output):
            continue
        score = (inp * aim.prompt + out * aim.output) * factor
        if least is None or score < least:
            least = score
    return least


def fits_kinds(shelf: Shelf, filters: Filters) -> bool:
    if not filters.tiers and not filters.assurance:
        return True
    return any(
        (not filters.tiers or tier in filters.tiers) and (not filters.assurance or level in filters.assurance)
        for tier, level in shelf.kinds
    )


def place_of(endpoints: tuple[str, ...]) -> Place:
    """Where a coordinator says that it is, by its first endpoint."""
    parts = endpoints[0].split("/") if endpoints else []
    return place(parts[2] if len(parts) > 2 else "")
