"""Wasm written by an enemy: it harms nobody else, and each of its tricks is named in one line."""

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest
from wasmtime import wat2wasm

from integration.engines.asking import collect
from integration.engines.wasm_guests import (
    IMPORTS,
    answered,
    ask_for,
    failed,
    finished,
    module,
    opened,
    running,
    said,
    write,
)
from lading_node.engines import wasm_code
from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Failed, Generate
from lading_node.engines.wasm_fiber import MEMORY
from lading_protocol.work import text_bytes


def unloadable(spec: EngineSpec, scratch: Path) -> str:
    """Why the package is not taken."""
    with pytest.raises(EngineError) as refusal:
        answered(spec, scratch, ask_for())
    assert refusal.value.failure == "invalid_package", refusal.value
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 400
    return refusal.value.message


OUTSIDE = [(-1, 1), (-8, 16), (262_140, 8), (2**31 - 1, 2**31 - 1), (0, -1), (1, -1), (-(2**31), 4), (262_145, 0)]


@pytest.mark.parametrize(("at", "length"), OUTSIDE)
def test_memory_that_is_not_the_guests_is_not_read(tmp_path: Path, at: int, length: int) -> None:
    for name in ("emit", "fail"):
        body = f"(call ${name} (i32.const {at}) (i32.const {length})) (i32.const 0)"
        end = failed(opened(module(body), tmp_path))
        assert end.code == "agent_error"
        assert "outside its memory" in end.message


@pytest.mark.parametrize("alloc", ["(i32.const -4)", "(i32.const 262144)", "(i32.const 2147483647)"])
def test_memory_that_is_not_the_guests_is_not_written(tmp_path: Path, alloc: str) -> None:
    end = failed(opened(module("(i32.const 0)", alloc=alloc), tmp_path))
    assert (end.code, "outside its memory" in end.message) == ("agent_error", True)


CRASHES = {
    "unreachable": "(unreachable)",
    "memory out of bounds": "(i32.load (i32.const -4))",
    "integer division by zero": "(i32.div_s (i32.const 1) (i32.const 0))",
    "stack overflow": "(call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
    "indirect call to null": "(call_indirect (result i32) (i32.const 0))",
}


@pytest.mark.parametrize("why", CRASHES)
def test_a_crash_is_the_agents_fault_and_the_next_call_works(tmp_path: Path, why: str) -> None:
    short = "(if (i32.eq (local.get $in_length) (i32.const 1)) (then (return (i32.const 0))))"
    loaded = opened(module(short + CRASHES[why], more="(table 1 funcref)"), tmp_path)
    for _ in range(2):
        end = failed(loaded)
        assert (end.code, end.message) == ("agent_error", f"The agent crashed: {why}.")
        assert finished(said(loaded, ask_for("1"))).finish == "stop"


def test_a_crash_leaves_the_engines_process_alive(tmp_path: Path) -> None:
    code = module(CRASHES["stack overflow"])
    first, second = answered(write(tmp_path, code), tmp_path, ask_for(), ask_for())
    for answer in (first, second):
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "agent_error"


def test_memory_ends_at_the_cap_and_growing_past_it_fails(tmp_path: Path) -> None:
    body = """(local $pages i32)
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      (i32.store (i32.const 0) (memory.size)) (call $emit (i32.const 0) (i32.const 4)) (i32.const 0)"""
    answer = said(opened(module(body), tmp_path), ask_for())
    assert MEMORY - (1 << 20) < int.from_bytes(text_bytes(answer.ids), "little") << 16 <= MEMORY


def test_filling_memory_again_and_again_is_paid_by_the_byte(tmp_path: Path) -> None:
    fill = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 260000000))"
    body = f"(drop (memory.grow (i32.const 4000))) (loop $l {fill} (br $l)) (i32.const 0)"
    answer = said(opened(module(body), tmp_path), ask_for(tokens=60))
    assert finished(answer).finish == "length"


FLOODS = {
    "much at once": "(call $emit (i32.const 0) (i32.const 262144)) (i32.const 0)",
    "little for ever": "(loop $l (call $emit (i32.const 0) (i32.const 1)) (br $l)) (i32.const 0)",
    "nothing for ever": "(loop $l (call $emit (i32.const 0) (i32.const 0)) (br $l)) (i32.const 0)",
    "much for ever": "(loop $l (call $emit (i32.const 0) (i32.const 262144)) (br $l)) (i32.const 0)",
}


