"""An asyncio event loop on a virtual clock: time jumps to the next timer whenever nothing is ready.

Owns time and the order of events for simulations, so that minutes take milliseconds and every run with one seed is the
same. It knows no network and refuses real ones: the loop has no sockets, and work handed to threads runs in place.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import base_events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LIMIT = 7 * 86_400.0
"""Virtual seconds after which a simulation counts as stuck (its timers go on, its main task never ends)."""


class Stalled(Exception):
    """Every task waits for something that can never happen: nothing is ready and no timer is set."""


class Overrun(Exception):
    """The simulation went past its limit of virtual time."""


class Unhandled(Exception):
    """A task of the simulation failed and nobody looked at it."""


class _Jump:
    """The event loop's selector: asked to wait, it moves the clock on instead."""

    def __init__(self, loop: VirtualLoop, limit: float) -> None:
        self._loop = loop
        self._limit = limit

    def select(self, timeout: float | None) -> list[Any]:
        if timeout == 0:
            return []
        if timeout is None:
            raise Stalled(f"nothing can happen any more at {self._loop.time():.6f} s: every task waits for another")
        when = self._loop.next_timer()
        if when > self._limit:
            raise Overrun(f"still running at {self._limit:g} s of virtual time")
        self._loop.jump(when)
        return []

    def close(self) -> None:
        """Part of a selector's shape; there is nothing to let go of."""


class VirtualLoop(base_events.BaseEventLoop):
    """Ordinary asyncio code runs on it unchanged; `loop.time()` starts at 0 and counts virtual seconds.

    `loop.rng` is the simulation's one source of randomness.
    """

    def __init__(self, seed: int = 0, limit: float = LIMIT) -> None:
        self._virtual_now = 0.0
        super().__init__()
        self.rng = random.Random(seed)
        self._selector = _Jump(self, limit)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))
        self.set_debug(False)

    def time(self) -> float:
        return self._virtual_now

    def next_timer(self) -> float:
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]
        when: float = timers[0].when()
        return when

    def jump(self, when: float) -> None:
        self._virtual_now = max(self._virtual_now, when)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Runs `func` here and now: a thread would bring real time, and its chance, into the simulation."""
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(_settle, future, future.set_exception, error)
        else:
            self.call_soon(_settle, future, future.set_result, result)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets, so there are never events."""

    def _write_to_self(self) -> None:
        """There is no select() to wake: the loop never sleeps."""


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: Any) -> None:
    if not future.done():
        settle(outcome)


def run_virtual(main: Coroutine[Any, Any, T], seed: int = 0, *, limit: float = LIMIT) -> T:
    """asyncio.run on a virtual clock. Leftover tasks are cancelled at the end, as asyncio.run does.

    `random`'s own generator is seeded for the duration, for code under test that draws from it. Raises Stalled when
    every task waits for another, Overrun past `limit` virtual seconds, and Unhandled when a background task failed
    unseen; otherwise what `main` raises.
    """
    loop = VirtualLoop(seed, limit)
    chance = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            result = runner.run(main)
    finally:
        random.setstate(chance)
    if loop.failures:
        first = loop.failures[0]
        raise Unhandled(f"{len(loop.failures)} unseen: {first['message']}") from first.get("exception")
    return result
