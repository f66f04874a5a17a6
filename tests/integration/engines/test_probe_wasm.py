"""The self-test of tier W: the enemy's guest gets nothing in our engine, and would elsewhere."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lading_node.engines import probe_wasm
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Ready

wasmtime = pytest.importorskip("wasmtime")
HERE = Path(__file__).parent


def test_a_guest_gets_nothing(tmp_path: Path) -> None:
    found = asyncio.run(probe_wasm.probe_wasm(tmp_path))
    assert found.failed == ()
    assert found.passed
    assert set(found.held) == {*probe_wasm.ATTEMPTS, probe_wasm.IMPORTS}
    assert list(tmp_path.iterdir()) == []


def test_the_modules_are_what_their_texts_say() -> None:
    assert bytes(wasmtime.wat2wasm((HERE / "enemy.wat").read_text())) == probe_wasm.ENEMY
    assert bytes(wasmtime.wat2wasm((HERE / "wasi.wat").read_text())) == probe_wasm.WASI


def test_where_nothing_limits_it_the_guest_takes_its_memory() -> None:
    """Or the self-test would show nothing."""
    said: list[int] = []
    engine = wasmtime.Engine()
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    i32 = wasmtime.ValType.i32()
    linker.define_func("lading", "emit", wasmtime.FuncType([i32, i32], []), lambda at, length: said.append(length))
    exports = linker.instantiate(store, wasmtime.Module(engine, probe_wasm.ENEMY)).exports(store)
    exports["memory"].write(store, b"grow", 1024)
    assert exports["call"](store, 1024, 4, 1028, 0) == 0
    assert said == [3]
    assert exports["memory"].size(store) >= 65_000


def test_an_engine_that_does_not_start_is_a_tier_that_did_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ChildEngine):
        def __init__(self, spec: EngineSpec, scratch: Path, **more: Any) -> None:
            super().__init__(spec, scratch, **more)

        async def start(self) -> Ready:
            raise EngineError("engine_error", "The library is not installed.")

    monkeypatch.setattr(probe_wasm, "ChildEngine", Broken)
    found = asyncio.run(probe_wasm.probe_wasm(tmp_path))
    assert not found.passed
    assert found.failed == ("wasm agents do not run here: The library is not installed.",)


def test_a_probe_has_a_deadline(tmp_path: Path) -> None:
    found = asyncio.run(probe_wasm.probe_wasm(tmp_path, deadline=0.01))
    assert found.failed == ("it did not end within 0.01 s",)
