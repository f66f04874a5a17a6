"""The self-test of tier W: a guest by an enemy, in the very engine that runs wasm agents.

What a guest could do to its host it would do through an import, its memory or its endlessness; each is tried. Files and
the network are tried by asking for them: a module that imports them must not even start.
"""

import asyncio
import base64
import hashlib
import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile, EngineSpec, Failed, Finished, Generate, Run
from lading_node.engines.probe import Probe
from lading_protocol.messages import CallRequest

DEADLINE_S = 20.0
MEMORY = 1 << 30
# Work tokens that each attempt may cost: a moment of an endless loop.
_BUDGET = 12
_WORD = "ran"
# By what they are called in a Probe: the operation that the module takes them by.
ATTEMPTS = {
    "memory": "grow",
    "endless loop": "loop",
    "stack": "stack",
    "memory of others": "outside",
    "hand over what is not its own": "handover",
    "output": "flood",
}
IMPORTS = "files by import"

# Their text is tests/integration/engines/enemy.wat and wasi.wat.
ENEMY = base64.b64decode(
    "AGFzbQEAAAABEwNgAn9/AGABfwF/YAR/f39/AX8CDwEGbGFkaW5nBGVtaXQAAAMEAwEBAgUDAQACBxkDBm1lbW9yeQIABWFsbG9j"
    "AAEEY2FsbAADCq4BAwUAQYAICw8AIABBAWoQAkEAKAIAaguVAQEBfyAALQAAIQQgBEHnAEYEQANAQcAAQABBf0cEQD8AQej7A0kN"
    "AUEAQQMQAAsLCyAEQewARgRAA0AMAAsLIARB8wBGBEBBABACGkEAQQMQAAsgBEHvAEYEQEFwKAIAGkEAQQMQAAsgBEHoAEYEQEGA"
    "YEGAIBAAQQBBAxAACyAEQeYARgRAA0BBAEEDEAAMAAsLQQALCwkBAEEACwNyYW4ANgRuYW1lAQ0CAARlbWl0AgRkZWVwAg0BAwIA"
    "Am9wBAR3aGF0AxEBAwMBBG1vcmUEAm9uCQJvbg=="
)
WASI = base64.b64decode(
    "AGFzbQEAAAABGwNgCX9/f39/fn5/fwF/YAF/AX9gBH9/f38BfwIkARZ3YXNpX3NuYXBzaG90X3ByZXZpZXcxCXBhdGhfb3BlbgAA"
    "AwMCAQIFAwEAAQcZAwZtZW1vcnkCAAVhbGxvYwABBGNhbGwAAgoLAgQAQQALBABBAAs="
)


async def probe_wasm(folder: Path, *, deadline: float = DEADLINE_S) -> Probe:
    """Never raises. `folder` is where engines have their scratch."""
    began = time.perf_counter()
    held: list[str] = []
    failed: list[str] = []
    limits: tuple[str, ...] = ()
    place = None
    try:
        place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="probe-", dir=folder))
        if importlib.util.find_spec("wasmtime") is None:
            raise EngineError("engine_error", "wasmtime is not installed.")
        async with asyncio.timeout(deadline):
            limits = await _attack(place, held, failed)
    except TimeoutError:
        failed.append(f"it did not end within {deadline:g} s")
    except EngineError as error:
        failed.append(f"wasm agents do not run here: {error.message}")
    except Exception as error:  # whatever it is, this tier has not passed
        failed.append(f"the self-test could not be made: {type(error).__name__}: {error}")
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
    took = round((time.perf_counter() - began) * 1000)
    return Probe("W", not failed, tuple(held), tuple(failed), took, limits)


async def _attack(place: Path, held: list[str], failed: list[str]) -> tuple[str, ...]:
    engine = ChildEngine(_spec(place, "enemy.wasm", ENEMY), place)
    try:
        ready = await engine.start()
        for name, operation in ATTEMPTS.items():
            if got := await _try(engine, operation):
                failed.append(f"{name}: {got}")
            else:
                held.append(name)
    finally:
        await engine.stop(0)
    wishful = ChildEngine(_spec(place, "wasi.wasm", WASI), place)
    try:
        await wishful.start()
        failed.append(f"{IMPORTS}: a module that imports them was started")
    except EngineError:
        held.append(IMPORTS)
    finally:
        await wishful.stop(0)
    return ready.confinement


async def _try(engine: ChildEngine, operation: str) -> str:
    """What the guest got, "" for nothing."""
    text, tokens, end = "", 0, ""
    async for event in engine.generate(Generate(operation, CallRequest(operation, b"{}", _BUDGET))):
        match event:
            case Run(ids=ids, text=more):
                text, tokens = text + more, tokens + len(ids)
            case Finished(finish=finish):
                end = finish
            case Failed(code=code):
                end = code
    if operation == "flood":
        return "" if tokens <= _BUDGET and end != "stop" else f"wrote {tokens} tokens"
    if operation == "loop" and end not in ("length", "agent_error"):
        return f"ended with {end}"
    return "it went on as if nothing had happened" if _WORD in text else ""


def _spec(place: Path, name: str, module: bytes) -> EngineSpec:
    path = place / name
    path.write_bytes(module)
    file = AgentFile("module", str(path), hashlib.sha256(module).digest())
    return EngineSpec("wasm-core", (file,), memory=MEMORY)
