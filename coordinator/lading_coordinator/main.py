"""The composition root: builds every part from the settings, runs them in one task group, drains on SIGTERM.

Nothing else builds adapters, and nothing here decides.
"""

import asyncio
import contextlib
import logging
import random
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lading import __version__
from lading.blobs import BlobStore, ServeLimits, serve_blobs
from lading.calibrations import published
from lading.clockwatch import Clockwatch
from lading.core.atlas import Atlas
from lading.dispatch import Directory, Dispatcher, Purse
from lading.dispatch.dispatcher import Limits as Patience
from lading.keyfile import load_key
from lading_contracts.deployment import Contracts
from lading_contracts.events import CloseStarted, Condemned, Event, TermsSunsetSet
from lading_coordinator.agents import Agents
from lading_coordinator.audits.auditor import Auditor
from lading_coordinator.audits.beacons import Beacon, beacon_of
from lading_coordinator.audits.canaries import Canaries
from lading_coordinator.audits.checks import Checks
from lading_coordinator.audits.conduct import Conduct, Pair
from lading_coordinator.audits.disputes import Disputes
from lading_coordinator.audits.fees import Fees, Till, paid_since
from lading_coordinator.audits.lessons import Bench, Lessons
from lading_coordinator.audits.orders import Orders
from lading_coordinator.audits.records import Records
from lading_coordinator.audits.rounds import Rounds, Sources, Timing
from lading_coordinator.audits.twins import Twins
from lading_coordinator.chainwatch import ChainWatch
from lading_coordinator.core.admission import Admission
from lading_coordinator.core.audits import Policy
from lading_coordinator.core.catalogue import Catalogue
from lading_coordinator.core.fees import FeePolicy
from lading_coordinator.core.lanes import Bounds as Queue
from lading_coordinator.core.shares import Shares
from lading_coordinator.entropy import Entropy
from lading_coordinator.errors import LedgerFailed
from lading_coordinator.gateway.asgi import AsgiBridge
from lading_coordinator.gateway.connection import App, Limits
from lading_coordinator.gateway.models import Models, Terms
from lading_coordinator.gateway.openai import Gateway
from lading_coordinator.gateway.routes import Routes
from lading_coordinator.gateway.server import HttpServer
from lading_coordinator.gateway.tls import server_context
from lading_coordinator.http.app import create_app
from lading_coordinator.http.audits import AuditParts
from lading_coordinator.http.views import Parts, Views
from lading_coordinator.ledger import Ledger
from lading_coordinator.marketwatch import MarketWatch
from lading_coordinator.metrics import Metrics, merged
from lading_coordinator.peers import Index, announce, settle_handler
from lading_coordinator.regions.hearing import Hearing
from lading_coordinator.regions.telling import Telling
from lading_coordinator.regions.view import RegionView
from lading_coordinator.releases import Releases
from lading_coordinator.sessions import Bounds, Sessions
from lading_coordinator.settings import CoordinatorSettings, amount_of
from lading_coordinator.standing import Standing
from lading_coordinator.store import Store
from lading_coordinator.turns import Turns
from lading_coordinator.whydesk import WhyDesk
from lading_coordinator.workers.place import Place, Role
from lading_net.ports import Gossip, StreamHandler, Transport
from lading_net.speech import serve_speech
from lading_protocol import calibration
from lading_protocol.audit import DECLARED, Tolerance
from lading_protocol.conduct import EQUAL, Honest
from lading_protocol.economics import AuditRates
from lading_protocol.ids import Address, AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.losses import WHY
from lading_protocol.messages import (
    BLOB,
    CASE,
    HEARTBEAT,
    OFFERS,
    PUBLISH,
    RELEASE,
    SETTLE,
    CoordinatorDetail,
)
from lading_protocol.speech import for_regions
from lading_protocol.summaries import QUOTES

log = logging.getLogger(__name__)
PRUNE_SECONDS = 60.0
FOLLOW_SECONDS = 2.0
# So many hosts must have said what time it is before their word against our clock is told.
WITNESSES = 3


class Door(Protocol):
    """Where HTTP comes in."""

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]: ...

    async def close(self, grace: float) -> None: ...


def _as_it_is(handler: StreamHandler) -> StreamHandler:
    return handler


def _plain_door(app: App, limits: Limits, _: "Coordinator") -> Door:
    return HttpServer(app, limits)


def _unheard(summary: bytes) -> None:
    pass


async def _nobody(target: str) -> list[bytes]:
    return []