@pytest.mark.parametrize("how", FLOODS)
def test_a_flood_ends_at_the_budget(tmp_path: Path, how: str) -> None:
    loaded = opened(module(FLOODS[how]), tmp_path)
    one, two = said(loaded, ask_for(tokens=90)), said(loaded, ask_for(tokens=40))
    assert finished(one).finish == finished(two).finish == "length"
    assert len(one.ids) == 90
    assert one.ids[:40] == two.ids


def test_asking_the_host_for_ever_is_paid_as_work(tmp_path: Path) -> None:
    """An unknown alias is refused for the price of a call, not for nothing."""
    ask = "(call $embed (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 200000) (i32.const 0) (i32.const 0))"
    body = f"(loop $l (drop {ask}) (br $l)) (i32.const 0)"
    code = module(body, imports=("emit", "embed"), more='(data (i32.const 0) "foe")')
    answer = said(opened(code, tmp_path), ask_for(tokens=100))
    assert finished(answer).finish == "length"


_MEMORY = '(memory (export "memory") 1)'
_ALLOC = '(func (export "alloc") (param i32) (result i32) unreachable)'
_GROW = "(drop (table.grow $t (ref.null func) (i32.const 10)))"
BAD_MODULES = {
    "an import of files": ("fd_write", '(import "wasi_snapshot_preview1" "fd_write" (func (param i32)))'),
    "an unknown import": ("steal", '(import "lading" "steal" (func))'),
    "an import of another type": ("emit", '(import "lading" "emit" (func (param i64)))'),
    "a memory of the host": ("memory", '(import "lading" "memory" (memory 1))'),
    "a clock that is not granted": ("now", '(import "lading" "now" (func (result i64)))'),
    "no memory": ("memory", _ALLOC),
    "no call": ("call", _MEMORY + _ALLOC),
    "a call of another type": ("call", _MEMORY + _ALLOC + '(func (export "call"))'),
    "a global named memory": ("memory", '(global (export "memory") i32 (i32.const 0))'),
    "a start that does not end": ("start", "(func $s (loop $l (br $l))) (start $s)"),
    "a start that crashes": ("start", "(func $s unreachable) (start $s)"),
    "a start that calls the host": (
        "ready",
        f'(import "lading" "emit" (func $e (param i32 i32))) {_MEMORY} '
        "(func $s (call $e (i32.const 0) (i32.const 1))) (start $s)",
    ),
    "too much memory": ("memory", '(memory (export "memory") 5000)'),
    "two memories": ("memor", "(memory 1) (memory 1)"),
    "a shared memory": ("thread", "(memory 1 2 shared)"),
    "64 bits": ("memory64", "(memory i64 1)"),
    "a table bomb": ("table", "(table 90000000 funcref)"),
    "table growth at the start": ("start", f"(table $t 1 funcref) (func $s (loop $l {_GROW} (br $l))) (start $s)"),
    "garbage collection": ("gc", "(type (struct))"),
    "exceptions": ("exception", "(tag)"),
    "a tail call": ("tail", "(func $f (return_call $f))"),
    "data outside its memory": ("memory", _MEMORY + '(data (i32.const 70000) "x")'),
}


@pytest.mark.parametrize("trick", BAD_MODULES)
def test_a_module_that_asks_for_what_there_is_not_is_not_taken(tmp_path: Path, trick: str) -> None:
    word, text = BAD_MODULES[trick]
    with pytest.raises(EngineError) as refusal:
        opened(bytes(wat2wasm(f"(module {text})")), tmp_path)
    assert refusal.value.failure == "invalid_package"
    assert word in refusal.value.message
    assert "\n" not in refusal.value.message


def test_a_start_that_does_not_end_is_named_in_the_engines_process(tmp_path: Path) -> None:
    assert "start" in unloadable(
        write(tmp_path, bytes(wat2wasm(BAD_MODULES["a start that does not end"][1]))), tmp_path
    )


