"""The compile step's process: from one wasm module to native code in the cache, under limits, and then it ends.

A module of some hundred kilobytes can keep a compiler busy for minutes, so this happens once, here, before anything is
served. Started and spoken to as an engine's process is (runner.py); `Ready` means that the entry is written.
"""

import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lading_node.engines import wasm_code, wire
from lading_node.engines.confine import confine, die_with, take_stdio
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import AgentFile, EngineSpec, Ready
from lading_node.engines.runner import first_message


def compile_module(kind: str, module: bytes) -> bytes:
    """Raises EngineError."""
    from wasmtime import Module, WasmtimeError, component

    from lading_node.engines.wasm_fiber import engine

    components = kind == "wasm-component"
    # Text is a convenience of the library: what is hashed and published is the binary.
    if module[:4] != b"\0asm":
        raise EngineError("invalid_package", "The module is not WebAssembly: it does not begin with \\0asm.")
    make: Callable[..., Module | component.Component] = component.Component if components else Module
    try:
        return bytes(make(engine(components=components), module).serialize())
    except WasmtimeError as error:
        raise EngineError("invalid_package", f"The module does not compile: {one_line(error)}") from error


def _read(kind: str, file: AgentFile) -> bytes:
    try:
        wasm_code.check_size(kind, os.stat(file.path).st_size)
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise EngineError("invalid_package", f"The module cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).digest() != file.digest:
        raise EngineError("invalid_package", "The module is not the file that the manifest names.")
    return data


def _make(spec: EngineSpec) -> None:
    (file,) = spec.files
    code = compile_module(spec.kind, _read(spec.kind, file))
    wasm_code.put(Path(spec.cache), wasm_code.key(spec.kind, file.digest), code)


def main() -> int:
    parent = int(sys.argv[1])
    die_with(parent)
    reading, writing = take_stdio()
    message = first_message(reading)
    outbox = Outbox(writing)
    began = time.perf_counter()
    seconds = wasm_code.CPU_S[message.spec.kind]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    held = confine(message.bounds, parent)
    try:
        _make(message.spec)
        took = round((time.perf_counter() - began) * 1000)
        event: wire.FromEngine = Ready(message.spec.kind, wasm_code.release(), held, os.getpid(), took)
    except EngineError as error:
        event = error.as_event("")
    except MemoryError:
        event = EngineError("resource_exhausted", "The compiler ran out of memory.").as_event("")
    outbox.put([event])
    outbox.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
