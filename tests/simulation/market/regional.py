"""A gateway that knows the hosts of its own region only, and of the others what their coordinators say and quote.

The atlas, the survey, the offers that are quoted and the decision to ask are the package's own. Instead of gossip,
links and signatures there is time: a summary goes out every five seconds, a question takes a way there and back.
"""

import random
from collections.abc import Callable

from factories import NOW
from lading.core.atlas import Atlas
from lading.core.matching import Aim, Filters, Want, aim_of, distance
from lading.core.near import Pick
from lading.core.quotes import FRESH_SECONDS, aim_asked, enough, want_of, worth_a_look
from lading.dispatch.directory import Directory
from lading.dispatch.scout import ABREAST, MOST_ASKED, SOME
from lading_coordinator.regions.hearing import MOST_STRANGERS
from lading_protocol.ids import Address
from lading_protocol.messages import ChatRequest, Message
from lading_protocol.summaries import KnownSummary, SummaryAd, SummaryDetail
from simulation.market.routers import AGENT, SAMPLER, Lading, Router
from simulation.market.traffic import REGIONS, Job, Machine

PERIOD, LOOK = 5.0, 1.0
WAYS = (0.02, 0.05, 0.16)


class BySummary(Lading):
    name = "by summary"

    def __init__(self, machines: list[Machine], region: int, rng: random.Random) -> None:
        Router.__init__(self, machines, region, rng)
        self.directory = Directory(needs_beats=True)
        self.near = REGIONS[region]
        self.filters = Filters(near=self.near)
        self.picks: dict[int, Pick] = {}
        self.addresses = [one.address for one in machines]
        self.own = [one.region == region for one in machines]
        for machine in machines:
            if machine.region == region:
                self.directory.replace(machine.address, [machine.known])
                self.directory.beat(machine.address, machine.slots, 0, NOW)
        self.address = Address(bytes([255]) * 19 + bytes([region]))
        self.atlas = Atlas(self.address)
        self.fellows: dict[Address, BySummary] = {}
        self.coming: list[tuple[float, Callable[[], None]]] = []
        self.asked_at: dict[Address, float] = {}
        self.told_at = self.looked_at = -PERIOD
        self.hungry: Aim | None = None
        self.asked = self.quoted = 0

    def meet(self, routers: list[Router]) -> None:
        others = [one for one in routers if isinstance(one, BySummary) and one is not self]
        self.fellows = {one.address: one for one in others}

    def beat(self, host: int, free: int, now: float) -> None:
        self._go_on(now)
        if self.own[host]:
            super().beat(host, free, now)

    def started(self, host: int, *, batch: bool) -> None:
        self.directory.started(self.addresses[host], batch=batch)

    def pick(self, job: Job, now: float, tried: set[int], emitted: int) -> int | None:
        self._go_on(now)
        found = super().pick(job, now, tried, emitted)
        if found is None:
            request = ChatRequest((Message("user", job.text()),), job.output, SAMPLER)
            self.hungry = aim_of(Want(request, filters=self.filters))
            self._seek(self.hungry, now, MOST_ASKED)
        return found

    # What happens in between

    def _go_on(self, now: float) -> None:
        if self.coming and self.coming[0][0] <= now:
            ready = [act for at, act in self.coming if at <= now]
            self.coming = [one for one in self.coming if one[0] > now]
            for act in ready:
                act()
        if now >= self.told_at + PERIOD:
            self.told_at = now
            self._tell(now)
        if now >= self.looked_at + LOOK:
            self.looked_at = now
            self._look(now)

    def _tell(self, now: float) -> None:
        stocks = [stock for some in self.directory.stocks(NOW + now) for stock in some]
        ad = SummaryAd(self.address, int(now * 1000) + 1, int(NOW + now) + 180, bytes(32))
        known = KnownSummary(ad, SummaryDetail((f"/ip4/10.0.0.{self.region}/tcp/1",), 0, 1, tuple(stocks)))
        for one in self.fellows.values():
            one.coming.append((now + self._way(one) / 2, lambda one=one: one.atlas.put(known, NOW + now)))  # type: ignore[misc]

    def _look(self, now: float) -> None:
        if self.hungry is not None:
            self._seek(self.hungry, now, MOST_ASKED)
            self.hungry = None
        lately = self.directory.latest(AGENT)
        if lately is None:
            return
        choice, count = lately
        pressing = choice.host is not None and self.directory.presses(choice.host)
        if worth_a_look(choice, self.atlas.hints(AGENT, choice.aim, NOW + now), pressing=pressing):
            self._seek(choice.aim, now, ABREAST, enough(count))

    def _seek(self, aim: Aim, now: float, among: int, most: int = SOME) -> None:
        for hint in self.atlas.hints(AGENT, aim, NOW + now)[:among]:
            if now - self.asked_at.get(hint.coordinator, -FRESH_SECONDS) >= FRESH_SECONDS:
                self.asked_at[hint.coordinator] = now
                self.asked += 1
                self._ask(self.fellows[hint.coordinator], aim, now, most)

    def _ask(self, other: "BySummary", aim: Aim, now: float, most: int) -> None:
        want, way = want_of(AGENT, aim, most), self._way(other)

        def answered() -> None:
            at = NOW + now + way / 2
            strangers = 0
            for entry in other.directory.quotable(AGENT, aim_asked(want), want.most, at, self.rng):
                host = entry.host
                strangers += not self.directory.quotes(host.address)
                if strangers > MOST_STRANGERS and not self.directory.quotes(host.address):
                    continue
                free = max(0, host.room)
                self.quoted += self.directory.quote(entry.known, free, host.waiting, min(host.beat_at or at, at))

        self.coming.append((now + way, answered))

    def _way(self, other: "BySummary") -> float:
        return WAYS[distance(self.near, other.near)]
