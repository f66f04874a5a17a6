"""Which engine runs a spec on this machine, by its kind and by what the machine has. Builds; starts nothing."""

from importlib.util import find_spec
from pathlib import Path

import msgspec

from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.openai_wire import Endpoint
from lading_node.engines.port import Engine, EngineSpec, Tier
from lading_node.engines.tiers import choose_tier
from lading_protocol.parts import Runtime


class Means(msgspec.Struct, frozen=True):
    """What this machine can run agents with. `tiers` passed the self-test; None: it was not asked for.

    `required`: models are refused too where their tier did not pass. `docker` is the engine's URL ("" none),
    `endpoints` the OpenAI-compatible servers, by the name that the operator gave each. `card`: whether there is a CUDA
    card; None: nobody looked, or a pool's machines may have one.
    """

    tiers: tuple[Tier, ...] | None = None
    required: bool = True
    docker: str = ""
    endpoints: dict[str, Endpoint] = {}
    card: bool | None = None


NO_MEANS = Means()
LOAD_S = 60.0
READ_SPEED = 50e6  # bytes a second
# What runs in a process that this program starts, here or on a machine of a pool.
CHILDREN = frozenset({"memory", "llm-onnx", "torch", "onnx", "wasm-core", "wasm-component"})


_CARD_NODES = ("/dev/nvidiactl", "/dev/dxg")
_MODULES = {
    "llm-onnx": ("onnxruntime_genai", "node"),
    "onnx": ("onnxruntime", "node"),
    "torch": ("torch", "torch"),
    "wasm-core": ("wasmtime", "node"),
    "wasm-component": ("wasmtime", "node"),
    "oci": ("docker", "node"),
}


def has_card() -> bool:
    """Whether a CUDA driver has put its devices here."""
    return any(Path(node).exists() for node in _CARD_NODES)


def lacking(runtime: Runtime, means: Means, endpoint: str = "") -> str:
    """What this machine lacks for a runtime, in words; "" when it can run it. `endpoint` is the name of the server that
    the operator gave the agent. A pool's machines may lack what this one has.
    """
    engine = runtime.engine
    if engine == "openai-http":
        return "" if endpoint in means.endpoints else "the operator names no model server for it"
    if engine not in CHILDREN and engine != "oci":
        return "this program does not have it; a newer one may"
    module, extra = _MODULES.get(engine, ("", ""))
    if module and find_spec(module) is None:
        return f"{module} is not installed (pip install 'lading[{extra}]')"
    if engine == "oci" and not means.docker:
        return "the node's settings name no container engine (docker)"
    if runtime.numeric.endswith("-cuda") and means.card is False:
        return f"{runtime.numeric} is computed on a CUDA card, and there is none here"
    return ""


def open_engine(spec: EngineSpec, scratch: Path, means: Means = NO_MEANS) -> Engine:
    """Raises EngineError when this machine cannot run the spec. `scratch` is an existing folder."""
    tier = choose_tier(spec, means.tiers, required=means.required)
    if spec.kind in CHILDREN:
        return ChildEngine(spec, scratch, tiered=tier != "", load_deadline=_load_deadline(spec))
    if spec.kind == "oci":
        return _in_container(spec, scratch, means, tier)
    if spec.kind == "openai-http":
        return _at_endpoint(spec, means)
    raise EngineError("engine_error", f"This node runs no {spec.kind} agents.")


def _in_container(spec: EngineSpec, scratch: Path, means: Means, tier: Tier) -> Engine:
    from lading_node.engines.container import ContainerEngine

    if not means.docker:
        why = "This node has no container engine for agents in images."
        raise EngineError("engine_error", why, hint="Name its socket in the node's settings: docker.")
    tiered = msgspec.structs.replace(spec, tier=tier)
    return ContainerEngine(tiered, scratch, means.docker, load_deadline=_load_deadline(spec))


def _load_deadline(spec: EngineSpec) -> float:
    """Every byte is read and hashed: a large model gets the time that a slow disk takes."""
    paths = [Path(file.path) for file in spec.files]
    return LOAD_S + sum(path.stat().st_size for path in paths if path.is_file()) / READ_SPEED


def _at_endpoint(spec: EngineSpec, means: Means) -> Engine:
    from lading_node.engines.openai_http import OpenAiEngine

    if spec.endpoint not in means.endpoints:
        why = f"The operator has named no model server {spec.endpoint!r} for this agent."
        raise EngineError("engine_error", why, hint="Name its URL and model in the node's settings.")
    return OpenAiEngine(spec, means.endpoints[spec.endpoint])
