"""Which package of a lineage is current and which were taken back: signed by publishers, kept, told to who follows.

A pointer or yank counts when the registry's owner of the agent signed it, and when it is newer than the one that is
kept. Serves the publisher's side of moving and withdrawing, and the hosts' side of following.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from lading_contracts.registry import AgentRegistry
from lading_coordinator.core.catalogue import Catalogue, Entry
from lading_coordinator.errors import ReleaseRefused
from lading_coordinator.store import Store
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.ids import AgentId, Digest, short
from lading_protocol.messages import Follow, Kept, Move, Pointer, Withdraw, Yanked
from lading_protocol.release import KnownPointer, ReleasePointer, Yank, check_pointer, check_yank, lineage

log = logging.getLogger(__name__)
MAX_FOLLOWERS = 4096
_follow = msgspec.msgpack.Decoder(Follow)


class Withdrawn(msgspec.Struct, frozen=True):
    """A yank that was checked, as it is told to others."""

    agent: AgentId
    sequence: int
    message: Yanked


class Releases:
    """Marks `catalogue` with what is current and what was taken back. `clock` gives Unix seconds."""

    def __init__(
        self, store: Store, registry: AgentRegistry, catalogue: Catalogue, domain: Domain, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._registry = registry
        self._catalogue = catalogue
        self._domain = domain
        self._clock = clock
        self._pointers: dict[Digest, KnownPointer] = {}
        self._yanks: dict[Digest, dict[AgentId, Withdrawn]] = {}
        self._followers: set[asyncio.Event] = set()
        self.reload()
        catalogue.is_current = self.is_current

    def reload(self) -> None:
        """What is kept, as it stands now. Raises LedgerFailed."""
        for of, packed in self._store.rows("select lineage, packed from pointers"):
            self._pointers[Digest(of)] = KnownPointer(unpack(ReleasePointer, packed).value, packed)
        for of, packed, reason in self._store.rows("select lineage, packed, reason from yanks"):
            self._note(Digest(of), unpack(Yank, packed).value, Yanked(packed, reason))

    def is_current(self, entry: Entry) -> bool:
        """Whether the publisher's pointer names this very agent, and has not expired."""
        held = self._pointers.get(lineage(entry.publisher, entry.name))
        return held is not None and held.pointer.agent == entry.agent and held.pointer.expires > self._clock()

    async def move(self, ask: Move, is_held: Callable[[AgentId], bool]) -> Kept:
        """Keep a publisher's pointer. Raises ReleaseRefused, BadMessage, BadSignature, ChainError, LedgerFailed."""
        wanted = unpack(ReleasePointer, ask.pointer).value
        agent = AgentId(wanted.agent)
        entry, of = self._known(agent)
        known = check_pointer(ask.pointer, self._domain, entry.publisher, self._clock())
        if wanted.lineage != of:
            raise ReleaseRefused("The pointer names an agent of another name than its lineage's.")
        await self._check_owner(entry)
        if agent in self._yanks.get(of, {}):
            raise ReleaseRefused(f"Agent {short(agent)} was yanked: nobody should move to it.")
        if not is_held(agent):
            raise ReleaseRefused(f"The package of agent {short(agent)} is not here yet.", hint="Publish it first.")
        held = self._pointers.get(of)
        if held is not None and held.packed != ask.pointer:
            self._check_newer(held.pointer.sequence, wanted.sequence)
        self._store.write([("insert or replace into pointers values (?,?)", (of, ask.pointer))])
        self._pointers[of] = known
        log.info("Agent %s@%s (%s) is the current release now", entry.name, entry.version, short(agent))
        self._tell()
        return Kept(agent, wanted.sequence)

    async def withdraw(self, ask: Withdraw) -> Kept:
        """Keep a publisher's yank, for ever. Raises as `move` does."""
        agent = AgentId(unpack(Yank, ask.yank).value.agent)
        entry, of = self._known(agent)
        yank = check_yank(ask.yank, ask.reason, self._domain, entry.publisher)
        await self._check_owner(entry)
        held = self._yanks.get(of, {}).get(agent)
        if held is not None and held.message.packed != ask.yank:
            self._check_newer(held.sequence, yank.sequence)
        self._store.write([("insert or replace into yanks values (?,?,?,?)", (agent, of, ask.yank, ask.reason))])
        self._note(of, yank, Yanked(ask.yank, ask.reason))
        log.info("Agent %s@%s (%s) was yanked: %s", entry.name, entry.version, short(agent), ask.reason)
        self._tell()
        return Kept(agent, yank.sequence)

    async def serve(self, stream: Stream) -> None:
        """The handler of RELEASE: what stands now, and every change, until the follower leaves."""
        if len(self._followers) >= MAX_FOLLOWERS:
            stream.reset()
            return
        messages: MessageStream[Follow] = MessageStream(stream, _follow)
        changed = asyncio.Event()
        self._followers.add(changed)
        wanted: list[Digest] = []

        async def listen() -> None:
            while (ask := await messages.recv()) is not None:
                wanted[:] = map(Digest, ask.lineages)
                changed.set()

        listening = asyncio.ensure_future(listen())
        listening.add_done_callback(lambda _: changed.set())
        told: set[bytes] = set()
        try:
            over = False
            while not over:
                changed.clear()
                over = listening.done()  # who closed its side after asking is still told what stands
                for message in self._news(wanted, told):
                    messages.send(message)
                    await messages.drain()
                if not over:
                    await changed.wait()
        except NetError as error:
            log.debug("A follower %s is gone: %s", short(stream.peer), error)
        finally:
            self._followers.discard(changed)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    # --- inside ---

    def _news(self, wanted: list[Digest], told: set[bytes]) -> list[Pointer | Yanked]:
        """What a follower was not told yet: yanks first, so that nobody moves to what was taken back."""
        news: list[Pointer | Yanked] = []
        for of in wanted:
            news += [one.message for one in self._yanks.get(of, {}).values()]
            held = self._pointers.get(of)
            if held is not None and held.pointer.expires > self._clock():
                news.append(Pointer(held.packed))
        news = [one for one in news if one.packed not in told]
        told.update(one.packed for one in news)
        return news

    def _known(self, agent: AgentId) -> tuple[Entry, Digest]:
        entry = self._catalogue.get(agent)
        if entry is None:
            raise ReleaseRefused(f"Agent {short(agent)} is not known here.", hint="Publish it first.")
        return entry, lineage(entry.publisher, entry.name)

    async def _check_owner(self, entry: Entry) -> None:
        registered = await self._registry.agent(entry.agent)
        if registered is None or registered.owner != entry.publisher:
            raise ReleaseRefused("The agent is not registered by the publisher that its manifest names.")

    @staticmethod
    def _check_newer(held: int, given: int) -> None:
        if given <= held:
            raise ReleaseRefused(
                f"A newer one is held: its sequence is {held}, this one's is {given}.",
                hint="Sign again, with a later one.",
            )

    def _note(self, of: Digest, yank: Yank, message: Yanked) -> None:
        agent = AgentId(yank.agent)
        self._yanks.setdefault(of, {})[agent] = Withdrawn(agent, yank.sequence, message)
        self._catalogue.withdraw(agent, message.reason)

    def _tell(self) -> None:
        for changed in self._followers:
            changed.set()
