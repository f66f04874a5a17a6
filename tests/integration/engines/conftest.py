"""Agents made on the spot, a folder each for the whole session, and the engines of the conformance suite."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from integration.engines import tiny_llama, tiny_torch
from lading_node.engines.child import ChildEngine
from lading_node.engines.factory import Means
from lading_node.engines.local_pool import LocalPool
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.pool import Pool
from lading_node.engines.port import Engine, EngineSpec
from lading_node.hardware.devices import Device

Specs = dict[str, EngineSpec]


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Specs:
    return {
        "llm-onnx": tiny_llama.write_chat(tmp_path_factory.mktemp("markup")),
        "llm-onnx, jinja": tiny_llama.write_chat(tmp_path_factory.mktemp("jinja"), jinja=True),
        "toy, child": EngineSpec("memory", context=256),
        "toy, in process": EngineSpec("memory", context=256),
        "toy, pool": EngineSpec("memory", context=256),
        "onnx": tiny_llama.write_embedder(tmp_path_factory.mktemp("embedder")),
        "torch": tiny_torch.write_chat(tmp_path_factory.mktemp("torch")),
    }


class Warm:
    """Engines that take seconds to start: one for each spec, kept over tests, and so in a loop of their own."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.Runner()
        self._folder = folder
        self._engines: dict[bytes, ChildEngine] = {}

    async def engine(self, spec: EngineSpec) -> ChildEngine:
        key = msgspec.json.encode(spec)
        if key not in self._engines or not self._engines[key].health().alive:
            self._engines[key] = ChildEngine(spec, self._folder)
            await self._engines[key].start()
        return self._engines[key]

    async def stop(self) -> None:
        for engine in self._engines.values():
            await engine.stop(0)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    kept = Warm(tmp_path_factory.mktemp("warm"))
    with kept.loop:
        yield kept
        kept.loop.run(kept.stop())


class Bench:
    """Starts engines of one kind in a folder of the test's own, and stops them; or lends one that is kept."""

    def __init__(self, kind: str, spec: EngineSpec, folder: Path, warm: Warm | None = None) -> None:
        self.kind = kind
        self.spec = spec
        self.folder = folder
        self.warm = warm

    @asynccontextmanager
    async def engine(self, **changes: Any) -> AsyncIterator[Engine]:
        spec = msgspec.structs.replace(self.spec, **changes)
        if self.kind == "toy, pool":
            async with pooled(spec, self.folder) as placed:
                yield placed
            return
        if self.warm is not None:
            yield await self.warm.engine(spec)
            return
        made: Engine = MemoryEngine(spec) if self.kind == "toy, in process" else ChildEngine(spec, self.folder)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


async def known_machine(folder: Path) -> tuple[tuple[Device, ...], Means]:
    return (Device("cpu", 0, "Known", memory=1 << 40, cores=64),), Means()


@asynccontextmanager
async def pooled(spec: EngineSpec, folder: Path) -> AsyncIterator[Engine]:
    pool = Pool(LocalPool(folder, {"a": {}}, known_machine))
    await pool.open()
    try:
        assert await pool.machines(1, 20)
        placed = pool.spread(spec, 1)
        await placed.start()
        try:
            yield placed
        finally:
            await placed.stop()
    finally:
        await pool.close()


CHATS = ("llm-onnx", "torch", "toy, child", "toy, in process", "toy, pool")


@pytest.fixture(params=CHATS)
def bench(request: pytest.FixtureRequest, specs: Specs, tmp_path: Path) -> Bench:
    if request.param != "torch":
        return Bench(request.param, specs[request.param], tmp_path)
    tiny_torch.require_torch()
    return Bench("torch", specs["torch"], tmp_path, request.getfixturevalue("warm"))


@pytest.fixture
def run(bench: Bench) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Programs run on uvloop, simulations on their own loop: both kinds of subprocess transport are met."""
    if bench.warm is not None:
        return bench.warm.loop.run
    return uvloop.run if bench.kind == "llm-onnx" else asyncio.run
