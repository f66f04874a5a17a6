"""Following publishers: a newer release is fetched and loaded beside the old one and served at the same price, and only
then the old one is let go; a yanked one is offered no more. Running jobs always end.

What was decided is written down before it is done, so that a crash at any step goes on from there. What counts is
core.release's to say; coordinators only carry the papers.
"""

import asyncio
import logging
from collections.abc import Iterator

import msgspec

from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_node.agents import Agent, Serving
from lading_node.core.release import Line, Registration, begin, is_news, moved, pointed, refusal, taken_back
from lading_node.fleet import Fleet
from lading_node.ports import Doors, Package
from lading_node.store import Ledger
from lading_node.terms import Found, Tables
from lading_protocol.eip712 import unpack
from lading_protocol.errors import BadManifest, BadMessage, BadSignature, LadingError
from lading_protocol.ids import AgentId, short
from lading_protocol.messages import RELEASE, Follow, Pointer, ToFollower, Yanked
from lading_protocol.release import ReleasePointer, Yank, check_pointer, check_yank, lineage

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0
MOST_LINEAGES = 256
_to_follower = msgspec.msgpack.Decoder(ToFollower)
_line = msgspec.msgpack.Decoder(Line)


async def recall(ledger: Ledger, origin: AgentId) -> Line | None:
    """What is remembered of an agent that the operator named. Raises LedgerError."""
    data = await ledger.note(_name(origin))
    try:
        return None if data is None else _line.decode(data)
    except msgspec.DecodeError:
        log.error("what was remembered of agent %s does not read; it is served as it was named", short(origin))
        return None


