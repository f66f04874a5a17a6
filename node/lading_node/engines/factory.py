"""Which engine runs a spec on this machine, by its kind and by what the machine has. Builds; starts nothing."""

from pathlib import Path

import msgspec

from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Engine, EngineSpec, Tier
from lading_node.engines.tiers import choose_tier


class Means(msgspec.Struct, frozen=True):
    """What this machine can run agents with. `tiers` passed the self-test; None: it was not asked for.

    `required`: models are refused too where their tier did not pass. `docker` is the engine's URL ("" none),
    `endpoints` the OpenAI-compatible servers that the operator named, by agent name.
    """

    tiers: tuple[Tier, ...] | None = None
    required: bool = True
    docker: str = ""
    endpoints: dict[str, str] = {}
    ray: str = ""


NO_MEANS = Means()
_CHILDREN = frozenset({"memory", "llm-onnx", "torch", "onnx", "wasm-core", "wasm-component"})


def open_engine(spec: EngineSpec, scratch: Path, means: Means = NO_MEANS) -> Engine:
    """Raises EngineError when this machine cannot run the spec. `scratch` is an existing folder."""
    tier = choose_tier(spec, means.tiers, required=means.required)
    if spec.kind in _CHILDREN:
        return ChildEngine(spec, scratch, tiered=tier != "")
    raise EngineError("engine_error", f"This node runs no {spec.kind} agents.")
