"""Low-rank adapters (Hu et al., 2021) in the layout of the `peft` library, added into the weights while a model loads.

Plain LoRA only. Whatever else an adapter's configuration turns on would change the answer without a word, so it is
refused by name.
"""

from collections.abc import Sequence
from math import sqrt

from lading_node.engines import files
from lading_node.engines.errors import EngineError
from lading_node.engines.hf_config import decode_object
from lading_node.engines.port import AgentFile
from lading_node.engines.quiet_torch import torch
from lading_node.engines.tensors import Tensor, headers, stream
from lading_node.engines.weights import put

MAX_ADAPTER = 1 << 30
MAX_RANK = 4096
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
# How it was trained, and what the file's own names say already.
_IDLE_WORDS = """
    base_model_name_or_path revision task_type inference_mode lora_dropout target_modules exclude_modules
    layers_to_transform layers_pattern init_lora_weights peft_version loftq_config eva_config corda_config
    runtime_config qalora_group_size
"""
_WITHOUT_MEANING = frozenset(_IDLE_WORDS.split())
_TAKEN = frozenset({"peft_type", "r", "lora_alpha", "use_rslora"})


def merge(weights: dict[str, torch.Tensor], agent: Sequence[AgentFile]) -> None:
    """Change `weights` in place by the agent's adapter, if it has one. Raises EngineError."""
    adapters = [file for file in agent if file.role == "adapter"]
    if not adapters:
        return
    configs = [file for file in agent if file.role == "config" and files.name_of(file) == CONFIG]
    if len(adapters) != 1 or len(configs) != 1:
        raise _bad(f"it has {len(adapters)} adapters and {len(configs)} files {CONFIG}; one of each is needed")
    rank, scale = _rank_and_scale(files.read(configs[0]))
    for name, (a, b) in _pairs(adapters[0]).items():
        if name not in weights:
            raise _bad(f"it changes {name[:80]!r}, which the model does not have")
        weight = weights[name]
        if weight.ndim != 2 or (b.shape, a.shape) != ((len(weight), rank), (rank, weight.shape[-1])):
            raise _bad(f"its matrices {tuple(b.shape)} and {tuple(a.shape)} do not fit {name[:80]!r} at rank {rank}")
        change = scale * (b @ a)
        weight.copy_(weight.float() + change.to(weight.device))


def _rank_and_scale(data: bytes) -> tuple[int, float]:
    tree = decode_object(data, CONFIG)
    for key, value in tree.items():
        if key not in _TAKEN | _WITHOUT_MEANING and value not in (None, False, "none", {}, []):
            raise _bad(f"{CONFIG} sets {key[:60]!r}, and only plain LoRA is known")
    rank, alpha = tree.get("r"), tree.get("lora_alpha")
    if tree.get("peft_type") != "LORA":
        raise _bad(f"{CONFIG} is of the type {str(tree.get('peft_type'))[:40]!r}, and only LORA is known")
    if not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
        raise _bad(f"{CONFIG} gives the rank {str(rank)[:40]}")
    if not isinstance(alpha, int | float) or not 0 < alpha <= 1e6:
        raise _bad(f"{CONFIG} gives the alpha {str(alpha)[:40]}")
    return rank, alpha / (sqrt(rank) if tree.get("use_rslora") else rank)


def _pairs(file: AgentFile) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Both matrices by the name of the weight that they change."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    places: dict[str, torch.Tensor] = {}
    held = 0
    for tensor in headers(file):
        name, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        if not tensor.name.startswith(_PREFIX) or part not in ("lora_A", "lora_B"):
            raise _bad(f"it holds {tensor.name[:80]!r}, and only plain LoRA is known")
        held += tensor.numbers * 4
        if held > MAX_ADAPTER:
            raise _bad(f"it needs more than {MAX_ADAPTER} bytes")
        places[tensor.name] = found.setdefault(name.removeprefix(_PREFIX) + ".weight", {})[part] = torch.empty(
            tensor.shape, dtype=torch.float32
        )

    def take(tensor: Tensor, first: int, piece: memoryview) -> None:
        put(places[tensor.name], tensor, first, piece)

    stream(file, take)
    lone = [name for name, pair in found.items() if len(pair) != 2]
    if lone:
        raise _bad(f"it has one matrix only for {lone[0][:80]!r}")
    return {name: (pair["lora_A"], pair["lora_B"]) for name, pair in found.items()}


def _bad(why: str) -> EngineError:
    return EngineError("invalid_package", f"The agent's adapter is refused: {why}.")
