"""Which engine runs a spec on this machine, by its kind and by what the machine has. Builds; starts nothing."""

from pathlib import Path

import msgspec

from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Engine, EngineSpec, Tier


class Means(msgspec.Struct, frozen=True):
    """What this machine can run agents with. `tiers` passed the self-test; None: it was not asked for.

    `docker` is the engine's URL ("" none), `endpoints` the OpenAI-compatible servers that the operator named, by
    agent name.
    """

    tiers: tuple[Tier, ...] | None = None
    docker: str = ""
    endpoints: dict[str, str] = {}
    ray: str = ""


NO_MEANS = Means()
_CHILDREN = frozenset({"memory", "llm-onnx", "torch", "onnx", "wasm-core", "wasm-component"})


def open_engine(spec: EngineSpec, scratch: Path, means: Means = NO_MEANS) -> Engine:
    """Raises EngineError when this machine cannot run the spec. `scratch` is an existing folder."""
    if spec.kind in _CHILDREN:
        return ChildEngine(spec, scratch)
    raise EngineError("engine_error", f"This node runs no {spec.kind} agents.")
