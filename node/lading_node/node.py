"""The node itself: the parts composed over their doors, started together, drained and stopped together.

`main` gives it real doors, a simulation those in memory. Decides nothing; status and drain order live here.
"""

import asyncio
import logging

import msgspec

from lading_contracts import events
from lading_contracts.errors import ChainError
from lading_contracts.follower import Cursor, Follower, Following
from lading_net.peer import Endpoint
from lading_net.ports import Link
from lading_node.agents import Agent, Serving
from lading_node.audit import Auditor
from lading_node.channels import Channels
from lading_node.core.channel import ChannelId
from lading_node.core.policy import Policy
from lading_node.jobs import Desk
from lading_node.jury import Juror
from lading_node.ports import Doors
from lading_node.presence import Presence
from lading_node.settle import Collector, Settler
from lading_node.standing import Standing
from lading_node.terms import TermsWatch
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, TermsId
from lading_protocol.messages import AUDIT, BLOB, JOB, OFFERS

log = logging.getLogger(__name__)

CHAIN_RETRY_SECONDS = 5.0
CURSOR_BLOCKS = 100


class Plan(msgspec.Struct, frozen=True):
    """What the operator decided. `listen` and `announce` are multiaddrs; `announce` replaces what offers name, and
    `outward` (an IP address) stands in offers for a wildcard that we listen on.

    `drain` is how many seconds running jobs get at a shutdown, `pace` tokens per second and job (0: no limit),
    `chain_poll` seconds between looks at the chain.
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
        self.chain_trouble = ""
        self.agents = [Agent(serving, doors, lambda: self.endpoints) for serving in plan.agents]
        self.channels = Channels(self.address, doors.ledger, doors.contracts, doors.clock)
        self.settler = Settler(doors, self.channels, plan.policy)
        self.desk = Desk(doors, self.channels, self.agents, self.settler.poke)
        self.desk.pace = plan.pace
        self.collector = Collector(doors, self.channels, self.desk)
        self.presence = Presence(doors, self.agents, plan.coordinators)
        self.auditor = Auditor(doors, self.agents)
        self.juror = Juror(doors, self.auditor, self.presence.link_to)
        self.standing = Standing(doors)
        self.terms = TermsWatch(doors.contracts, self.agents, doors.clock)
        self.since = doors.clock()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    @property
    def draining(self) -> bool:
        return self._stop.is_set()

    async def run(self) -> None:
        """Serve until stopped. Raises NetError when it cannot listen, LedgerError when the ledger does not read."""
        await self.channels.load()
        await self.juror.load()
        transport = self.doors.transport
        transport.handle(JOB, self.desk.serve)
        transport.handle(AUDIT, self.auditor.serve)
        transport.handle(OFFERS, self.presence.serve_offers)
        if self.doors.blobs is not None:
            transport.handle(BLOB, self.doors.blobs)
        transport.on_link(self._linked)
        bound = [await transport.listen(endpoint) for endpoint in self.plan.listen]
        self.endpoints = self.plan.announce or tuple(_reachable(endpoint, self.plan.outward) for endpoint in bound)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(agent.run()) for agent in self.agents]
                others = (self.presence, self.settler, self.collector, self.juror, self.standing, self.terms)
                tasks += [group.create_task(part.run()) for part in others]
                tasks.append(group.create_task(self._follow()))
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
            await self.settler.settle("the node stops")
        try:
            await self.doors.ledger.flush()
        except LadingError as error:
            log.error("the ledger could not be written at the end: %s", error)

    def _linked(self, link: Link) -> None:
        """A payer is back: what it still owes may be had now."""
        if self.channels.owing(Address(link.peer)):
            self.desk.later(self.collector.collect(link))

    # The chain's events

    async def _follow(self) -> None:
        deployment = self.doors.contracts.deployment
        wanted = {deployment.settlement, deployment.staking, deployment.court}
        names = {address: name for address, name in deployment.names().items() if address in wanted}
        follower = Follower(self.doors.contracts.chain, names, Following(poll=self.plan.chain_poll))
        saved = await self.doors.ledger.note("cursor")
        cursor = msgspec.msgpack.decode(saved, type=Cursor) if saved else Cursor(deployment.block)
        saved_at = cursor.next
        while True:
            try:
                batch = await follower.step(cursor)
                self.chain_trouble = ""
                if batch is None:
                    await asyncio.sleep(self.plan.chain_poll)
                    continue
                for entry in batch.entries:
                    await self._hear(entry.event)
                cursor = batch.cursor
                # Empty blocks are cheap to read again; events are not forgotten before what they led to is kept.
                if batch.entries or cursor.next >= saved_at + CURSOR_BLOCKS:
                    await self.juror.save()
                    await self.doors.ledger.put_note("cursor", msgspec.msgpack.encode(cursor))
                    saved_at = cursor.next
            except LadingError as error:
                if not self.chain_trouble:
                    log.warning("the chain does not answer: %s", error)
                self.chain_trouble = str(error)
                await asyncio.sleep(CHAIN_RETRY_SECONDS)

    async def _hear(self, event: events.Event) -> None:
        match event:
            case events.CloseStarted() | events.Closed() | events.Locked():
                id = ChannelId(event.signer, TermsId(event.terms), event.epoch)
                if event.host == self.address and self.channels.known(id):
                    await self._refresh(id)
            case events.Opened():
                self.standing.accused(event, self.address)
            case events.Drawn():
                self.juror.hear(event)
            case events.Staked() | events.Unstaked() | events.Slashed() | events.Jailed() | events.UnstakeRequested():
                if event.operator == self.address:
                    self.standing.look()
            case _:
                pass

    async def _refresh(self, id: ChannelId) -> None:
        try:
            await self.channels.refresh(id)
        except ChainError:
            log.debug("a channel's state is read again later")
        self.settler.poke()


def _reachable(bound: str, outward: str) -> str:
    """An endpoint that others can dial: nobody can dial the wildcard address."""
    place = Endpoint.parse(bound)
    if outward and place.host in ("0.0.0.0", "::"):
        kind = "ip6" if ":" in outward else "ip4"
        return str(msgspec.structs.replace(place, kind=kind, host=outward))
    return bound
