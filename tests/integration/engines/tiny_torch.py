"""A tiny random model in the Hugging Face layout, and the same for whatever a test changes in its files."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from integration.engines.tiny_llama import MARKUP, TINY, tokenizer
from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.parts import LlmShape

Weights = dict[str, NDArray[Any]]
SHAPE = LlmShape(TINY.layers, TINY.heads, TINY.kv_heads, TINY.head, TINY.hidden, TINY.vocab, (1,), bos=0, pad=1)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": TINY.vocab,
    "hidden_size": TINY.hidden,
    "intermediate_size": TINY.mlp,
    "num_hidden_layers": TINY.layers,
    "num_attention_heads": TINY.heads,
    "num_key_value_heads": TINY.kv_heads,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.30.0",
}


def require_torch() -> None:
    """Skips where torch is not installed, and fails there in CI."""
    lacking = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if lacking and os.environ.get("CI"):
        pytest.fail(f"{lacking[0]} is not installed, and CI must have it (the `torch` extra)")
    if lacking:
        pytest.skip(f"{lacking[0]} is not installed (the `torch` extra)")


def weights(seed: int = 1) -> Weights:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 0.0) -> NDArray[np.float32]:
        return (rng.normal(size=(rows, columns)) * (scale or columns**-0.5)).astype(np.float32)

    found: Weights = {"model.embed_tokens.weight": matrix(TINY.vocab, TINY.hidden, 1.0)}
    for layer in range(TINY.layers):
        at = f"model.layers.{layer}"
        for part, rows in (("q", TINY.heads), ("k", TINY.kv_heads), ("v", TINY.kv_heads)):
            found[f"{at}.self_attn.{part}_proj.weight"] = matrix(rows * TINY.head, TINY.hidden)
        found[f"{at}.self_attn.o_proj.weight"] = matrix(TINY.hidden, TINY.heads * TINY.head)
        for part in ("gate", "up"):
            found[f"{at}.mlp.{part}_proj.weight"] = matrix(TINY.mlp, TINY.hidden)
        found[f"{at}.mlp.down_proj.weight"] = matrix(TINY.hidden, TINY.mlp)
        for part in ("input", "post_attention"):
            found[f"{at}.{part}_layernorm.weight"] = np.ones(TINY.hidden, np.float32)
    found["model.norm.weight"] = np.ones(TINY.hidden, np.float32)
    found["lm_head.weight"] = matrix(TINY.vocab, TINY.hidden)
    return found


def file(folder: Path, role: str, name: str, data: bytes) -> AgentFile:
    (folder / name).write_bytes(data)
    return AgentFile(role, str(folder / name), hashlib.sha256(data).digest())


def shard(folder: Path, name: str, tensors: Weights, role: str = "weights") -> AgentFile:
    return file(folder, role, name, save(tensors))


def config(folder: Path, changes: Mapping[str, Any], name: str = "config.json") -> AgentFile:
    """A change to None leaves the key out."""
    tree = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    return file(folder, "config", name, json.dumps(tree).encode())


def write_chat(folder: Path, seed: int = 1) -> EngineSpec:
    files = (
        shard(folder, "model.safetensors", weights(seed)),
        config(folder, {}),
        file(folder, "tokenizer", "tokenizer.json", tokenizer().to_str().encode()),
        file(folder, "chat_template", "chat_template.json", json.dumps(MARKUP).encode()),
    )
    return EngineSpec("torch", files, SHAPE, TINY.context)
