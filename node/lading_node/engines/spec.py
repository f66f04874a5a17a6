"""From a manifest and the folder that its files were written to, to what an engine loads. Pure."""

from pathlib import Path
from typing import get_args

import msgspec

from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile, EngineSpec, HostModel, Kind
from lading_protocol.ids import from_hex
from lading_protocol.manifest import Manifest
from lading_protocol.parts import File, Model, Runtime
from lading_protocol.rules import MODEL_ROLES

KINDS: frozenset[str] = frozenset(get_args(Kind))
ABI = 1
# Shown to the node when it picks a runtime: what a class promises must be what the agent can keep.
EXACT = "wasmtime-"
# The end of a class whose arithmetic is the processor's, whatever cards there are.
PROCESSOR = "-cpu"


class Limits(msgspec.Struct, frozen=True):
    """What the operator gives each engine. `memory` is in bytes of address space, 0 for no limit."""

    slots: int = 4
    threads: int = 1
    memory: int = 0
    cache: str = ""
    device: bool = False


NO_LIMITS = Limits()


def engine_spec(manifest: Manifest, runtime: Runtime, folder: Path, limits: Limits = NO_LIMITS) -> EngineSpec:
    """Raises EngineError when no engine of this program runs `runtime`."""
    if runtime.engine not in KINDS:
        raise EngineError("invalid_package", f"This program has no engine {runtime.engine!r}.", hint="Update it.")
    if runtime.abi != ABI:
        raise EngineError("invalid_package", f"This program speaks ABI {ABI}, not {runtime.abi}.", hint="Update it.")
    asked = manifest.capabilities
    if runtime.numeric.startswith(EXACT) and (asked.models or asked.clock or asked.randomness):
        why = f"The class {runtime.numeric!r} promises equal bytes, which models, a clock or randomness cannot give."
        raise EngineError("invalid_package", why)
    return EngineSpec(
        kind=msgspec.convert(runtime.engine, Kind),
        files=_files(manifest, runtime, folder),
        llm=runtime.llm,
        context=manifest.context,
        slots=limits.slots,
        threads=limits.threads,
        memory=limits.memory,
        precision=runtime.precision,
        operations=manifest.api,
        capabilities=asked,
        models=tuple(_host_model(manifest, manifest.model(alias), folder) for alias in asked.models),
        cache=limits.cache,
        device=limits.device and asked.device and not runtime.numeric.endswith(PROCESSOR),
        repeats=runtime.determinism == "exact",
        numeric=runtime.numeric,
    )


def _files(manifest: Manifest, runtime: Runtime, folder: Path) -> tuple[AgentFile, ...]:
    """The entry, and the files of the runtime's model; of all models when it names none.

    For torch all weights are alike, and the entry is only the first of them.
    """
    named = set(manifest.model(runtime.model).files) if runtime.model else None
    single = MODEL_ROLES if runtime.engine != "torch" else frozenset[str]()
    return tuple(
        _entry(file, folder, "model" if file.path == runtime.entry and file.role in single else file.role)
        for file in manifest.files
        if file.path == runtime.entry
        or (file.role in MODEL_ROLES - {"model"} and (named is None or file.path in named))
    )


def _host_model(manifest: Manifest, model: Model, folder: Path) -> HostModel:
    """A language model has a shape in the runtime that names it; any other is one for vectors."""
    files = tuple(_entry(manifest.file(path), folder, manifest.file(path).role) for path in model.files)
    for runtime in manifest.runtimes:
        if runtime.model == model.alias and runtime.llm is not None:
            return HostModel(model.alias, "llm-onnx", files, runtime.llm)
    return HostModel(model.alias, "onnx", files)


def _entry(file: File, folder: Path, role: str) -> AgentFile:
    return AgentFile(role, str(folder / file.path), from_hex(file.digest, 32))
