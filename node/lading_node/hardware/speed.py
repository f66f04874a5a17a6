"""Tokens per second of a chat agent on this machine, through the very sandbox that serves it."""

import time
from contextlib import aclosing
from pathlib import Path

from lading.blobs import BlobStore
from lading.publisher import load_project, pack
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Run
from lading_node.engines.spec import Limits, engine_spec
from lading_protocol.ids import ZERO_ADDRESS, AgentId
from lading_protocol.messages import ChatRequest, Message, Sampler

TOKENS = 128
_ENGINE = "llm-onnx"


def held(folder: Path, threads: int) -> tuple[str, EngineSpec] | None:
    """The first chat agent that the node of this folder has laid out, by name. Raises BadManifest."""
    if not (folder / "blobs").is_dir():
        return None
    store = BlobStore(folder / "blobs")
    for place in sorted((folder / "agents").glob("?" * 64)):
        manifest = store.manifest(AgentId(bytes.fromhex(place.name)))
        for runtime in manifest.runtimes:
            if runtime.engine == _ENGINE:
                return manifest.name, engine_spec(manifest, runtime, place, Limits(threads=threads))
    return None


def project(folder: Path, scratch: Path, threads: int) -> tuple[str, EngineSpec] | None:
    """The agent of a project folder, laid out below `scratch`; None when it does not chat. Raises BadProject."""
    store = BlobStore(scratch / "blobs")
    agent, manifest = pack(load_project(folder), folder, ZERO_ADDRESS, store)
    store.materialise(agent, scratch / "agent")
    for runtime in manifest.runtimes:
        if runtime.engine == _ENGINE:
            return manifest.name, engine_spec(manifest, runtime, scratch / "agent", Limits(threads=threads))
    return None


async def tokens_per_second(spec: EngineSpec, scratch: Path, seconds: float) -> list[float]:
    """One value an answer, as many answers as fit into `seconds`. Raises EngineError when the agent does not load."""
    engine = ChildEngine(spec, scratch)
    await engine.start()
    speeds: list[float] = []
    try:
        end = time.monotonic() + seconds
        while not speeds or time.monotonic() < end:
            speeds.append(await _answer(engine, len(speeds)))
    finally:
        await engine.stop()
    return speeds[1:] or speeds  # the first one warms


async def _answer(engine: ChildEngine, at: int) -> float:
    """Raises EngineError when the agent fails."""
    request = ChatRequest((Message("user", "Tell me a story."),), TOKENS, Sampler(at.to_bytes(32), 0.8))
    made, began = 0, time.perf_counter()
    async with aclosing(engine.generate(Generate(str(at), request))) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Run():
                    made += len(event.ids)
                case Failed():
                    raise EngineError(event.code, event.message, hint=event.hint)
                case Finished():
                    break
    return made / (time.perf_counter() - began)
