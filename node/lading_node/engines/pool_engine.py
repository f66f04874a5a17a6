"""The engine port over a pool: an engine whose process lives on another machine.

Back-pressure, cancel and stop go through to it; when its machine is lost every running request gets a `Failed` value,
and starting another engine, which may land elsewhere, is the caller's decision.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from lading_node.core.placing import Need
from lading_node.engines import pool_wire as wire
from lading_node.engines.errors import EngineError
from lading_node.engines.inbox import Inbox, gathered, room_of, scored, streamed
from lading_node.engines.port import (
    Embed,
    Embedded,
    EngineSpec,
    Event,
    Failed,
    Generate,
    Health,
    Ready,
    Run,
    Score,
    Scored,
    Started,
)
from lading_node.engines.wire import FromEngine
from lading_protocol.errors import BadMessage

if TYPE_CHECKING:
    from lading_node.engines.pool import Pool

LOAD_S = 90.0
READ_SPEED = 25e6  # bytes a second: a machine hashes a file once, and its engine once more
_STOP_S = 3.0
_NOTHING = Health(False, 0, 0.0, 0, 0, 0)


class PoolEngine:
    def __init__(self, spec: EngineSpec, pool: "Pool", *, load_deadline: float = 0.0) -> None:
        """`load_deadline` counts from the last part of a file that the machine asked for; 0 goes by the files' size."""
        self._spec = spec
        self._pool = pool
        self._load_deadline = load_deadline or LOAD_S + _sizes(spec) / READ_SPEED
        self._seat = ""
        self._ready: asyncio.Future[Ready] | None = None
        self._gone = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._inboxes: dict[str, Inbox] = {}
        self._health = _NOTHING
        self._prompt_tokens = 0
        self._output_tokens = 0
        self._outgoing: asyncio.Queue[wire.ToMachine] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Ready:
        if self._ready is not None:
            raise EngineError("engine_error", "This engine was started before.", hint="Make a new one.")
        self._ready = asyncio.get_running_loop().create_future()
        need = await asyncio.to_thread(need_of, self._spec)
        self._seat, taken = self._pool.take_seat(need, self)
        self._tasks = [asyncio.ensure_future(self._send())]
        self._outgoing.put_nowait(wire.Place(self._seat, replace(self._spec, card=taken.card)))
        try:
            async with asyncio.timeout(self._load_deadline) as self._deadline:
                return await self._ready
        except BaseException as error:
            self._ready.cancel()
            await self.stop(0)
            if isinstance(error, TimeoutError):
                why = f"The agent did not load within {self._load_deadline:g} s on {taken.machine}."
                raise EngineError("timeout", why) from None
            raise

    async def generate(self, order: Generate) -> AsyncIterator[Event]:
        inbox = self._submit(order)
        try:
            async with aclosing(streamed(inbox, order.ahead, lambda count: self._took(order.id, count))) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(inbox)

    async def embed(self, order: Embed) -> Embedded | Failed:
        inbox = self._submit(order)
        try:
            return await gathered(inbox)
        finally:
            self._leave(inbox)

    async def score(self, order: Score) -> Scored | Failed:
        inbox = self._submit(order)
        try:
            return await scored(inbox)
        finally:
            self._leave(inbox)

    def cancel(self, id: str) -> None:
        if id in self._inboxes:
            self._outgoing.put_nowait(wire.Cancel(self._seat, id))

    def health(self) -> Health:
        return replace(
            self._health,
            alive=self._alive,
            running=len(self._inboxes),
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
        )

    async def stop(self, grace: float = 0.5) -> None:
        if not self._seat:
            return
        if not self._gone.is_set():
            self._outgoing.put_nowait(wire.Halt(self._seat, grace))
            try:
                await asyncio.wait_for(self._gone.wait(), grace + _STOP_S)
            except TimeoutError:
                pass
            self.receive(wire.Gone(self._seat, "engine_died", "The engine was stopped."))
        for task in self._tasks:
            task.cancel()

    def receive(self, message: wire.FromMachine) -> None:
        """What the pool has for this seat."""
        match message:
            case wire.Told(event=event):
                self._hear(event)
            case wire.Want():
                if self._deadline is not None:
                    self._deadline.reschedule(asyncio.get_running_loop().time() + self._load_deadline)
                self._tasks.append(asyncio.ensure_future(self._deliver(message)))
            case wire.Placed(ready=ready):
                self._health = replace(_NOTHING, alive=True)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(ready)
            case wire.Pulse(health=health):
                self._health = health
                if not health.alive:
                    self._end(wire.Gone(self._seat, "engine_died", "The engine's process ended."))
            case wire.Gone():
                self._end(message)
            case wire.Here():
                pass

    @property
    def _alive(self) -> bool:
        return self._health.alive and not self._gone.is_set()

    def _hear(self, event: FromEngine) -> None:
        if isinstance(event, Run):
            self._output_tokens += len(event.ids)
        elif isinstance(event, Started):
            self._prompt_tokens += event.prompt_tokens
        inbox = self._inboxes.get(getattr(event, "id", ""))
        if inbox is not None:
            inbox.put(event)  # type: ignore[arg-type]

    def _end(self, gone: wire.Gone) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        self._pool.leave_seat(self._seat)
        error = EngineError(gone.code, gone.message, hint=gone.hint or None)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        for inbox in self._inboxes.values():
            inbox.put(error.as_event(inbox.id))

    def _submit(self, order: Generate | Embed | Score) -> Inbox:
        inbox = Inbox(order.id, room_of(order))
        if not self._alive:
            inbox.put(EngineError("engine_died", "The engine is not running.").as_event(order.id))
        elif order.id in self._inboxes:
            inbox.put(Failed(order.id, "invalid_request", f"A request {order.id!r} is already running."))
        else:
            self._inboxes[order.id] = inbox
            self._outgoing.put_nowait(wire.Ask(self._seat, order))
        return inbox

    def _leave(self, inbox: Inbox) -> None:
        if self._inboxes.get(inbox.id) is inbox:
            del self._inboxes[inbox.id]
            if not inbox.ended:
                self._outgoing.put_nowait(wire.Cancel(self._seat, inbox.id))

    def _took(self, id: str, count: int) -> None:
        self._outgoing.put_nowait(wire.Taken(self._seat, id, count))

    async def _send(self) -> None:
        """In order; a request that is too large is refused here, as a process of our own would refuse it."""
        while True:
            message = await self._outgoing.get()
            try:
                await self._pool.say(self._seat, message)
            except BadMessage as error:
                if isinstance(message, wire.Ask) and (inbox := self._inboxes.get(message.order.id)) is not None:
                    why = f"The request is too large. {error.message}"
                    inbox.put(Failed(message.order.id, "invalid_request", why))

    async def _deliver(self, want: wire.Want) -> None:
        """The next part of a file that the machine does not have."""
        data = await asyncio.to_thread(_part, self._spec, want.digest, want.offset)
        part = wire.Part(self._seat, want.digest, want.offset, data or b"", gone=data is None)
        self._outgoing.put_nowait(part)
        self._tasks = [task for task in self._tasks if not task.done()]


def need_of(spec: EngineSpec) -> Need:
    """Memory is the limit that the spec sets, else an estimate from its files: weights, and as much to work with."""
    return Need(float(spec.threads), spec.memory or 2 * _sizes(spec) + (64 << 20), spec.device)


def _sizes(spec: EngineSpec) -> int:
    files = [*spec.files, *(file for model in spec.models for file in model.files)]
    return sum(_size(file.path) for file in files)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _part(spec: EngineSpec, digest: bytes, offset: int) -> bytes | None:
    """Only a file of this very spec; None when it cannot be read."""
    files = [*spec.files, *(file for model in spec.models for file in model.files)]
    for file in files:
        if file.digest == digest:
            try:
                with open(file.path, "rb") as reader:
                    reader.seek(offset)
                    return reader.read(wire.PART)
            except (OSError, ValueError, OverflowError):
                return None
    return None
