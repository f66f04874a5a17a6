"""The worker processes: started, started again when one ends, and stopped with time for their answers.

A worker lives as long as its standard input is open, so none outlives the desk, however that ends. It holds the desk's
lock on the data folder too: no second coordinator begins while one of them may still sign.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec

from lading_coordinator.errors import CoordinatorError

log = logging.getLogger(__name__)
START_SECONDS = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
# One that lived so long had not failed to start.
LIVED_SECONDS = 10.0
KILL_SECONDS = 5.0
PROGRAM = (sys.executable, "-m", "lading_coordinator.workers.worker")


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told at its start, as one JSON line. `settings` are the desk's, as plain values."""

    settings: dict[str, object]
    number: int
    count: int
    folder: str
    host: str
    port: int


class Crew:
    """`orders` makes the orders of worker `n` at (host, port); `lock` is the descriptor that they inherit."""

    def __init__(
        self,
        count: int,
        orders: Callable[[int, str, int], Orders],
        lock: int,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._count = count
        self._orders = orders
        self._lock = lock
        self._program = tuple(program)
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def start(self, host: str, port: int) -> None:
        """Until every worker serves. Raises CoordinatorError."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._tasks = [asyncio.ensure_future(self._keep(n, host, port, ready[n])) for n in range(self._count)]
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*ready)
        except TimeoutError:
            raise CoordinatorError("The workers do not start.", hint="The log says why.") from None

    def pids(self) -> dict[int, int]:
        """The process of each worker that runs now."""
        return {number: process.pid for number, process in self._processes.items()}

    async def stop(self, grace: float) -> None:
        """Running answers get `grace` seconds."""
        self._stopping.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace + KILL_SECONDS)
            for process in self._processes.values() if late else ():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, number: int, host: str, port: int, ready: "asyncio.Future[None]") -> None:
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._one(number, host, port, ready)
            if self._stopping.is_set():
                break
            if not ready.done():
                error = CoordinatorError(f"Worker {number} ended with code {code} before it served.")
                ready.set_exception(error)
                return
            log.error("Worker %d ended with code %d; it is started again", number, code)
            pause = FIRST_PAUSE if loop.time() - began > LIVED_SECONDS else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _one(self, number: int, host: str, port: int, ready: "asyncio.Future[None]") -> int:
        """One life of a worker; its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self._program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=(self._lock,)
        )
        self._processes[number] = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(OSError):
                process.stdin.write(msgspec.json.encode(self._orders(number, host, port)) + b"\n")
                await process.stdin.drain()
            if await process.stdout.readline() and not ready.done():
                ready.set_result(None)
            return await process.wait()
        finally:
            self._processes.pop(number, None)
