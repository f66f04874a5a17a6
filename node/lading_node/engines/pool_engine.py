"""The engine port over a pool: an engine whose process lives on another machine.

Back-pressure, cancel and stop go through to it; when its machine is lost every running request gets a `Failed` value,
and starting another engine, which may land elsewhere, is the caller's decision.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from lading_node.core.placing import Need, Taken
from lading_node.engines import pool_wire as wire
from lading_node.engines.errors import EngineError
from lading_node.engines.front import Front, Order
from lading_node.engines.inbox import Arrival
from lading_node.engines.port import EngineSpec, Health, Ready

if TYPE_CHECKING:
    from lading_node.engines.pool import Pool

LOAD_S = 90.0
READ_SPEED = 25e6  # bytes a second: a machine hashes a file once, and its engine once more
_STOP_S = 3.0
_NOTHING = Health(False, 0, 0.0, 0, 0, 0)


class PoolEngine(Front):
    def __init__(self, spec: EngineSpec, pool: "Pool", *, load_deadline: float = 0.0) -> None:
        """`load_deadline` counts from the last part of a file that the machine asked for; 0 goes by the files' size."""
        super().__init__()
        self._spec = spec
        self._pool = pool
        self._load_deadline = load_deadline or LOAD_S + _sizes(spec) / READ_SPEED
        self.machine = ""
        self._seat = ""
        self._card = ""
        self._ready: asyncio.Future[Ready] | None = None
        self._gone = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._health = _NOTHING
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def sit(self, need: Need, takes: Callable[[str], bool] = lambda machine: True) -> Taken:
        """Take a place before the start, on a machine that is taken. Raises EngineError when there is none."""
        self._seat, taken = self._pool.take_seat(need, self, takes)
        self.machine, self._card = taken.machine, taken.card
        return taken

    @property
    def ended(self) -> bool:
        return self._gone.is_set()

    @property
    def load(self) -> int:
        """Requests that run."""
        return len(self._inboxes)

    async def start(self) -> Ready:
        if self._ready is not None:
            raise EngineError("engine_error", "This engine was started before.", hint="Make a new one.")
        self._ready = asyncio.get_running_loop().create_future()
        if not self._seat:
            self.sit(await asyncio.to_thread(need_of, self._spec))
        self._tasks = [asyncio.ensure_future(self._speak())]
        try:
            self._say(wire.Place(self._seat, replace(self._spec, card=self._card)))
            async with asyncio.timeout(self._load_deadline) as self._deadline:
                return await self._ready
        except BaseException as error:
            self._ready.cancel()
            await self.stop(0)
            if isinstance(error, TimeoutError):
                why = f"The agent did not load within {self._load_deadline:g} s on {self.machine}."
                raise EngineError("timeout", why) from None
            raise

    def health(self) -> Health:
        return replace(
            self._health,
            alive=self._running(),
            running=len(self._inboxes),
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
        )

    async def stop(self, grace: float = 0.5) -> None:
        if not self._seat:
            return
        if not self._gone.is_set():
            self._say(wire.Halt(self._seat, grace))
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
                if isinstance(event, Arrival):
                    self._hand_in(event)
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

    def _end(self, gone: wire.Gone) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        self._pool.leave_seat(self._seat)
        error = EngineError(gone.code, gone.message, hint=gone.hint or None)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        self._fail_all(error)

    def take(self, id: str, count: int) -> None:
        self._say(wire.Taken(self._seat, id, count))

    def _running(self) -> bool:
        return self._health.alive and not self._gone.is_set()

    def _send(self, order: Order) -> None:
        self._say(wire.Ask(self._seat, order))

    def _send_cancel(self, id: str) -> None:
        self._say(wire.Cancel(self._seat, id))

    def _say(self, message: wire.ToMachine) -> None:
        """In order. Raises BadMessage for one that is too large, as a process of our own would."""
        self._outgoing.put_nowait(wire.encode(message))

    async def _speak(self) -> None:
        while True:
            await self._pool.say(self._seat, await self._outgoing.get())

    async def _deliver(self, want: wire.Want) -> None:
        """The next part of a file that the machine does not have."""
        data = await asyncio.to_thread(_part, self._spec, want.digest, want.offset)
        part = wire.Part(self._seat, want.digest, want.offset, data or b"", gone=data is None)
        self._say(part)
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
