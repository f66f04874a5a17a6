"""The node itself: the parts composed over their doors, started together, drained and stopped together.

`main` gives it real doors, a simulation those in memory. Decides nothing; status and drain order live here.
"""

import asyncio
import contextlib
import logging

import msgspec

from lading.clockwatch import Clockwatch
from lading_contracts import events
from lading_net.ports import Link
from lading_net.speech import serve_speech
from lading_node.agents import Serving
from lading_node.anchors import Anchors
from lading_node.audit import Auditor
from lading_node.bonds import Bonds
from lading_node.channels import Channels
from lading_node.core.policy import Policy
from lading_node.fees import Takings
from lading_node.fleet import Fleet
from lading_node.jobs import Desk
from lading_node.jury import Juror
from lading_node.openings import Opener
from lading_node.ports import Doors
from lading_node.presence import Presence
from lading_node.reach import Reach, reachable
from lading_node.releases import Releases
from lading_node.settle import Collector, Settler
from lading_node.standing import Standing
from lading_node.terms import TermsWatch
from lading_node.watch import Watch
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Wei
from lading_protocol.messages import AUDIT, BLOB, JOB, OFFERS, OPENING, SHEAVES

log = logging.getLogger(__name__)

# How long a shutdown waits for its last redemption; what is on its way then is found by the next start.
LAST_REDEMPTION_SECONDS = 60.0


class Plan(msgspec.Struct, frozen=True):
    """What the operator decided. `listen` and `announce` are multiaddrs; `announce` replaces what offers name, and
    `outward` (an IP address) stands in offers for a wildcard that we listen on.

    `drain` is how many seconds running jobs get at a shutdown, `pace` tokens per second and job (0: no limit),
    `chain_poll` seconds between looks at the chain, `anchor_every` seconds between roots of receipts (0: none). `upnp`:
    ask the router to open our port. `appeal_bond` is the largest bond (wei) that is put up to appeal (0: none).
    `audit_credit` is how many findings in a row an asker may leave unpaid (0: any number).
    """

    agents: tuple[Serving, ...] = ()
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    outward: str = ""
    coordinators: tuple[str, ...] = ()
    policy: Policy = Policy()
    drain: float = 20.0
    redeem_at_stop: bool = True
    pace: float = 0.0
    chain_poll: float = 1.0
    anchor_every: float = 0.0
    upnp: bool = False
    appeal_bond: Wei = Wei(0)
    audit_credit: int = 0


