"""The engine port in process, over the toy model: for simulation on a virtual clock, and for nothing else.

Same prompts, sampler, stop rules and events as the real engines; only the process and the weights are missing.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Work
from lading_node.engines.inbox import embedded
from lading_node.engines.load import Loaded, Order, load
from lading_node.engines.port import (
    Embed,
    Embedded,
    EngineSpec,
    Event,
    Failed,
    Finished,
    Generate,
    Health,
    Ready,
    Run,
    Score,
    Scored,
    Started,
)
from lading_node.engines.wire import Vector


class MemoryEngine:
    """A toy agent. `token_delay` is in seconds of the event loop's clock, before each token."""

    def __init__(self, spec: EngineSpec, *, token_delay: float = 0.0) -> None:
        if spec.kind != "memory":
            raise EngineError("engine_error", f"The in-process engine runs the kind 'memory', not {spec.kind!r}.")
        self._spec = spec
        self._token_delay = token_delay
        self._loaded: Loaded | None = None
        self._running: dict[str, asyncio.Event] = {}
        self._prompt_tokens = 0
        self._output_tokens = 0

    async def start(self) -> Ready:
        self._loaded = load(self._spec, Path())
        return Ready(self._loaded.engine, self._loaded.version, (), 0, 0, self._loaded.vocab, self._loaded.width)

    async def generate(self, order: Generate) -> AsyncIterator[Event]:
        if refused := self._refusal(order.id):
            yield refused
            return
        wake = self._running[order.id] = asyncio.Event()
        work = self._begin(order)
        delivered = 0
        try:
            while not work.done:
                work.step()
                for event in work.take():
                    if isinstance(event, Run):
                        await self._pace(wake)
                    if self._loaded is None:
                        yield EngineError("engine_died", "The engine was stopped.").as_event(order.id)
                        return
                    if wake.is_set() and not isinstance(event, Finished | Failed):
                        yield Finished(order.id, "cancelled", len(order.emitted) + delivered)
                        return
                    assert isinstance(event, Event)
                    yield self._counted(event)
                    delivered += isinstance(event, Run)
        finally:
            self._running.pop(order.id, None)

    def _counted(self, event: Event) -> Event:
        if isinstance(event, Run):
            self._output_tokens += len(event.ids)
        elif isinstance(event, Started):
            self._prompt_tokens += event.prompt_tokens
        return event

    async def _pace(self, wake: asyncio.Event) -> None:
        """Let others run, or wait for the token's time; cut short by a cancel or stop."""
        if self._token_delay <= 0:
            await asyncio.sleep(0)
            return
        try:
            await asyncio.wait_for(wake.wait(), self._token_delay)
        except TimeoutError:
            pass

    async def embed(self, order: Embed) -> Embedded | Failed:
        if refused := self._refusal(order.id):
            return refused
        work = self._begin(order)
        rows: list[Vector] = []
        while not work.done:
            work.step()
            for event in work.take():
                if isinstance(event, Failed):
                    return event
                assert isinstance(event, Vector)
                rows.append(event)
        return embedded(order.id, rows)

    async def score(self, order: Score) -> Scored | Failed:
        if refused := self._refusal(order.id):
            return refused
        work = self._begin(order)
        while not work.done:
            work.step()
        (event,) = work.take()
        assert isinstance(event, Scored | Failed)
        return event

    def cancel(self, id: str) -> None:
        if id in self._running:
            self._running[id].set()

    def health(self) -> Health:
        alive = self._loaded is not None
        return Health(alive, len(self._running), 0.0, 0, self._prompt_tokens, self._output_tokens)

    async def stop(self, grace: float = 0.5) -> None:
        self._loaded = None
        for wake in self._running.values():
            wake.set()

    def _refusal(self, id: str) -> Failed | None:
        if self._loaded is None:
            return EngineError("engine_died", "The engine is not running.").as_event(id)
        if id in self._running:
            return Failed(id, "invalid_request", f"A request {id!r} is already running.")
        if len(self._running) >= self._spec.slots:
            return EngineError("busy", f"All {self._spec.slots} slots of the engine are taken.").as_event(id)
        return None

    def _begin(self, order: Order) -> Work:
        assert self._loaded is not None
        return self._loaded.begin(order)
