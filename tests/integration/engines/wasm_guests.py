"""Wasm guests written as text, for tests: an agent of the core ABI around the body of its `call`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from wasmtime import wat2wasm

from integration.engines.asking import Answer, collect
from lading_node.engines.child import ChildEngine
from lading_node.engines.load import Loaded, load
from lading_node.engines.port import AgentFile, EngineSpec, Failed, Finished, Generate, Kind
from lading_node.engines.wasm_compile import compile_module
from lading_protocol.messages import CallRequest

IMPORTS = {
    "emit": "(param i32 i32)",
    "fail": "(param i32 i32)",
    "embed": "(param i32 i32 i32 i32 i32 i32) (result i32)",
    "generate": "(param i32 i32 i32 i32) (result i32)",
    "next": "(param i32 i32 i32) (result i32)",
    "tensors": "(param i32 i32 i32 i32 i32 i32) (result i32)",
    "now": "(result i64)",
    "random": "(param i32 i32)",
}
PLAIN = ("emit", "fail")
# Gives its input back, byte by byte, with work between the bytes.
ECHO = """(local $i i32) (local $j i32)
  (loop $each
    (call $emit (i32.add (local.get $in) (local.get $i)) (i32.const 1))
    (local.set $j (i32.const 0))
    (loop $work
      (local.set $j (i32.add (local.get $j) (i32.const 1)))
      (br_if $work (i32.lt_u (local.get $j) (i32.const 1000000))))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $each (i32.lt_u (local.get $i) (local.get $in_length))))
  (i32.const 0)"""
FOREVER = "(loop $l (br $l)) (i32.const 0)"


def module(body: str, *, imports: tuple[str, ...] = PLAIN, more: str = "", alloc: str = "(i32.const 1024)") -> bytes:
    """`body` sees $name, $name_length, $in, $in_length; `more` stands beside the functions."""
    named = "\n".join(f'(import "lading" "{name}" (func ${name} {IMPORTS[name]}))' for name in imports)
    memory = "" if "(memory" in more else '(memory (export "memory") 4)'
    return bytes(
        wat2wasm(f"""(module {named} {memory} {more}
          (func (export "alloc") (param i32) (result i32) {alloc})
          (func $call (export "call") (param $name i32) (param $name_length i32) (param $in i32) (param $in_length i32)
            (result i32) {body}))""")
    )


def write(folder: Path, code: bytes, kind: str = "wasm-core", **changes: Any) -> EngineSpec:
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(code).digest()
    path = folder / f"{digest.hex()[:16]}.wasm"
    path.write_bytes(code)
    spec = EngineSpec("wasm-core", (AgentFile("module", str(path), digest),), context=200_000)
    return msgspec.structs.replace(spec, kind=kind, **changes)


@asynccontextmanager
async def running(spec: EngineSpec, scratch: Path, **settings: Any) -> AsyncIterator[ChildEngine]:
    engine = ChildEngine(spec, scratch, **settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def ask_for(text: str = '"hello"', tokens: int = 1000, operation: str = "do") -> CallRequest:
    return CallRequest(operation, text.encode(), tokens)


def answered(spec: EngineSpec, scratch: Path, *requests: CallRequest) -> list[Answer]:
    """Each request to one engine, one after the other."""

    async def main() -> list[Answer]:
        async with running(spec, scratch) as engine:
            return [await collect(engine, Generate(str(at), request)) for at, request in enumerate(requests)]

    return asyncio.run(main())


def opened(code: bytes, scratch: Path, kind: Kind = "wasm-core", **changes: Any) -> Loaded:
    """Compiled and loaded in this process, where nothing of it needs another one."""
    native = scratch / "native"
    native.write_bytes(compile_module(kind, code))
    return load(EngineSpec(kind, context=200_000, cache=str(native), **changes), scratch)


def said(loaded: Loaded, request: CallRequest) -> Answer:
    """One call, driven as the engine's process drives it."""
    work, answer = loaded.begin(Generate("local", request)), Answer()
    while not work.done:
        work.step()
        for event in work.take():
            answer.add(event)  # type: ignore[arg-type]
    return answer


def failed(loaded: Loaded, request: CallRequest | None = None) -> Failed:
    answer = said(loaded, request or ask_for())
    assert isinstance(answer.end, Failed), answer.end
    return answer.end


def refused(spec: EngineSpec, scratch: Path, request: CallRequest | None = None) -> Failed:
    """How one call fails."""
    (answer,) = answered(spec, scratch, request or ask_for())
    assert isinstance(answer.end, Failed), answer.end
    return answer.end


def finished(answer: Answer) -> Finished:
    assert isinstance(answer.end, Finished), answer.end
    return answer.end
