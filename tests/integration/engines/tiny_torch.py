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


SIZES = {
    "vocab_size": SHAPE.vocab,
    "hidden_size": SHAPE.hidden,
    "intermediate_size": 96,
    "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.heads,
    "num_key_value_heads": SHAPE.kv_heads,
    "max_position_embeddings": 512,
}
KINDS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"tie_word_embeddings": True},
    "MistralForCausalLM": {"sliding_window": 4},
    "Qwen2ForCausalLM": {"tie_word_embeddings": True},
    "Qwen3ForCausalLM": {"head_dim": SHAPE.head_size},
    "SmolLM3ForCausalLM": {},
    "Olmo2ForCausalLM": {},
    "GraniteForCausalLM": {"logits_scaling": 4.0, "embedding_multiplier": 2.0},
    "StableLmForCausalLM": {"use_qkv_bias": True, "partial_rotary_factor": 0.25},
    "Starcoder2ForCausalLM": {"sliding_window": 64},
    "Phi3ForCausalLM": {"original_max_position_embeddings": 512},
}


def write_architecture(folder: Path, architecture: str) -> tuple[EngineSpec, Any]:
    """A random model of a kind as the library writes it to a folder, and the library's own in memory."""
    import torch
    import transformers

    from lading_node.engines.hf_config import ARCHITECTURES

    sizes = SIZES | KINDS[architecture]
    torch.manual_seed(3)
    known = transformers.AutoConfig.for_model(ARCHITECTURES[architecture], **sizes, pad_token_id=1, eos_token_id=1)
    theirs = transformers.AutoModelForCausalLM.from_config(known, dtype=torch.float32).eval()
    theirs.save_pretrained(folder / "hf", max_shard_size="100KB")
    words = [one for one in write_chat(folder).files if one.role not in ("weights", "config")]
    shards = [
        file(folder, "weights", path.name, path.read_bytes()) for path in sorted((folder / "hf").glob("*.safetensors"))
    ]
    stated = file(folder, "config", "config.json", (folder / "hf" / "config.json").read_bytes())
    return EngineSpec("torch", (*shards, stated, *words), SHAPE, TINY.context), theirs
