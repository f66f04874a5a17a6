"""A language model of the size that a card is bought for, with random weights: what they are worth does not matter for
time. Laid out as a package, so that it goes through the very engine that serves.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.parts import LlmShape

# The shape of Llama 3.2 1B: 1.24 billion parameters, its embedding being its head.
SHAPE = LlmShape(layers=16, heads=32, kv_heads=8, head_size=64, hidden=2048, vocab=128_256, eos=(1,), bos=0, pad=1)
INNER = 8192
# For a check that all of it runs, on any machine.
TINY = LlmShape(layers=2, heads=4, kv_heads=2, head_size=16, hidden=64, vocab=2048, eos=(1,), bos=0, pad=1)
TINY_INNER = 128
CONTEXT = 2048
SPECIAL = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_MARKUP = {
    "bos": "<|bos|>",
    "end": "<|end|>",
    "roles": {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"},
}


def write(folder: Path, shape: LlmShape, inner: int, device: str) -> EngineSpec:
    """The package's files, its weights in bf16; drawn on `device`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(shape, inner)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.json").write_text(json.dumps(_MARKUP))
    (folder / "tokenizer.json").write_text(_tokenizer(shape.vocab).to_str())
    tensors = _weights(config, device)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    roles = {"model.safetensors": "weights", "config.json": "config", "tokenizer.json": "tokenizer"}
    files = tuple(
        _file(folder / name, role) for name, role in (*roles.items(), ("chat_template.json", "chat_template"))
    )
    return EngineSpec("torch", files, shape, CONTEXT, precision="bf16", device=device != "cpu", slots=16)


def stated(shape: LlmShape, inner: int, sequences: int, tokens: int) -> int:
    """Bytes that serving takes by the shape alone: weights in bf16, their head once more in f32, keys and values."""
    wide = shape.heads * shape.head_size + 2 * shape.kv_heads * shape.head_size
    layer = shape.hidden * (wide + shape.heads * shape.head_size) + 3 * shape.hidden * inner + 2 * shape.hidden
    weights = 2 * (shape.layers * layer + shape.vocab * shape.hidden + shape.hidden)
    head = 4 * shape.vocab * shape.hidden
    kept = 2 * 2 * shape.layers * shape.kv_heads * shape.head_size * tokens * sequences
    return weights + head + kept


def _config(shape: LlmShape, inner: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


def _weights(config: dict[str, Any], device: str) -> dict[str, torch.Tensor]:
    known = {name: value for name, value in config.items() if name not in ("architectures", "model_type", "dtype")}
    torch.manual_seed(1)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**known)).bfloat16()
    return {name: value.cpu() for name, value in model.state_dict().items() if name != "lm_head.weight"}


def _tokenizer(vocab: int) -> Tokenizer:
    """Byte-level without merges: text goes in byte by byte, and every id has bytes of its own to come out as."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab=dict(_pieces(alphabet, vocab)), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return made


def _pieces(alphabet: list[str], vocab: int) -> dict[str, int]:
    """The control tokens first, the bytes, and words of four letters, which nothing is ever joined to."""
    pieces = [*SPECIAL, *alphabet]
    letters = [chr(ord("a") + n) for n in range(26)]
    n = 0
    while len(pieces) < vocab:
        word, rest = "", n
        for _ in range(4):
            word, rest = word + letters[rest % 26], rest // 26
        pieces.append(word)
        n += 1
    return {piece: i for i, piece in enumerate(pieces)}


def _file(path: Path, role: str) -> AgentFile:
    with path.open("rb") as data:
        return AgentFile(role, str(path), hashlib.file_digest(data, "sha256").digest())
