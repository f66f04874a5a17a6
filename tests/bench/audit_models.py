"""The models of the audit benchmark, true and cheap: opened by the node's own engines, then altered as a cheat would.

Owns weights. What hosts do with them is audit_hosts', what auditors see audit_cases'.
"""

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from chat_recipe import corpus, markup
from chat_recipe.train import BATCH, ROW
from tokenizers import Tokenizer

from integration.engines import chat_agents
from lading_node.core.sketch import States
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel, Logits
from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.parts import LlmShape

from . import ROOT

SECOND = ROOT / "tests" / "vectors" / "models" / "second"
SECOND_SHAPE = LlmShape(layers=5, heads=5, kv_heads=5, head_size=32, hidden=160, vocab=1024, eos=(1,), bos=0, pad=1)
TUNED_STEPS, TUNED_RATE = 40, 1e-3
GROUP = 32
END, NEVER = 1, -1e4


class Watched:
    """A language model that remembers the states of its last prefill; all else is its own."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.states = model.states
        self.last: States = np.empty((0, model.states), np.float32)

    def rows(self, ids: Sequence[int], count: int) -> Logits:
        return self._model.rows(ids, count)

    def traced(self, ids: Sequence[int], count: int) -> tuple[Logits, States]:
        rows, self.last = self._model.traced(ids, count)
        return rows, self.last


def never_end(model: Any) -> None:
    """No answer ends by itself, so that every job has as many tokens as every other."""
    bias = torch.zeros(model.lm_head.weight.shape[0], dtype=model.lm_head.weight.dtype)
    bias[END] = NEVER
    model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)


def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(chat_agents.MODEL / "tokenizer.json"))


def specs(folder: Path) -> dict[str, EngineSpec]:
    """The two true models and the small one, for the torch engine; laid out below `folder`."""
    from chat_recipe import restore

    (folder / "small").mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "chat_template.json"):
        (folder / "small" / name).write_bytes((chat_agents.MODEL / name).read_bytes())
    for name in ("model.onnx", "shape.json"):
        source = ROOT / "tests" / "vectors" / "models" / "chat-small" / name
        (folder / "small" / name).write_bytes(source.read_bytes())
    restore.write_folder(folder / "small", folder / "small-hf")
    shape = msgspec.json.decode((folder / "small" / "shape.json").read_bytes(), type=LlmShape)
    return {
        "chat": chat_agents.torch_chat(folder / "chat-hf"),
        "second": _spec(SECOND, SECOND_SHAPE),
        "small": _spec(folder / "small-hf", shape),
    }


def _spec(folder: Path, shape: LlmShape) -> EngineSpec:
    files = []
    for name, role in (("model.safetensors", "weights"), ("config.json", "config")):
        files.append(_file(folder / name, role))
    for name, role in (("tokenizer.json", "tokenizer"), ("chat_template.json", "chat_template")):
        files.append(_file(chat_agents.MODEL / name, role))
    return EngineSpec("torch", tuple(files), shape, 1024)


def _file(path: Path, role: str) -> AgentFile:
    return AgentFile(role, str(path), hashlib.sha256(path.read_bytes()).digest())


def opened(spec: EngineSpec, precision: str) -> LanguageModel:
    return language_model(msgspec.structs.replace(spec, precision=precision), Path())


def inner(model: LanguageModel) -> Any:
    """The library's model inside the engine's, for hosts that serve batches or cheat."""
    return model._model  # type: ignore[attr-defined]


def own_copy(model: LanguageModel) -> Any:
    """Without the hook that shows the engine its states."""
    made = copy.deepcopy(inner(model))
    made.base_model._forward_hooks.clear()
    return made


def quantised(model: Any, how: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy whose matrices between embedding and head went through `how`."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in made.model.layers.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                weight.copy_(how(weight.float()).to(weight.dtype))
    return made


def int4(weight: torch.Tensor) -> torch.Tensor:
    """Blocks of GROUP along a row, symmetric, fifteen levels."""
    blocks = weight.reshape(weight.shape[0], -1, GROUP)
    scale = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
    return ((blocks / scale).round().clamp(-7, 7) * scale).reshape(weight.shape)


def int8(weight: torch.Tensor) -> torch.Tensor:
    """One scale a row."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def fp8(weight: torch.Tensor) -> torch.Tensor:
    """E4M3 with one scale a row."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 448
    return (weight / scale).to(torch.float8_e4m3fn).float() * scale


def skipped(model: Any) -> Any:
    """A copy whose middle layer adds nothing."""
    made = copy.deepcopy(model)
    layer = made.model.layers[len(made.model.layers) // 2]
    ends = [part for name, part in layer.named_modules() if name.endswith(("o_proj", "down_proj", "c_proj"))]
    with torch.no_grad():
        for weight in itertools.chain.from_iterable(part.parameters() for part in ends):
            weight.zero_()
    return made


def tuned(model: Any, words: Tokenizer) -> Any:
    """A copy that was trained on: the same conversations in small letters, TUNED_STEPS of them."""
    made = copy.deepcopy(model).float().train()
    made.lm_head.bias = None
    made.requires_grad_(True)
    optimiser = torch.optim.AdamW(made.model.layers.parameters(), lr=TUNED_RATE, weight_decay=0.0)
    stream = _lower_rows(words)
    with torch.enable_grad():
        for _ in range(TUNED_STEPS):
            ids = torch.tensor(list(itertools.islice(stream, BATCH)))
            made(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    made.requires_grad_(False)
    made.model.to(next(model.model.parameters()).dtype)
    made.lm_head.bias = model.lm_head.bias
    return made.eval()


def _lower_rows(words: Tokenizer) -> Iterator[list[int]]:
    ids: list[int] = []
    for talk in corpus.conversations(987):
        ids += markup.encode(words, [(role, content.lower()) for role, content in talk])[0]
        if len(ids) >= ROW:
            yield ids[:ROW]
            ids = []
