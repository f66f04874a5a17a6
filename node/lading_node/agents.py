"""One agent that this node serves: its package, its engine process and the restarts of it, its offer.

Knows engines and offers; who asks for work, and what it earns, is not its business.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

import msgspec

from lading_node.engines.port import Engine, Health, Ready
from lading_node.ports import Doors, Package
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId, Digest, TermsId, short
from lading_protocol.messages import OfferDetail
from lading_protocol.offers import KnownOffer, check_advert, make_advert
from lading_protocol.pricing import Price
from lading_protocol.receipts import Offer

log = logging.getLogger(__name__)

PROGRAM = "lading/0.1.0"
OFFER_SECONDS = 1800
RENEW_SECONDS = 300
CRASHES = 3
CRASH_WINDOW = 60.0
HEALTH_SECONDS = 1.0
BACKOFF = (0.2, 1.0, 3.0)
FETCH_RETRY_SECONDS = 1.0
# A lock must land before its terms sunset; this many seconds are kept for that.
LANDING_SECONDS = 20


class Serving(msgspec.Struct, frozen=True):
    """What the operator wants to serve, and for how much. `credit` is in output tokens, `slots` are of one engine.

    `sunset_at` is the second from which nothing is locked under the terms (0: none is announced); `named` whether the
    operator chose the terms. `origin` is the agent that the operator named where `agent` is a later release of it;
    `follow` whether later releases of its publisher are taken.
    """

    agent: AgentId
    terms: TermsId
    price: Price
    slots: int = 4
    credit: int = 64
    sunset_at: int = 0
    named: bool = True
    origin: AgentId | None = None
    follow: bool = True
    region: str = ""


class Agent:
    """`state` is one of fetching, loading, serving, sunset, restarting, withdrawn, stopped, replaced, yanked; `why`
    says it in words.

    Sunset: the engine runs, but nothing can be locked under the terms any more, so nothing is offered. Replaced and
    yanked: nothing new is taken for good.
    """

    def __init__(
        self,
        serving: Serving,
        doors: Doors,
        endpoints: Callable[[], tuple[str, ...]],
        package: Package | None = None,
    ) -> None:
        self.serving = serving
        self.state = "fetching"
        self.why = "The agent's package is not here yet."
        self.package = package
        self.engine: Engine | None = None
        self.ready: Ready | None = None
        self.offer: KnownOffer | None = None
        self.slots = serving.slots
        self.active = 0
        self.promised = 0
        self.preempted_at: float | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self.retired = False
        self.crashes = 0
        self._recent: dict[Digest, KnownOffer] = {}
        self._doors = doors
        self._endpoints = endpoints
        self._crash_times: deque[float] = deque(maxlen=CRASHES)
        self._device = ""
        self._look = asyncio.Event()
        self._changed: list[Callable[[], None]] = []
        self._filled: list[Callable[[], None]] = []

    @property
    def free(self) -> int:
        """Slots for whoever comes; those that are being cleared for a job are `promised` to it."""
        return max(0, self.slots - self.active - self.promised) if self.state == "serving" else 0

    def take_slot(self) -> None:
        self.active += 1
        self.idle.clear()
        if self.active == self.slots:
            self._fill()

    def free_slot(self) -> None:
        self.active -= 1
        if not self.active:
            self.idle.set()
        if self.active == self.slots - 1:
            self._fill()

    def on_fill(self, callback: Callable[[], None]) -> None:
        """Called when the last slot is taken, and when one is free again."""
        self._filled.append(callback)

    def _fill(self) -> None:
        for callback in self._filled:
            callback()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called when the offer appears, is renewed, or is withdrawn."""
        self._changed.append(callback)

    def find_offer(self, id: bytes) -> KnownOffer | None:
        """Any offer of ours that we signed in this run and that has not expired, so that a renewal breaks no job."""
        return self._recent.get(Digest(id))

    def withdraw(self) -> None:
        """Take no new work: the offer goes away, what runs goes on."""
        if self.offer is not None:
            self.offer = None
            self._tell()

    def retire(self, state: str, why: str) -> None:
        """As `withdraw`, for good."""
        self.retired = True
        self._withdraw(state, why)

    def suspect(self) -> None:
        """A job saw the engine fail: look at once whether it still lives."""
        self._look.set()

    async def run(self) -> None:
        """Serve until cancelled; returns when the agent is given up."""
        try:
            self.package = self.package or await self._fetch()
            while await self._serve_once(self.package):
                pass
        finally:
            await self._stop_engine()
            if self.state != "withdrawn" and not self.retired:
                self._withdraw("stopped", "The node is shutting down.")

    def sell_under(self, terms: TermsId, sunset_at: int) -> None:
        """From now on offer under these terms, until they sunset. Offers that are out stay good."""
        serving = msgspec.structs.replace(self.serving, terms=terms, sunset_at=sunset_at)
        if serving == self.serving:
            return
        if terms != self.serving.terms:
            log.info("agent %s is offered under terms %s now", short(serving.agent), short(terms))
        self.serving = serving
        if self.offer is not None or self.state == "sunset":
            self.renew()

    def renew(self) -> None:
        """Sign a fresh offer. The sequence is the time, so that it grows over restarts."""
        if self.package is None or self.ready is None:
            return
        serving, doors, package = self.serving, self._doors, self.package
        now = doors.clock()
        expires = self._expiry(int(now))
        if expires <= now:
            self._stop_offering()
            return
        self.state, self.why = "serving", ""
        offer = Offer(
            host=doors.key.address,
            agent=serving.agent,
            terms=serving.terms,
            price_in=serving.price.input,
            price_out=serving.price.output,
            slots=self.slots,
            sequence=int(now * 1000),
            expires=expires,
            detail=bytes(32),
        )
        detail = OfferDetail(
            name=package.manifest.name,
            endpoints=self._endpoints(),
            operations=package.manifest.operations,
            engine=package.runtime.engine,
            numeric=package.runtime.numeric,
            tier=self.ready.tier,
            context=package.manifest.context,
            credit=serving.credit,
            program=PROGRAM,
            device=self._device or doors.device(package.spec),
            region=serving.region,
        )
        domain = doors.contracts.deployment.settlement_domain
        self.offer = check_advert(make_advert(offer, detail, domain, doors.key), domain, now)
        self._recent = {id: known for id, known in self._recent.items() if known.offer.expires > now}
        self._recent[self.offer.id] = self.offer
        self._tell()

    def _expiry(self, now: int) -> int:
        """No offer outlives its terms: a lock under them could not land."""
        usual = now + OFFER_SECONDS
        sunset = self.serving.sunset_at
        return min(usual, sunset - LANDING_SECONDS) if sunset else usual

    def _stop_offering(self) -> None:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.serving.sunset_at))
        self.state, self.offer = "sunset", None
        self.why = (
            f"The terms {short(self.serving.terms)} sunset at {when}: nothing can be locked under them then, so the "
            "agent is not offered until it has new terms."
        )
        log.warning("agent %s: %s", short(self.serving.agent), self.why)
        self._tell()

    async def _fetch(self) -> Package:
        while True:
            try:
                return await self._doors.packages.get(self.serving.agent, self._note)
            except LadingError as error:
                self._note(str(error))
                log.warning("agent %s: %s", short(self.serving.agent), error)
            await asyncio.sleep(FETCH_RETRY_SECONDS)

    def _note(self, words: str) -> None:
        self.why = words

    async def _serve_once(self, package: Package) -> bool:
        """One life of the engine. False when it has died too often."""
        self.state, self.why = ("loading", "The engine is loading.") if not self.crashes else (self.state, self.why)
        try:
            engine = self._doors.engine(msgspec.structs.replace(package.spec, slots=self.serving.slots))
        except LadingError as error:
            self._withdraw("withdrawn", f"This machine does not run it. {error}")
            log.error("agent %s: %s", short(self.serving.agent), self.why)
            return False
        try:
            self.ready = await engine.start()
        except LadingError as error:
            await engine.stop()
            return await self._crashed(f"it does not start: {error}")
        self.engine, self.state, self.why = engine, "serving", ""
        self._measure(engine.health())
        self.renew()
        log.info("agent %s (%s) is served", package.manifest.name, short(self.serving.agent))
        await self._watch(engine)
        await self._stop_engine()
        return await self._crashed("its process died")

    async def _watch(self, engine: Engine) -> None:
        renew_at = self._next_renewal()
        while (health := engine.health()).alive:
            if self._measure(health) and self.offer is not None:
                self.renew()
            self._look.clear()
            try:
                async with asyncio.timeout(HEALTH_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                pass
            if self._doors.clock() >= renew_at:
                if self.offer is not None:
                    self.renew()
                renew_at = self._next_renewal()

    def _measure(self, health: Health) -> bool:
        """Whether it is another than it was offered as: an engine may be many, and they come and go."""
        before = self.slots, self._device
        self.slots, self._device = health.slots or self.serving.slots, health.device
        return (self.slots, self._device) != before

    def _next_renewal(self) -> float:
        usual = self._doors.clock() + RENEW_SECONDS
        return usual if self.offer is None else min(usual, self.offer.offer.expires)

    async def _crashed(self, how: str) -> bool:
        self.crashes += 1
        if self.retired:
            return False
        now = self._doors.clock()
        self._crash_times.append(now)
        recent = sum(1 for at in self._crash_times if now - at <= CRASH_WINDOW)
        if recent >= CRASHES:
            self._withdraw(
                "withdrawn",
                f"The engine failed {CRASHES} times in a minute ({how}), so the offer was withdrawn. "
                "Look at the node's log, then restart the node.",
            )
            log.error("agent %s: %s", short(self.serving.agent), self.why)
            return False
        self._withdraw("restarting", f"The engine is being restarted: {how}.")
        log.warning("agent %s: %s", short(self.serving.agent), self.why)
        await asyncio.sleep(BACKOFF[min(recent, len(BACKOFF)) - 1])
        return True

    def _withdraw(self, state: str, why: str) -> None:
        self.state, self.why, self.offer, self.ready = state, why, None, None
        self._tell()

    async def _stop_engine(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.stop()

    def _tell(self) -> None:
        for callback in self._changed:
            callback()
