"""One agent on many machines of a pool: an engine that is the sum of its members, each in a process of its own.

A request belongs to one member from its beginning to its end. A member that is lost takes its own requests with it and
nothing else; another is placed as soon as there is room for it, and more of them where machines join.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from lading_node.core.placing import Need
from lading_node.engines.errors import EngineError
from lading_node.engines.pool_engine import PoolEngine, need_of
from lading_node.engines.port import Embed, Embedded, EngineSpec, Event, Failed, Generate, Health, Ready, Score, Scored
from lading_protocol.errors import LadingError

if TYPE_CHECKING:
    from lading_node.engines.pool import Pool

log = logging.getLogger(__name__)

# How long a first member waits for a machine with room.
ROOM_S = 60.0
# A machine on which a member failed is left alone for so long, twice as long each time, up to the longest.
REST_S = (1.0, 600.0)
_LOOK_S = 1.0


class SpreadEngine:
    """`most` members at most; 0: as many as there is room for."""

    def __init__(self, spec: EngineSpec, pool: "Pool", most: int = 0, room_s: float = ROOM_S) -> None:
        self.need = Need()
        self.kind = ""
        self.waiting = False
        self._spec = spec
        self._pool = pool
        self._most = most
        self._room_s = room_s
        self._ready: Ready | None = None
        self._members: list[PoolEngine] = []
        self._leaving: list[PoolEngine] = []
        self._starting: dict[PoolEngine, asyncio.Task[None]] = {}
        self._endings: dict[PoolEngine, asyncio.Task[None]] = {}
        self._where: dict[str, PoolEngine] = {}
        self._rests: dict[str, tuple[float, float]] = {}  # by machine: until when, and how long that was
        self._grower: asyncio.Task[None] | None = None
        self._spent = Health(False, 0, 0.0, 0, 0, 0)  # by members that are gone

    async def start(self) -> Ready:
        """With one member; the others come as there is room. Raises EngineError."""
        if self._pool.knows(self):
            raise EngineError("engine_error", "This engine was started before.", hint="Make a new one.")
        self.need = await asyncio.to_thread(need_of, self._spec)
        self._pool.enter(self)
        member = await self._first()
        try:
            self._ready = await member.start()
        except BaseException:
            self._pool.leave(self)
            raise
        self._members.append(member)
        self._grower = asyncio.ensure_future(self._grow())
        return self._ready

    async def generate(self, order: Generate) -> AsyncIterator[Event]:
        member = self._assign(order.id)
        if isinstance(member, Failed):
            yield member
            return
        try:
            async with aclosing(member.generate(order)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event
        finally:
            self._release(order.id, member)

    async def embed(self, order: Embed) -> Embedded | Failed:
        member = self._assign(order.id)
        if isinstance(member, Failed):
            return member
        try:
            return await member.embed(order)
        finally:
            self._release(order.id, member)

    async def score(self, order: Score) -> Scored | Failed:
        member = self._assign(order.id)
        if isinstance(member, Failed):
            return member
        try:
            return await member.score(order)
        finally:
            self._release(order.id, member)

    def cancel(self, id: str) -> None:
        if (member := self._where.get(id)) is not None:
            member.cancel(id)

    def health(self) -> Health:
        """`slots` are those of all members that take requests."""
        serving = self._serving()
        every = [self._spent, *(member.health() for member in (*self._members, *self._leaving))]
        return Health(
            alive=bool(serving),
            running=len(self._where),
            cpu_s=sum(one.cpu_s for one in every),
            memory=sum(one.memory for one in every),
            prompt_tokens=sum(one.prompt_tokens for one in every),
            output_tokens=sum(one.output_tokens for one in every),
            slots=self._spec.slots * len(serving),
            device=self.kind,
        )

    async def stop(self, grace: float = 0.5) -> None:
        self._pool.leave(self)
        tasks = [*self._starting.values(), *([self._grower] if self._grower is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(member.stop(grace) for member in (*self._members, *self._leaving)))
        await asyncio.gather(*self._endings.values())

    # What the pool asks

    @property
    def members(self) -> list[PoolEngine]:
        """Those that one could do without, were there more than one."""
        return self._serving()

    @property
    def makes_room(self) -> bool:
        return any(not member.ended for member in self._leaving)

    def takes(self, machine: str) -> bool:
        """Whether a member may run there: on one class of device only, which offers name."""
        until, _ = self._rests.get(machine, (0.0, 0.0))
        kind = self._pool.kind_of(machine, self.need.card)
        return asyncio.get_running_loop().time() >= until and self.kind in ("", kind)

    def let_go(self, member: PoolEngine) -> None:
        """It takes nothing new, and ends with the last of its requests."""
        self._members.remove(member)
        self._leaving.append(member)
        self._end_idle(member)

    # Inside

    async def _first(self) -> PoolEngine:
        """A member that is placed. Raises EngineError when there is no room in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._room_s
        self.waiting = True
        try:
            while True:
                try:
                    return self._placed()
                except EngineError:
                    if loop.time() >= until:
                        raise
                self._pool.make_room(self)
                await self._pool.change(_LOOK_S)
        except BaseException:
            self._pool.leave(self)
            raise
        finally:
            self.waiting = False

    def _placed(self) -> PoolEngine:
        """Raises EngineError when there is no room."""
        member = PoolEngine(self._spec, self._pool)
        taken = member.sit(self.need, self.takes)
        self.kind = self.kind or self._pool.kind_of(taken.machine, self.need.card)
        return member

    async def _grow(self) -> None:
        while True:
            self._bury()
            count = len(self._members) + len(self._starting)
            if (not self._most or count < self._most) and self._pool.may_grow(self):
                member = self._placed()
                self._starting[member] = asyncio.ensure_future(self._join(member))
                await asyncio.sleep(0)  # another agent's turn
            else:
                await self._pool.change(_LOOK_S)

    async def _join(self, member: PoolEngine) -> None:
        """Only what is as the first one is: an offer has one tier."""
        try:
            ready = await member.start()
        except LadingError as error:
            self._rest(member.machine)
            log.warning("machine %s: %s", member.machine, error.message)
        else:
            assert self._ready is not None
            if ready.tier == self._ready.tier:
                self._members.append(member)
                return
            self._rest(member.machine, REST_S[1])
            log.warning("machine %s: the agent's tier %r does not hold there", member.machine, self._ready.tier)
            await member.stop(0)
        finally:
            self._starting.pop(member, None)

    def _bury(self) -> None:
        """Members that have ended. Their machines get a rest: what ended them may do so again."""
        for member in [one for one in self._members if one.ended]:
            log.warning("machine %s: an engine has ended, its requests with it", member.machine)
            self._rest(member.machine)
            self.let_go(member)

    def _rest(self, machine: str, least: float = REST_S[0]) -> None:
        now = asyncio.get_running_loop().time()
        until, last = self._rests.get(machine, (0.0, 0.0))
        most = REST_S[1]
        length = min(most, 2 * last) if last and now - until < most else least
        self._rests[machine] = (now + length, length)

    def _serving(self) -> list[PoolEngine]:
        return [member for member in self._members if not member.ended]

    def _assign(self, id: str) -> PoolEngine | Failed:
        """The member with the most free slots."""
        serving = self._serving()
        if not serving:
            return EngineError("engine_died", "The engine is not running.").as_event(id)
        if id in self._where:
            return Failed(id, "invalid_request", f"A request {id!r} is already running.")
        member = self._where[id] = min(serving, key=lambda one: one.load)
        return member

    def _release(self, id: str, member: PoolEngine) -> None:
        self._where.pop(id, None)
        if member in self._leaving:
            self._end_idle(member)

    def _end_idle(self, member: PoolEngine) -> None:
        if not member.load and member not in self._endings:
            self._endings[member] = asyncio.ensure_future(self._end(member))

    async def _end(self, member: PoolEngine) -> None:
        await member.stop()
        seen, spent = member.health(), self._spent
        self._spent = msgspec.structs.replace(
            spent,
            cpu_s=spent.cpu_s + seen.cpu_s,
            prompt_tokens=spent.prompt_tokens + seen.prompt_tokens,
            output_tokens=spent.output_tokens + seen.output_tokens,
        )
        self._leaving.remove(member)
        del self._endings[member]
