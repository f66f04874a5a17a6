"""A machine's part of a pool: starts the engines that a node places on it, in the sandbox that a lone node would use.

Long-lived and trusted; made an actor by Ray, or run in process by the local pool. Bytes come in by `say` and go out by
`hear`. Imports no Ray: what a peer sent is decoded by closed types, and never unpickled.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from lading import __version__
from lading_node.engines import pool_wire as wire
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, open_engine
from lading_node.engines.pool_files import FileStore
from lading_node.engines.pool_wire import BEAT_S
from lading_node.engines.port import Embed, Generate, Score
from lading_node.engines.probe import probe_machine
from lading_node.hardware.devices import Device
from lading_node.hardware.discover import discover

# Without a node that listens for so long, the engines end.
ORPHAN_S = 20.0
_PULSE_S = 1.0
_FOLDER = "lading-machine-"


Study = Callable[[Path], Awaitable[tuple[tuple[Device, ...], Means]]]


async def study_machine(folder: Path) -> tuple[tuple[Device, ...], Means]:
    """The devices, and the tiers of isolation that pass their self-test here and now."""
    found, probes = await asyncio.gather(discover(), probe_machine(folder))
    return found.devices, Means(tuple(one.tier for one in probes if one.passed))


def own_folder() -> tuple[Path, int]:
    """A new folder, and the lock that says that its process lives; those of processes that were killed are removed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError):
            lock = os.open(old / "lock", os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
            finally:
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=base))
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


class Placement:
    """Every method runs in one event loop."""

    def __init__(self, folder: str = "", study: "Study | None" = None) -> None:
        """`folder` is where engines and files live; by default a new one of its own. `study` looks at the machine."""
        self._study = study or study_machine
        self._means = Means(())
        self._folder, self._lock = (Path(folder), -1) if folder else own_folder()
        self._files = FileStore(self._folder / "files")
        self._seats: dict[str, ChildEngine | None] = {}
        self._placed: set[str] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._out: list[bytes] = []
        self._news = asyncio.Event()
        self._turn = 0
        self._heard = 0.0
        self._watch: asyncio.Task[None] | None = None

    async def pid(self) -> int:
        return os.getpid()

    async def say(self, data: bytes) -> bytes:
        """Take a batch of frames; answers nothing of worth."""
        for message in wire.to_machine(data):
            await self._take(message)
        return b""

    async def hear(self, turn: int) -> bytes:
        """What there is to tell, at the latest after a beat. A call with a higher `turn` relieves the one before."""
        self._turn = max(self._turn, turn)
        loop = asyncio.get_running_loop()
        self._heard, until = loop.time(), loop.time() + BEAT_S
        self._watch = self._watch or loop.create_task(self._look_after())
        self._news.set() if self._out else self._news.clear()
        while not self._out and turn == self._turn and (left := until - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)
        if turn != self._turn:
            return b""
        told, self._out = b"".join(self._out), []
        self._news.clear()
        return told

    async def close(self) -> None:
        """End every engine and remove the folder."""
        if self._watch is not None:
            self._watch.cancel()
        await self._end_all()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _take(self, message: wire.ToMachine) -> None:
        match message:
            case wire.Hello(session=session):
                await self._end_all()
                self._out.clear()
                devices, self._means = await self._study(self._folder)
                self._tell(wire.Here(session, __version__, devices))
            case wire.Place(seat=seat):
                self._seats[seat] = None
                self._spawn(seat, self._place(message))
            case wire.Part(seat=seat):
                self._files.part(message)
            case wire.Halt(seat=seat, grace=grace):
                self._finish(seat, grace)
            case wire.Ask(seat=seat) | wire.Cancel(seat=seat) | wire.Taken(seat=seat):
                if (engine := self._seats.get(seat)) is not None:
                    self._pass(engine, message)

    def _pass(self, engine: ChildEngine, message: wire.Ask | wire.Cancel | wire.Taken) -> None:
        match message:
            case wire.Ask(seat=seat, order=order):
                self._spawn(seat, self._relay(seat, engine, order))
            case wire.Cancel(id=id):
                engine.cancel(id)
            case wire.Taken(id=id, count=count):
                engine.take(id, count)

    async def _relay(self, seat: str, engine: ChildEngine, order: Generate | Embed | Score) -> None:
        await engine.relay(order, lambda event: self._tell(wire.Told(seat, event)))
        if not engine.health().alive:
            self._finish(seat)

    def _finish(self, seat: str, grace: float = 0.0) -> None:
        """Told to, or because its process has ended by itself."""
        task = asyncio.ensure_future(self._end(seat, grace, tell=True))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _place(self, order: wire.Place) -> None:
        seat = order.seat
        try:
            spec = await self._files.localised(seat, order.spec, lambda want: self._tell(want))
            engine = open_engine(spec, self._folder, self._means)
            if not isinstance(engine, ChildEngine):
                raise EngineError("engine_error", f"A pool runs no {spec.kind} agents: they have no process of ours.")
            self._seats[seat] = engine
            ready = await engine.start()
            self._placed.add(seat)
            self._tell(wire.Placed(seat, ready))
        except EngineError as error:
            self._drop(seat)
            self._tell(wire.Gone(seat, error.failure, error.message, error.hint))

    async def _end(self, seat: str, grace: float, *, tell: bool) -> None:
        tasks, engine = self._tasks.pop(seat, set()), self._seats.get(seat)
        if engine is not None:
            await engine.stop(grace)  # running requests hear of it through their relays
        else:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop(seat)
        if tell:
            self._tell(wire.Gone(seat, "engine_died", "The engine was stopped."))

    def _drop(self, seat: str) -> None:
        self._seats.pop(seat, None)
        self._placed.discard(seat)
        self._files.leave(seat)

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end(seat, 0, tell=False) for seat in list(self._seats)))

    async def _look_after(self) -> None:
        """Tell how the engines are; end them when nobody has listened for long."""
        while True:
            await asyncio.sleep(_PULSE_S)
            for seat, engine in list(self._seats.items()):
                if engine is not None and seat in self._placed:
                    self._tell(wire.Pulse(seat, health := engine.health()))
                    if not health.alive:
                        self._finish(seat)
            if asyncio.get_running_loop().time() - self._heard > ORPHAN_S:
                await self._end_all()
                self._out.clear()

    def _tell(self, message: wire.FromMachine) -> None:
        self._out.append(wire.encode(message))
        self._news.set()

    def _spawn(self, seat: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        running = self._tasks.setdefault(seat, set())
        running.add(task)
        task.add_done_callback(running.discard)