class Outside(msgspec.Struct, frozen=True):
    """What a coordinator stands on: real in `run_coordinator`, in memory in tests. `gossip` may be None, and without a
    `beacon` the settings name one.

    Where it is several processes, `place` says which this is, `beats` lets others listen to the heartbeats and `news`
    to summaries, `door` is where its requests come in, `rest` takes what is not the data plane's (without it, this
    process does), `workers` gives what each of the others answers when it is asked for something, and `shares` keep the
    limits of all together.
    """

    key: PrivateKey
    contracts: Contracts
    transport: Transport
    gossip: Gossip | None
    endpoints: tuple[str, ...]
    clock: Callable[[], float] = time.time
    fresh: Callable[[int], bytes] = msgspec.field(default_factory=Entropy)
    rates: AuditRates = AuditRates()
    beacon: Beacon | None = None
    place: Place = Place()
    beats: Callable[[StreamHandler], StreamHandler] = _as_it_is
    news: Callable[[bytes], None] = _unheard
    door: Callable[[App, Limits, "Coordinator"], Door] = _plain_door
    workers: Callable[[str], Awaitable[list[bytes]]] = _nobody
    rest: App | None = None
    shares: Shares | None = None


class Coordinator:
    """All parts, wired. `serve` runs until `stop` is set; `working` and `application` are its two halves, for tests."""

    def __init__(self, settings: CoordinatorSettings, outside: Outside) -> None:
        self.settings = settings
        self.outside = outside
        record, clock, home = outside.contracts.deployment, outside.clock, settings.home_path
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.metrics = Metrics()
        self.place = outside.place
        self.store = open_store(settings, exclusive=self.place.role is not Role.WORKER)
        self.purse = Purse(home / "purse.sqlite", record.settlement_domain)
        self.directory = Directory(needs_beats=True)
        self.why = WhyDesk(self.directory, clock, outside.workers)
        self.ledger = Ledger(self.store, self.metrics, clock, shared=self.place.role is Role.DESK)
        self.catalogue = Catalogue()
        self.tables = published()
        self.blobs = BlobStore(home / "blobs", settings.store_quota, evict=False)
        self.releases = Releases(self.store, outside.contracts.registry, self.catalogue, record.registry_domain, clock)
        self.agents = Agents(
            self.store, self.blobs, outside.contracts, self.catalogue, outside.transport, self.releases
        )
        self.standing = Standing(
            self.store,
            outside.contracts.staking,
            self.directory,
            clock,
            required=settings.require_stake,
            payout_of=outside.contracts.settlement.payout_of,
        )
        domain = record.settlement_domain
        self.index = Index(self.directory, self.standing, self.agents, domain, self.metrics, clock, settings.regions)
        self.clockwatch = Clockwatch(clock, self._is_witness, WITNESSES, "linked hosts with a stake")
        self.atlas = Atlas(outside.key.address)
        self.hearing = Hearing(
            outside.transport,
            self.directory,
            self.atlas,
            self.agents,
            self.standing,
            domain,
            clock,
            self.metrics.summed,
        )
        bounds = Bounds(each=settings.jobs_per_key, all=settings.jobs_at_once + settings.jobs_waiting)
        self.sessions = Sessions(
            self.store, outside.contracts.settlement, record.settlement_domain, outside.key, clock, bounds, self.place
        )
        self.dispatcher = self._dispatcher()
        self.dispatcher.scout, self.hearing.news = self.hearing.scout, outside.news
        self.ledger.before_flush = self.dispatcher.settle
        self.turns = self._turns()
        self.records = Records(self.store, clock)
        self._auditing()
        listeners = [self.sessions.notice, self.standing.notice, self.agents.notice, self._notice]
        self.watch = ChainWatch(outside.contracts, self.metrics, listeners, settings.chain_poll)
        self.market = MarketWatch(outside.contracts, clock, self.directory.raise_floor)
        terms = Terms(settings.default_tokens, record.decimals, record.symbol, settings.http_others, settings.region)
        self.gateway = Gateway(
            self.turns,
            self.sessions,
            Models(self.catalogue, self.directory, clock, terms, self.market.promoted, self.atlas),
            self.metrics,
            clock=clock,
            fresh=outside.fresh,
            terms=terms,
        )
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.http_address = ("", 0)
        self._detail = CoordinatorDetail(outside.endpoints, settings.http_public, f"lading {__version__}")
        rng, period = random.Random(outside.fresh(16)), settings.summary_period
        self.telling = Telling(self.directory, self.atlas, outside.endpoints, clock, rng, period)

    def _is_witness(self, peer: Address) -> bool:
        return self.index.beats(peer) and self.standing.stake(peer) > 0

    def _notice(self, event: Event) -> None:
        """A payer closes a channel that we pay into: go on in the next one. Terms sunset: send no jobs under them."""
        match event:
            case CloseStarted(signer=signer, host=host, terms=terms, epoch=epoch):
                fees = signer == self.outside.key.address and self.place.role is not Role.WORKER
                if self.place.role is Role.WHOLE or fees or self.sessions.signs(signer):
                    self.purse.closed(signer, host, terms, epoch)
            case TermsSunsetSet(id=terms, moment=moment) | Condemned(id=terms, moment=moment):
                self.directory.sunset(terms, moment)
            case _:
                pass

    def _dispatcher(self) -> Dispatcher:
        settings, outside = self.settings, self.outside
        return Dispatcher(
            outside.transport,
            self.directory,
            self.purse,
            outside.contracts.deployment,
            outside.clock,
            random.Random(outside.fresh(16)),
            Patience(first=settings.first_token_patience, between=settings.token_patience),
            self.ledger.record,
            bare=True,
        )

    def _turns(self) -> Turns:
        settings = self.settings
        queue = Queue(
            all=settings.jobs_at_once,
            queue=settings.jobs_waiting,
            queue_each=settings.jobs_waiting_each,
            waits=(settings.wait, settings.wait_batch),
        )
        rng = random.Random(self.outside.fresh(16))
        return Turns(self.dispatcher, Admission(queue, self.outside.shares), self.metrics, self.outside.clock, rng)

    def _spec(self, agent: AgentId) -> bytes:
        entry = self.catalogue.get(agent)
        return entry.spec if entry is not None else b""

    def _honest(self, agent: AgentId, pair: Pair) -> Honest | None:
        """What honest hosts of the pair show in the long run, where it was measured."""
        if pair.host == pair.auditor == DECLARED:
            return EQUAL
        table = calibration.find(self.tables, self._spec(agent), pair.host, pair.auditor)
        return calibration.honest(table) if table is not None else None

    def _limits(self, agent: AgentId, numeric: str) -> Tolerance | None:
        return calibration.limits(self.tables, self._spec(agent), numeric, numeric)

    def _fees(self) -> Fees | None:
        """None where nothing is paid, and in workers, which ask no auditor."""
        settings, outside = self.settings, self.outside
        if not settings.audit_pay or self.place.role is Role.WORKER:
            return None
        decimals = outside.contracts.deployment.decimals
        most, epoch = (amount_of(name, settings, decimals) for name in ("audit_pay_most", "audit_pay_epoch"))
        policy = FeePolicy(round(settings.audit_pay * 1_000_000), most, epoch)
        till = Till(outside.key, self.purse, outside.contracts.settlement, self.store)
        return Fees(till, policy, self.metrics, outside.clock, settings.audit_epoch)

    def _auditing(self) -> None:
        settings, outside = self.settings, self.outside
        policy = Policy(outside.rates, least_ppm=settings.rate_ppm, opening_pause=settings.audit_opening_pause)
        contracts, key, clock, fresh = outside.contracts, outside.key, outside.clock, outside.fresh
        epoch, court_domain = settings.audit_epoch, contracts.deployment.court_domain
        self.conduct = Conduct(self.store, clock, policy, self._honest, epoch)
        own = load_key(Path(settings.audit_canary_key).expanduser()) if settings.audit_canary_key else None
        self.canaries = Canaries(self.store, self.ledger, self.directory, own, court_domain, clock, fresh)
        self.orders = Orders(self.store, self.ledger, self.records, clock, epoch, open=settings.audits)
        self.twins = Twins(self.store, court_domain, clock)
        self.beacon = outside.beacon or beacon_of(settings, key)
        self.rounds = Rounds(
            Sources(self.records, self.ledger, self.conduct, self.canaries, self.orders, self.beacon),
            contracts.court,
            key,
            policy,
            Timing(settings.audit_beacon_delay, settings.audit_beacon_grace, settings.audit_beacon_blocks),
            clock=clock,
            fresh=fresh,
        )
        bench = Bench(
            self.records,
            self.ledger,
            self.directory,
            self.standing,
            self.conduct,
            self.canaries,
            self.metrics,
            self._fees(),
        )
        self.lessons = Lessons(bench)
        self.checks = Checks(bench, outside.transport, policy, clock, patience=settings.audit_patience)
        self.disputes = Disputes(self.records, self.ledger, self.conduct, contracts, key, self.metrics)
        self.auditor = Auditor(self.rounds, self.checks, self.disputes, settings.audit_period)

    async def serve(self) -> None:
        """Listens, announces, and works until told to stop. Raises PortInUse and other LadingErrors at start."""
        settings, outside = self.settings, self.outside
        server = outside.door(self.application(), Limits(body=settings.max_body), self)
        try:
            tls = server_context(settings.tls_cert, settings.tls_key)
            host, port = self.http_address = await server.listen(settings.http_host, settings.http_port, tls)
            url = f"{'http' if tls is None else 'https'}://{host}:{port}"
            self._detail = msgspec.structs.replace(self._detail, http=settings.http_public or url)
            async with self.working():
                self.ready.set()
                log.info("Serving %s/v1, nodes dial %s", url, ", ".join(outside.endpoints) or "nothing")
                await self.stop.wait()
                log.info("Draining: running answers get %g s", settings.drain)
                await server.close(settings.drain)
        finally:
            await server.close(0)
            await self.close()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Everything but HTTP runs while this is entered; what fails here ends the block."""
        self._handle_peers()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in self._services()]
            yield
            for task in running:
                task.cancel()

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        outside = self.outside
        services = [self.ledger.run(), self.index.tend(), self.turns.tend(), self.watch.run(), self.market.run()]
        if self.place.role is Role.WORKER:
            return [*services, self._follow(), self.hearing.tend()]
        services += [self.ledger.count(), self._prune(), self.clockwatch.run(self.metrics.clock_off.set)]
        if self.settings.audits:
            services.append(self.auditor.run())
        if outside.gossip is not None:
            domain = outside.contracts.deployment.settlement_domain
            services += [self.index.listen(outside.gossip), self.standing.list_all()]
            services += [self.hearing.listen(outside.gossip), self.hearing.tend()]
            services.append(self.telling.publish(outside.gossip, domain, outside.key))
            services.append(announce(outside.gossip, lambda: self._detail, domain, outside.key, outside.clock))
        return services

    def _handle_peers(self) -> None:
        transport = self.outside.transport
        serve_speech(transport, for_regions(self.settings.regions), self.clockwatch)
        transport.handle(HEARTBEAT, self.outside.beats(self.index.serve_heartbeat))
        if self.place.role is Role.WORKER:
            return
        transport.handle(OFFERS, self.index.serve_offers)
        transport.handle(QUOTES, self.telling.serve_quotes)
        transport.handle(WHY, self.why.serve)
        transport.handle(PUBLISH, self.agents.serve_publish)
        transport.handle(RELEASE, self.releases.serve)
        limits = ServeLimits(self.settings.serve_rate, self.settings.serve_peer_rate)
        transport.handle(BLOB, serve_blobs(self.blobs, limits=limits))
        transport.handle(SETTLE, settle_handler(self.purse))
        transport.handle(CASE, self.disputes.serve_case)

    def application(self) -> Routes:
        """What HTTP connections call."""
        if self.outside.rest is not None:
            return Routes(self.gateway, self.outside.rest)
        parts = Parts(
            gateway=self.gateway,
            sessions=self.sessions,
            ledger=self.ledger,
            audits=AuditParts(
                records=self.records,
                ledger=self.ledger,
                conduct=self.conduct,
                canaries=self.canaries,
                orders=self.orders,
                twins=self.twins,
                court=self.outside.contracts.court,
                hold=self.checks.hold,
                pause=self.settings.audit_opening_pause,
                epoch=self.settings.audit_epoch,
                limits=self._limits,
                paid=lambda: paid_since(self.store, self.outside.clock() - self.settings.audit_epoch),
            ),
            directory=self.directory,
            catalogue=self.catalogue,
            purse=self.purse,
            watch=self.watch,
            market=self.market,
            deployment=self.outside.contracts.deployment,
            detail=lambda: self._detail,
            address=self.outside.key.address,
            chain_url=self.settings.chain_url,
            clock=self.outside.clock,
            clockwatch=self.clockwatch,
            metrics_text=self._figures,
            regions=RegionView(self.settings.regions, self.directory, self.atlas, self.hearing, self.telling),
        )
        return Routes(self.gateway, AsgiBridge(create_app(Views(parts), self.stop.is_set)))

    async def _figures(self) -> bytes:
        texts = await self.outside.workers("/metrics")
        return merged([self.metrics.text(), *texts]) if texts else self.metrics.text()

    async def _follow(self) -> None:
        """A worker's view of what the desk decides: releases, and hosts under suspicion."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                self.sessions.prune()
                self.releases.reload()
                self.lessons.apply()
            except LedgerFailed as error:
                log.error("What the desk decided is not to be read: %s", error)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            try:
                self.sessions.prune()
                await self.ledger.prune()
            except LedgerFailed as error:
                log.error("Old records stay for now: %s", error)

    async def close(self) -> None:
        """Cancelled jobs are paid and recorded before the files close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.dispatcher.close()
        if self.outside.gossip is not None:
            await self.outside.gossip.close()
        if self.beacon is not None:
            await self.beacon.close()
        await self.outside.transport.close()
        try:
            await self.ledger.flush()
        except LedgerFailed as error:
            log.error("The last records are lost: %s", error)
        self.store.close()
        self.purse.close()


def open_store(settings: CoordinatorSettings, *, exclusive: bool = True) -> Store:
    """Raises LedgerFailed, FolderBusy, BadSettings."""
    if not settings.ledger:
        return Store(settings.home_path / "coordinator.sqlite")
    from lading_coordinator.postgres import PostgresStore

    return PostgresStore(settings.ledger, exclusive=exclusive)


def stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
