"""From a manifest and the folder that its files were written to, to what an engine loads. Pure."""

from pathlib import Path

from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile, EngineSpec, Kind
from lading_protocol.ids import from_hex
from lading_protocol.manifest import Manifest, Runtime

KINDS: dict[str, Kind] = {"llm-onnx": "llm-onnx", "onnx": "onnx", "memory": "memory"}
_NEEDED = frozenset({"tokenizer", "chat_template", "weights"})


def engine_spec(
    manifest: Manifest, runtime: Runtime, folder: Path, *, slots: int = 4, threads: int = 1, memory: int = 0
) -> EngineSpec:
    """Raises EngineError when no engine of this program runs `runtime`."""
    kind = KINDS.get(runtime.engine)
    if kind is None:
        raise EngineError("invalid_package", f"This program has no engine {runtime.engine!r}.", hint="Update it.")
    files = [
        AgentFile(
            "model" if file.path == runtime.entry else file.role, str(folder / file.path), from_hex(file.digest, 32)
        )
        for file in manifest.files
        if file.path == runtime.entry or file.role in _NEEDED
    ]
    return EngineSpec(kind, tuple(files), runtime.llm, manifest.context, slots, threads, memory)
