"""From a wasm agent's spec to a Task: the host's models, the guest's code, and one guest for each call.

A guest sees one request and is gone with it, so nothing of one consumer is left for the next.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from wasmtime import Engine, Store

from lading_node.engines import wasm_fiber as fiber
from lading_node.engines.errors import EngineError, check_extras
from lading_node.engines.host_models import NO_MODELS, HostModels
from lading_node.engines.port import EngineSpec
from lading_node.engines.tasks import Budget, Emission, Task
from lading_node.engines.wasm_call import Call, Stage
from lading_protocol.messages import CallRequest, ChatRequest, Streamed

# Tokens' worth of fuel that a guest may burn before it is ready, tried once when it is loaded.
_READY = 100


class Guests(Protocol):
    """A guest's code, ready to be run under one of the two ABIs."""

    engine: Engine
    stage: Stage

    def begin(self, store: Store, call: Call) -> fiber.Run:
        """Make a guest and put it into `call.guest`."""
        ...

    def check(self, store: Store, call: Call) -> None:
        """Raises EngineError when the guest does not export what it must."""
        ...

    def answer(self, store: Store, call: Call, operation: str, text: bytes) -> fiber.Run:
        """Put the request to the guest."""
        ...


def open_task(spec: EngineSpec, scratch: Path) -> Task:
    """Raises EngineError. `spec.cache` is the native code that the compile step wrote."""
    guests = _guests(spec)
    _try(guests)
    models = HostModels()
    models.load(spec, scratch)
    limits = {operation.name: operation.max_input for operation in spec.operations}

    def task(request: Streamed, budget: Budget) -> Iterator[Emission]:
        operation, text = _asked(request, limits)
        call = Call(budget, models, guests.stage)
        with closing(fiber.open_store(guests.engine, call.fuel)) as store:
            run = _whole(guests, store, call, operation, text)
            with closing(run):
                for emissions in call.steps(store, run):
                    # Nothing to say yet is said too: others get their turn.
                    yield from emissions or [b""]
                call.meter.end(call.burnt(store))
            yield from call.meter.take()

    return task


def _guests(spec: EngineSpec) -> Guests:
    if spec.kind == "wasm-core":
        from lading_node.engines.wasm_core import CoreGuests

        return CoreGuests(spec)
    from lading_node.engines.wasm_component import ComponentGuests

    return ComponentGuests(spec)


def _whole(guests: Guests, store: Store, call: Call, operation: str, text: bytes) -> fiber.Run:
    yield from guests.begin(store, call)
    yield from guests.answer(store, call, operation, text)


def _try(guests: Guests) -> None:
    """A guest that cannot be made ready is the package's fault, and is named before anybody pays for it."""
    call = Call(Budget(_READY), NO_MODELS, guests.stage)
    with closing(fiber.open_store(guests.engine, call.fuel)) as store:
        try:
            for _ in call.steps(store, guests.begin(store, call)):
                pass
            if not call.over:
                guests.check(store, call)
        except EngineError as error:
            raise EngineError("invalid_package", f"The module does not start: {error.message}") from error
        if call.over:
            raise EngineError("invalid_package", "The module does not start: it is still busy after a second of work.")


def _asked(request: Streamed, limits: dict[str, int]) -> tuple[str, bytes]:
    """The operation and its input as JSON. A chat is a call like any other here."""
    if isinstance(request, CallRequest):
        operation, text = request.operation, request.input
    else:
        operation, text = "chat", _chat(request)
    if limits and operation not in limits:
        known = ", ".join(sorted(limits))
        raise EngineError("invalid_request", f"This agent does not {operation!r}.", hint=f"It does: {known}.")
    most = limits.get(operation, 0)
    if most and len(text) > most:
        raise EngineError("invalid_request", f"The input has {len(text):,} bytes; {operation} takes {most:,}.")
    return operation, text


def _chat(request: ChatRequest) -> bytes:
    sampler = request.sampler
    check_extras(request, (), "This agent chooses its tokens itself and")
    asked = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": sampler.temperature,
        "top_p": sampler.top_p,
        "seed": int.from_bytes(sampler.seed[-7:], "big"),
        "stop": list(request.stop),
    }
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()