def test_what_is_no_module_is_not_taken(tmp_path: Path) -> None:
    whole = module("(i32.const 0)")
    component = bytes(wat2wasm("(component)"))
    parts = [whole[:size] for size in (8, len(whole) // 2, len(whole) - 1)]
    for kind, code in [
        *[("wasm-core", code) for code in (b"(module)", b"", b"\x7fELF" + bytes(4000), component, *parts)],
        *[("wasm-component", code) for code in (component, whole, b"(component)")],
    ]:
        with pytest.raises(EngineError) as refusal:
            opened(code, tmp_path, kind)
        assert refusal.value.failure == "invalid_package"
    assert "8,388,608" in unloadable(write(tmp_path, whole + bytes(9 << 20)), tmp_path)
    spec = write(tmp_path, whole)
    Path(spec.files[0].path).write_bytes(whole + b"\0\1\0")
    assert "not the file that the manifest names" in unloadable(spec, tmp_path)
    assert "0 files" in unloadable(msgspec.structs.replace(spec, files=()), tmp_path)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _number(len(body)) + body


def test_junk_in_custom_sections_changes_nothing(tmp_path: Path) -> None:
    junk = _section(0, _number(4) + b"name" + os.urandom(5000)) + _section(0, _number(0) + os.urandom(200_000))
    answer = said(opened(module("(i32.const 0)") + junk, tmp_path), ask_for())
    assert finished(answer).finish == "stop"


def bomb(levels: int, functions: int) -> bytes:
    """Nested blocks, and jumps to every level from each: small to write, endless to compile."""
    body = bytearray(b"\x02\x40" * levels)
    for open_blocks in range(levels, 0, -1):
        labels = b"".join(map(_number, range(open_blocks)))
        body += b"\x20\x00\x0e" + _number(open_blocks) + labels + _number(0) + b"\x0b"
    body += b"\x0b"
    code = _number(len(body) + 1) + b"\0" + bytes(body)
    types = _section(1, b"\1\x60\1\x7f\0")
    return (
        b"\0asm\1\0\0\0"
        + types
        + _section(3, _number(functions) + bytes(functions))
        + _section(10, _number(functions) + code * functions)
    )


def test_a_bomb_for_the_compiler_is_named_and_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock's limit, made shorter here; a processor's second and bytes are the system's to count."""
    monkeypatch.setitem(wasm_code.WALL_S, "wasm-core", 4.0)
    code = bomb(280, 16)
    assert len(code) < 8 << 20
    began = time.monotonic()
    assert "does not compile within" in unloadable(write(tmp_path, code), tmp_path)
    assert time.monotonic() - began < 60
    assert [path for path in tmp_path.iterdir() if path.suffix != ".wasm"] == []


@pytest.mark.parametrize("spoil", ["flip", "cut", "foreign", "open", "link"])
def test_a_spoilt_cache_entry_is_compiled_again(tmp_path: Path, spoil: str) -> None:
    """Native code runs as it is: what we did not write, or others could have, is never loaded."""
    cache = tmp_path / "cache"
    spec = write(tmp_path, module("(i32.const 0)"), cache=str(cache))
    answered(spec, tmp_path, ask_for())
    (entry,) = cache.glob("*.native")
    good = entry.read_bytes()
    if spoil == "flip":
        entry.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    elif spoil == "cut":
        entry.write_bytes(good[: len(good) // 2])
    elif spoil == "foreign":
        entry.unlink()
        (cache / f"{entry.name[:65]}{'0' * 64}.native").write_bytes(b"\x7fELF another machine's")
    elif spoil == "open":
        entry.chmod(0o666)
    else:
        entry.rename(tmp_path / "elsewhere")
        entry.symlink_to(tmp_path / "elsewhere")
    assert wasm_code.find(cache, wasm_code.key("wasm-core", spec.files[0].digest)) is None
    (answer,) = answered(spec, tmp_path, ask_for())
    assert finished(answer).finish == "stop"
    (entry,) = cache.glob("*.native")
    assert entry.read_bytes() == good
    assert entry.stat().st_mode & 0o777 == 0o600


def test_the_running_engine_cannot_write_the_cache(tmp_path: Path) -> None:
    """Only the entry is in its world, to read: not the folder, not the secret."""

    async def main() -> None:
        spec = write(tmp_path, module("(i32.const 0)"), cache=str(tmp_path / "cache"))
        async with running(spec, tmp_path) as engine:
            root = Path(f"/proc/{engine._process.pid}/root")  # type: ignore[union-attr]
            seen = sorted(path.name for path in (root / str(tmp_path / "cache").lstrip("/")).glob("*"))
            assert "secret" not in seen
            assert finished(await collect(engine, Generate("a", ask_for()))).finish == "stop"

    asyncio.run(main())


def test_every_import_is_in_the_list_of_these_tests() -> None:
    from lading_node.engines.wasm_core import _imports
    from lading_protocol.parts import Capabilities

    granted = EngineSpec("wasm-core", capabilities=Capabilities(clock=True, randomness=True))
    assert set(_imports(granted)) == set(IMPORTS)