class Releases:
    """`trouble` says in words why a release was not taken, by the agent that the operator named."""

    def __init__(self, doors: Doors, fleet: Fleet, tables: Tables) -> None:
        self.trouble: dict[AgentId, str] = {}
        self._doors = doors
        self._fleet = fleet
        self._tables = tables
        self._domain = doors.contracts.deployment.registry_domain
        self._lines: dict[AgentId, Line] = {}
        self._wished = {origin_of(agent.serving): agent.serving for agent in fleet.agents}
        self._moves: dict[AgentId, asyncio.Task[None]] = {}
        self._streams: set[asyncio.Event] = set()
        self._hearing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        fleet.watch(self._look)

    def line(self, agent: Agent) -> Line | None:
        return self._lines.get(origin_of(agent.serving))

    async def load(self) -> None:
        """Before the agents are started: serve what was served last, and nothing that was taken back."""
        for agent in list(self._fleet.agents):
            origin = origin_of(agent.serving)
            line = await recall(self._doors.ledger, origin)
            if line is None:
                continue
            self._lines[origin] = line
            serving = agent.serving
            now = line.serving if serving.follow else serving.agent
            if any(other.serving.agent == now for other in self._fleet.agents if other is not agent):
                self._fleet.agents.remove(agent)  # two that the operator named have become the same
                continue
            if now != serving.agent:
                self._fleet.agents.remove(agent)
                agent = self._fleet.add(self._later(origin, now, Found(line.terms)))
            reason = line.yanked(agent.serving.agent)
            if reason is not None:
                self._fleet.retire(agent, "yanked", _yanked_words(reason), keep=True)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for origin in list(self._lines):
                self._begin(origin)
            await asyncio.Event().wait()

    async def follow(self, link: Link) -> None:
        """Hear a coordinator's papers until the link ends. One that knows no releases is asked again now and then."""
        while not link.closed.is_set():
            try:
                await self._listen(link)
            except LadingError as error:
                log.debug("no releases from %s: %s", short(link.peer), error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self, link: Link) -> None:
        stream = await link.open(RELEASE)
        messages: MessageStream[Pointer | Yanked] = MessageStream(stream, _to_follower)
        changed = asyncio.Event()
        changed.set()
        self._streams.add(changed)
        telling = asyncio.ensure_future(self._tell(messages, changed))
        try:
            while (said := await messages.recv()) is not None:
                try:
                    async with self._hearing:
                        await self._hear(said)
                except (BadMessage, BadSignature) as error:
                    log.warning("%s hands on a paper that is not good: %s", short(link.peer), error)
        finally:
            self._streams.discard(changed)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            stream.reset()

    async def _tell(self, messages: MessageStream[Pointer | Yanked], changed: asyncio.Event) -> None:
        """Say which lineages we follow, whenever that changes."""
        said: tuple[bytes, ...] = ()
        while True:
            await changed.wait()
            changed.clear()
            wanted = tuple(dict.fromkeys(line.lineage for line in self._lines.values()))[:MOST_LINEAGES]
            if wanted != said:
                said = wanted
                messages.send(Follow(wanted))
                await messages.drain()

    # What publishers say

    async def _hear(self, said: Pointer | Yanked) -> None:
        """Raises ChainError when it could not be checked: it comes again with the next stream."""
        if isinstance(said, Yanked):
            yank = unpack(Yank, said.packed)
            for origin, line in list(self._lines.items()):
                if yank.signer(self._domain) == line.publisher:
                    await self._take_back(origin, line, said)
            return
        pointer = unpack(ReleasePointer, said.packed).value
        for origin, line in list(self._lines.items()):
            if is_news(line, pointer) and self._follows(origin):
                await self._point(origin, line, said.packed)

    async def _point(self, origin: AgentId, line: Line, packed: bytes) -> None:
        pointer = check_pointer(packed, self._domain, line.publisher, self._doors.clock()).pointer
        wanted, present = await self._registered(AgentId(pointer.agent)), await self._registered(line.serving)
        if why := refusal(line, pointer, wanted, present):
            log.warning("a release of agent %s is not taken: %s", short(origin), why)
            return
        log.info("agent %s: its publisher points to %s", short(origin), short(pointer.agent))
        await self._keep(origin, pointed(line, pointer))
        self._begin(origin)

    async def _take_back(self, origin: AgentId, line: Line, said: Yanked) -> None:
        yank = check_yank(said.packed, said.reason, self._domain, line.publisher)
        agent = AgentId(yank.agent)
        if line.yanked(agent) == said.reason:
            return
        after = taken_back(line, yank, said.reason)
        holder = self._fleet.find(agent)
        if holder is not None and not holder.retired:
            log.warning("agent %s was yanked by its publisher: %s", short(agent), said.reason)
            self._fleet.retire(holder, "yanked", _yanked_words(said.reason), keep=agent == line.serving)
        await self._keep(origin, after)
        if after.wanted != line.wanted:
            self._begin(origin)

    async def _registered(self, agent: AgentId) -> Registration | None:
        found = await self._doors.contracts.registry.agent(agent)
        return None if found is None else Registration(found.owner, found.registered_at)

    def _look(self) -> None:
        """A package is here: from now on its lineage is known."""
        for agent in self._fleet.agents:
            origin = origin_of(agent.serving)
            if agent.package is not None and origin not in self._lines:
                manifest = agent.package.manifest
                publisher = manifest.publisher_address
                of = lineage(publisher, manifest.name)
                self._lines[origin] = begin(publisher, of, agent.serving.agent, agent.serving.terms)
                for changed in self._streams:
                    changed.set()

    def _follows(self, origin: AgentId) -> bool:
        return self._wished[origin].follow

    # Moving on

    def _begin(self, origin: AgentId) -> None:
        """Move to what is wanted now; a move to something older ends where it is."""
        if (move := self._moves.pop(origin, None)) is not None:
            move.cancel()
        self.trouble.pop(origin, None)
        line = self._lines[origin]
        if self._group is not None and line.wanted != line.serving and self._follows(origin):
            self._moves[origin] = self._group.create_task(self._move(origin, line.wanted, move))

    async def _move(self, origin: AgentId, wanted: AgentId, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        obtained = await self._obtain(origin, wanted)
        if obtained is None:
            return
        package, found = obtained
        fresh = self._fleet.find(wanted)
        ours = fresh is None
        if fresh is None:
            fresh = self._fleet.add(self._later(origin, wanted, found), package)
        try:
            took = await self._fleet.settled(fresh)
        except asyncio.CancelledError:
            if ours:
                self._fleet.retire(fresh, "replaced", "Another release is wanted.")
            raise
        if not took:
            self._say(origin, f"The release {short(wanted)} was not taken: {fresh.why}")
            if ours:
                self._fleet.retire(fresh, "replaced", "It did not load.")
            return
        self._let_go(origin, fresh, f"{package.manifest.name}@{package.manifest.version}")
        # A crash before this is written finds the old one and the wish for the new one, and does it all again.
        await self._keep(origin, moved(self._lines[origin], wanted, found.terms))

    def _let_go(self, origin: AgentId, fresh: Agent, version: str) -> None:
        log.info("agent %s: %s is served now", short(origin), version)
        for old in list(self._fleet.agents):
            if origin_of(old.serving) == origin and old is not fresh:
                self._fleet.retire(old, "replaced", f"The release {version} is served instead; running jobs end.")

    async def _obtain(self, origin: AgentId, wanted: AgentId) -> tuple[Package, Found] | None:
        """The package and its newest terms, however long it takes. None when it is not of this lineage."""
        pause = FIRST_RETRY
        while True:
            try:
                found = await self._tables.newest(wanted, self._doors.clock())
                if found is not None:
                    package = await self._doors.packages.get(wanted, log.debug)
                    self._check(origin, package)
                    return package, found
                why = "no terms were agreed for it"
            except BadManifest as error:
                self._say(origin, f"The release {short(wanted)} was not taken: {error.message}")
                return None
            except LadingError as error:
                why = str(error)
            self._say(origin, f"The release {short(wanted)} is not taken yet: {why}")
            await asyncio.sleep(pause)
            pause = min(LONGEST_RETRY, 2 * pause)

    def _check(self, origin: AgentId, package: Package) -> None:
        manifest = package.manifest
        if lineage(manifest.publisher_address, manifest.name) != self._lines[origin].lineage:
            raise BadManifest(f"Agent {short(package.agent)} is {manifest.name!r}, another agent.")

    def _later(self, origin: AgentId, wanted: AgentId, found: Found) -> Serving:
        """The release under the conditions that the operator set for the agent it named."""
        return msgspec.structs.replace(
            self._wished[origin],
            agent=wanted,
            terms=found.terms,
            sunset_at=found.sunset_at,
            named=False,
            origin=origin,
        )

    def _say(self, origin: AgentId, words: str) -> None:
        if self.trouble.get(origin) != words:
            log.warning("agent %s: %s", short(origin), words)
        self.trouble[origin] = words

    async def _keep(self, origin: AgentId, line: Line) -> None:
        """On disk when it returns; where the disk takes nothing now, the ledger goes on trying."""
        self._lines[origin] = line
        try:
            await self._doors.ledger.put_note(_name(origin), msgspec.msgpack.encode(line))
        except LadingError as error:
            log.error("what is known of agent %s waits to be written: %s", short(origin), error)

    def notices(self) -> Iterator[str]:
        """What an operator should read, a sentence each."""
        for origin, words in self.trouble.items():
            yield f"Agent {short(origin)}: {words} What was served before is served on."


def origin_of(serving: Serving) -> AgentId:
    return serving.origin or serving.agent


def _name(origin: AgentId) -> str:
    return f"release:{origin.hex()}"


def _yanked_words(reason: str) -> str:
    return f"Its publisher withdrew this release: {reason.rstrip('.')}."
