"""From a stranger's config.json to the numbers of a model that this program knows.

A key is taken over, is known to mean nothing here, or refuses the package: some keys of the format name code to run or
places to fetch it from, and one that was passed over silently could change the arithmetic. Pure.
"""

import re
from typing import Any, NamedTuple

import msgspec

from lading_node.engines.errors import EngineError
from lading_protocol.parts import LlmShape

MAX_CONFIG = 1 << 18
MOST = 2**32
# Decoders whose code is part of the library, each by the name under which the library builds it.
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
    "Olmo2ForCausalLM": "olmo2",
    "GraniteForCausalLM": "granite",
    "StableLmForCausalLM": "stablelm",
    "Starcoder2ForCausalLM": "starcoder2",
    "Phi3ForCausalLM": "phi3",
}
_TAKEN_WORDS = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    hidden_act max_position_embeddings original_max_position_embeddings rms_norm_eps layer_norm_eps norm_epsilon
    tie_word_embeddings attention_bias mlp_bias use_bias use_qkv_bias qk_layernorm use_parallel_residual
    rope_parameters rope_theta rope_scaling partial_rotary_factor
    sliding_window use_sliding_window max_window_layers layer_types no_rope_layers no_rope_layer_interval
    embedding_multiplier logits_scaling residual_multiplier attention_multiplier
"""
# Of training, of sampling, of the file itself: they do not enter a forward pass. Tokens are told by the manifest.
_IDLE_WORDS = """
    architectures model_type transformers_version torch_dtype dtype use_cache _name_or_path pretraining_tp
    initializer_range attention_dropout hidden_dropout residual_dropout embedding_dropout
    resid_pdrop embd_pdrop bos_token_id eos_token_id pad_token_id unk_token_id return_dict output_attentions
    output_hidden_states is_decoder is_encoder_decoder chunk_size_feed_forward problem_type id2label label2id
    do_sample temperature top_p top_k max_length min_length repetition_penalty num_return_sequences
"""
_TAKEN = frozenset(_TAKEN_WORDS.split())
_WITHOUT_MEANING = frozenset(_IDLE_WORDS.split())
_WORD = re.compile(r"[a-z0-9_]{1,40}")


class HfConfig(NamedTuple):
    """`keys` are arguments of the library's configuration class for `model_type`."""

    model_type: str
    keys: dict[str, Any]


def read_config(data: bytes, shape: LlmShape, context: int) -> HfConfig:
    """Raises EngineError, naming the key, when it is not a model of this list or not the one of the manifest."""
    tree = decode_object(data, "config.json")
    architectures = tree.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise _refused("architectures", "it must name one architecture")
    architecture = architectures[0]
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise _refused("architectures", f"{str(architecture)[:60]!r} is none of {', '.join(ARCHITECTURES)}")
    model_type = ARCHITECTURES[architecture]
    if tree.get("model_type") != model_type:
        raise _refused("model_type", f"it must be {model_type!r} for {architecture}")
    for key in tree.keys() - _TAKEN - _WITHOUT_MEANING:
        raise _refused(key[:60], "this program does not know it, or it can name code")
    keys = {key: _plain(key, value) for key, value in tree.items() if key in _TAKEN}
    _compare(keys, shape, context)
    return HfConfig(model_type, keys)


def decode_object(data: bytes, name: str) -> dict[str, Any]:
    """A small JSON object of a stranger. Raises EngineError."""
    if len(data) > MAX_CONFIG:
        raise EngineError("invalid_package", f"{name} has {len(data)} bytes, over the limit of {MAX_CONFIG}.")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise EngineError("invalid_package", f"{name} does not read: {str(error)[:120]}.") from error


def _plain(key: str, value: Any, deep: int = 0) -> Any:
    """Only numbers, words and short lists of them reach the library."""
    match value:
        case None | bool():
            return value
        case int() | float() if abs(value) <= MOST:
            return value
        case str() if _WORD.fullmatch(value):
            return value
        case list() if deep < 2 and len(value) <= 1024:
            return [_plain(key, one, deep + 1) for one in value]
        case dict() if deep < 2 and len(value) <= 32 and all(map(_WORD.fullmatch, value)):
            return {name: _plain(key, one, deep + 1) for name, one in value.items()}
    raise _refused(key, f"{str(value)[:60]!r} is no plain value")


def _compare(keys: dict[str, Any], shape: LlmShape, context: int) -> None:
    """The manifest's shape decides what a host sets aside, so the configuration may not say otherwise."""
    heads = keys.get("num_attention_heads")
    stated = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
    }
    derived = {"num_key_value_heads": heads, "head_dim": shape.hidden // shape.heads}
    for key, value in stated.items():
        found = keys.get(key)
        if (derived.get(key) if found is None else found) != value:
            raise _refused(key, f"it is {found}, and the manifest says {value}")
    inner, positions = keys.get("intermediate_size"), keys.get("max_position_embeddings")
    if type(inner) is not int or not 1 <= inner <= 64 * shape.hidden:
        raise _refused("intermediate_size", f"{inner} is out of all proportion")
    if not isinstance(positions, int) or positions < context:
        raise _refused("max_position_embeddings", f"it is {positions}, and the agent's context is {context}")


def _refused(key: str, why: str) -> EngineError:
    return EngineError("invalid_package", f"config.json is refused for its key {key!r}: {why}.")