class Node:
    """Make it inside the running loop, then await `run`; `stop` (from a signal handler, say) ends it politely.

    Cancelling `run` is the impolite end: nothing is drained, and nothing that was promised is lost.
    """

    def __init__(self, doors: Doors, plan: Plan) -> None:
        self.doors = doors
        self.plan = plan
        self.address: Address = doors.key.address
        self.endpoints: tuple[str, ...] = ()
        self.started = asyncio.Event()
        self.fleet = Fleet(doors, plan.agents, lambda: self.endpoints)
        self.agents = self.fleet.agents
        self.channels = Channels(self.address, doors.ledger, doors.contracts, doors.clock)
        self.settler = Settler(doors, self.channels, plan.policy)
        self.desk = Desk(doors, self.channels, self.agents, self.settler.poke)
        self.desk.pace = plan.pace
        self.collector = Collector(doors, self.channels, self.desk)
        self.presence = Presence(doors, self.agents, plan.coordinators)
        self.takings = Takings(doors, self.channels, self.desk, self.agents, plan.audit_credit)
        self.auditor = Auditor(doors, self.agents, self.takings)
        self.bonds = Bonds(doors, plan.appeal_bond)
        self.juror = Juror(doors, self.auditor, self.bonds, self.presence.link_to)
        self.standing = Standing(doors)
        self.anchors = Anchors(doors.ledger, doors.contracts, doors.key, plan.anchor_every)
        self.terms = TermsWatch(doors.contracts, self.agents, doors.clock)
        self.releases = Releases(doors, self.fleet, self.terms.tables)
        self.fleet.watch(self.presence.offers_changed)
        self.fleet.watch_room(self.presence.room_changed)
        self.presence.accompany(self.releases.follow)
        self.clockwatch = Clockwatch(doors.clock, self.presence.is_coordinator, 1, "coordinators")
        self.presence.accompany(self.clockwatch.ask)
        self.reach = Reach(doors.direct, plan.announce, upnp=plan.upnp, changed=self._moved)
        self.presence.accompany(self.reach.talk)
        self.watch = Watch(doors, self.channels, self.settler.poke, plan.chain_poll)
        self.watch.listeners.append(self._hear)
        self.watch.before_forgetting = self._remember
        self.since = doors.clock()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    @property
    def chain_trouble(self) -> str:
        return self.watch.trouble

    @property
    def draining(self) -> bool:
        return self._stop.is_set()

    async def run(self) -> None:
        """Serve until stopped. Raises NetError when it cannot listen, LedgerError when the ledger does not read."""
        await self.channels.load()
        await self.juror.load()
        await self.bonds.load()
        await self.releases.load()
        transport = self.doors.transport
        serve_speech(transport, clock=self.clockwatch)
        transport.handle(JOB, self.desk.serve)
        transport.handle(SHEAVES, self.desk.binder.serve)
        transport.handle(AUDIT, self.auditor.serve)
        transport.handle(OPENING, Opener(self.doors.ledger).serve)
        transport.handle(OFFERS, self.presence.serve_offers)
        if self.doors.blobs is not None:
            transport.handle(BLOB, self.doors.blobs)
        transport.on_link(self._linked)
        bound = [await transport.listen(endpoint) for endpoint in self.plan.listen]
        self.reach.bound = tuple(reachable(endpoint, self.plan.outward) for endpoint in bound)
        self.endpoints = self.reach.endpoints()
        try:
            async with asyncio.TaskGroup() as group:
                chainside = (self.settler, self.juror, self.bonds, self.standing, self.anchors, self.terms, self.watch)
                parts = (
                    self.fleet,
                    self.releases,
                    self.presence,
                    self.reach,
                    self.clockwatch,
                    self.collector,
                    *chainside,
                )
                tasks = [group.create_task(part.run()) for part in parts]
                self.started.set()
                await self._stop.wait()
                await self._drain()
                for task in tasks:
                    task.cancel()
        finally:
            await transport.close()
            await self.desk.finish()

    async def _drain(self) -> None:
        """Running jobs first, then their last vouchers, then money if wanted."""
        log.info("shutting down: %d jobs may run on for %g s", self.desk.running, self.plan.drain)
        for agent in self.agents:
            agent.withdraw()
        await self.desk.stop(self.plan.drain)
        if self.plan.redeem_at_stop:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_REDEMPTION_SECONDS):
                    await self.settler.settle("the node stops")
        try:
            await self.doors.ledger.flush()
        except LadingError as error:
            log.error("the ledger could not be written at the end: %s", error)

    def _moved(self) -> None:
        """Other ways lead here than before: offers say so."""
        if self.endpoints != (now := self.reach.endpoints()):
            self.endpoints = now
            for agent in self.agents:
                if agent.offer is not None:
                    agent.renew()

    def _linked(self, link: Link) -> None:
        """A payer is back: what it still owes may be had now."""
        if self.channels.owing(Address(link.peer)):
            self.desk.later(self.collector.collect(link))

    async def _remember(self) -> None:
        """What the court's events led to, before they are forgotten."""
        await self.juror.save()
        await self.bonds.save()

    def _hear(self, event: events.Event) -> None:
        match event:
            case events.Opened():
                self.standing.accused(event, self.address)
            case events.Drawn():
                self.juror.hear(event)
            case events.Ruled():
                self.bonds.hear(event)
            case events.Staked() | events.Unstaked() | events.Slashed() | events.Jailed() | events.UnstakeRequested():
                if event.operator == self.address:
                    self.standing.look()
            case _:
                pass
