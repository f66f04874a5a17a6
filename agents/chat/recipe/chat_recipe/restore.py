"""From the committed ONNX file back to weights by their Hugging Face names, for fine-tuning and for the torch engine.

    python -m chat_recipe.restore MODEL_FOLDER HF_FOLDER

Owns the inverse of the model builder's renaming. One file of weights is committed, so there is only one truth.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

from lading_protocol.parts import LlmShape

CONTEXT = 1024
_SHARED = {"lm_head.MatMul.weight": "model.embed_tokens.weight"}


def weights(model: bytes, shape: LlmShape) -> dict[str, NDArray[np.float32]]:
    """Weights of an f32 export by the names of a LlamaForCausalLM with tied embeddings."""
    found: dict[str, NDArray[np.float32]] = {}
    for tensor in onnx.load_from_string(model).graph.initializer:
        name, value = tensor.name, numpy_helper.to_array(tensor)
        if name in _SHARED:
            found[_SHARED[name]] = value.T
        elif name.endswith("attn.qkv_proj.MatMul.weight"):
            query, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
            at = name.removesuffix("attn.qkv_proj.MatMul.weight") + "self_attn"
            for part, rows in zip("qkv", np.split(value.T, [query, query + kv]), strict=True):
                found[f"{at}.{part}_proj.weight"] = rows
        elif name.endswith(".MatMul.weight"):
            found[name.replace(".MatMul", "").replace(".attn.", ".self_attn.")] = value.T
        elif name.endswith("final_norm_layernorm.weight"):
            found["model.norm.weight"] = value
        elif name.endswith("layernorm.weight"):
            found[name] = value
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def hf_config(shape: LlmShape, inner: int) -> dict[str, Any]:
    """A config.json that transformers reads as the model's."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    config |= {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": inner,
        "num_hidden_layers": shape.layers,
    }
    config |= {
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": CONTEXT,
    }
    config |= {
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }
    return config | {"bos_token_id": shape.bos, "eos_token_id": shape.eos[0], "pad_token_id": shape.pad}


def write_folder(model: Path, hf: Path) -> None:
    """Everything that the torch engine needs of the model, the same bytes every time."""
    shape = msgspec.json.decode((model / "shape.json").read_bytes(), type=LlmShape)
    tensors = weights((model / "model.onnx").read_bytes(), shape)
    hf.mkdir(parents=True, exist_ok=True)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    inner = tensors["model.layers.0.mlp.gate_proj.weight"].shape[0]
    (hf / "config.json").write_text(json.dumps(hf_config(shape, inner), indent=2) + "\n")
    for name in ("tokenizer.json", "chat_template.json", "shape.json"):
        (hf / name).write_bytes((model / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("hf", type=Path)
    args = parser.parse_args()
    write_folder(args.model, args.hf)


if __name__ == "__main__":
    main()
