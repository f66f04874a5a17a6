"""Wasm agents: a cold start from the cache, what the engine adds to a warm call, and fuel over runs and processes.

Part of bench_packages; `rows` prints. Bare is wasmtime's own blocking call of the same module with the same metering,
a fresh instance each time, alone in this process; rounds alternate, medians.
"""

import asyncio
import hashlib
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from wasmtime import Config, Engine, Func, FuncType, Linker, Memory, Module, Store, ValType, wat2wasm

from lading_node.engines import wasm_code
from lading_node.engines.child import ChildEngine
from lading_node.engines.compiling import native_code
from lading_node.engines.port import AgentFile, EngineSpec, Finished, Generate, Run
from lading_protocol.messages import CallRequest
from lading_protocol.work import FUEL

from .report import say

# Gives its input back.
ECHO = """(module (import "lading" "emit" (func $emit (param i32 i32))) (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "call") (param i32 i32 i32 i32) (result i32)
    (call $emit (local.get 2) (local.get 3)) (i32.const 0)))"""
# The same, after as many turns of a loop as the input has millions.
WORK = ECHO.replace(
    "(result i32)\n    (call $emit",
    """(result i32) (local $i i32)
    (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.mul (local.get 3) (i32.const 1000000)))))
    (call $emit""",
)
REQUEST = CallRequest(
    "echo", b'"a hundred bytes of input, about as long as a short question to an agent is in practice, or so ..."', 1000
)


def spec_of(text: str, folder: Path) -> EngineSpec:
    code = bytes(wat2wasm(text))
    digest = hashlib.sha256(code).digest()
    path = folder / f"{digest.hex()[:16]}.wasm"
    path.write_bytes(code)
    return EngineSpec(
        "wasm-core", (AgentFile("module", str(path), digest),), context=200_000, cache=str(folder / "cache")
    )


async def _ready(spec: EngineSpec, folder: Path) -> EngineSpec:
    async with native_code(spec, folder) as found:
        return found


def _cold(spec: EngineSpec, scratch: str, pipe: Any) -> None:
    """A fresh process with its imports done: milliseconds to load the code, make a guest and answer one call."""
    from lading_node.engines import wasm_core, wasm_task  # noqa: F401
    from lading_node.engines.load import load

    began = time.perf_counter()
    work = load(spec, Path(scratch)).begin(Generate("cold", REQUEST))
    while not work.done:
        work.step()
    pipe.send((time.perf_counter() - began) * 1e3)


def cold_start(rounds: int, folder: Path) -> None:
    spec = asyncio.run(_ready(spec_of(ECHO, folder), folder))
    context = multiprocessing.get_context("spawn")
    took = []
    for _ in range(rounds):
        ours, theirs = context.Pipe()
        process = context.Process(target=_cold, args=(spec, str(folder), theirs))
        process.start()
        took.append(ours.recv())
        process.join()
    note = (
        "native code from the cache, a trial instance, an instance and its first call; in a fresh process, imports done"
    )
    say("wasm_cold_start", statistics.median(took), "ms", bar="<= 5", n=rounds, note=note)


def bare_call(text: str) -> Callable[[bytes, bytes], bytes]:
    """A call of wasmtime itself: store, instance, input in, answer out."""
    config = Config()
    for name, value in wasm_code.SETTINGS.items():
        setattr(config, name, value)
    engine = Engine(config)
    said: list[bytes] = []
    linker = Linker(engine)

    def emit(caller: Any, at: int, length: int) -> None:
        memory = caller["memory"]
        assert isinstance(memory, Memory)
        said.append(bytes(memory.read(caller, at, at + length)))

    linker.define_func("lading", "emit", FuncType([ValType.i32()] * 2, []), emit, access_caller=True)
    ready = linker.instantiate_pre(Module(engine, wat2wasm(text)))

    def call(operation: bytes, given: bytes) -> bytes:
        said.clear()
        store = Store(engine)
        store.set_fuel(10**9)
        exports = ready.instantiate(store).exports(store)
        alloc, run, memory = exports["alloc"], exports["call"], exports["memory"]
        assert isinstance(alloc, Func)
        assert isinstance(run, Func)
        assert isinstance(memory, Memory)
        at = alloc(store, len(operation) + len(given))
        memory.write(store, operation + given, at)
        assert run(store, at, len(operation), at + len(operation), len(given)) == 0
        return b"".join(said)

    return call


async def through(engine: ChildEngine, id: str, request: CallRequest) -> list[int]:
    ids: list[int] = []
    async for event in engine.generate(Generate(id, request)):
        if isinstance(event, Run):
            ids += event.ids
    assert isinstance(event, Finished), event
    return ids


async def overhead(rounds: int, folder: Path) -> None:
    engine, bare = ChildEngine(spec_of(ECHO, folder), folder), bare_call(ECHO)
    await engine.start()
    plain, ours = [], []
    for at in range(rounds + 50):
        began = time.perf_counter()
        assert bare(b"echo", REQUEST.input) == REQUEST.input
        between = time.perf_counter()
        await through(engine, str(at), REQUEST)
        plain.append((between - began) * 1e3)
        ours.append((time.perf_counter() - between) * 1e3)
    await engine.stop()
    extra = statistics.median(b - a for a, b in zip(plain[50:], ours[50:], strict=True))
    call = statistics.median(plain[50:])
    note = (
        f"from order to the end of the answer, process and pipes included; {call + extra:.3f} ms against {call:.3f} ms"
    )
    say("wasm_call_overhead", extra, "ms", bar="<= 0.3", n=rounds, note=note)
    say("wasm_call_bare", call, "ms", n=rounds, note="wasmtime alone, a fresh instance a call, fuel on")


async def fuel(rounds: int, folder: Path) -> None:
    """Different counts of fuel tokens, and different answers, over processes with and without the cache."""
    request = CallRequest("work", b'"' + b"x" * 60 + b'"', 10_000)
    seen = set()
    count = 0
    for at in range(3):
        (folder / f"own-{at}").mkdir()
        scratch = folder / f"own-{at}" if at else folder
        engine = ChildEngine(spec_of(WORK, scratch), folder)
        await engine.start()
        for turn in range(rounds):
            together = await asyncio.gather(*(through(engine, f"{turn} {i}", request) for i in range(2)))
            seen |= {tuple(ids) for ids in together}
            count += len(together)
        await engine.stop()
    tokens = sorted({ids.count(FUEL) for ids in seen})
    note = (
        f"different streams of ids over three processes, two of them with code compiled afresh; fuel tokens: {tokens}"
    )
    say("wasm_fuel_variants", len(seen), "streams", bar="<= 1", n=count, note=note)


def rows(quick: bool = False) -> None:
    """Prints its lines; for whoever puts the benchmarks of packages together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        cold_start(3 if quick else 11, folder)
        uvloop.run(overhead(200 if quick else 2000, folder))
        uvloop.run(fuel(2 if quick else 5, folder))


if __name__ == "__main__":
    rows("--quick" in sys.argv)
