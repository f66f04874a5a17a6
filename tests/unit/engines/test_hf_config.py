"""config.json: every key is taken over, known to be idle, or the reason for a refusal that names it."""

import json
from typing import Any

import pytest

from integration.engines.tiny_torch import CONFIG, SHAPE
from lading_node.engines.errors import EngineError
from lading_node.engines.hf_config import ARCHITECTURES, HfConfig, read_config


def read(changes: dict[str, Any], context: int = 256) -> HfConfig:
    return read_config(json.dumps(CONFIG | changes).encode(), SHAPE, context)


def test_only_what_a_forward_pass_needs_is_taken() -> None:
    found = read({"_name_or_path": "somebody/model", "use_cache": True, "rope_scaling": {"rope_type": "llama3"}})
    assert found.model_type == "llama"
    assert found.keys["rope_scaling"] == {"rope_type": "llama3"}
    assert not found.keys.keys() & {"_name_or_path", "architectures", "model_type", "torch_dtype", "use_cache"}


REFUSED = [
    ("auto_map", {"AutoModelForCausalLM": "somebody/model--modeling.Evil"}, "name code"),
    ("custom_pipelines", {"text-generation": {"impl": "evil.Pipeline"}}, "name code"),
    ("quantization_config", {"quant_method": "custom"}, "name code"),
    ("attn_implementation", "somebody/kernels", "name code"),
    ("_attn_implementation", "eager", "name code"),
    ("trust_remote_code", True, "name code"),
    ("attention_logit_cap", 50.0, "does not know"),
    ("architectures", ["EvilForCausalLM"], "EvilForCausalLM"),
    ("architectures", [], "one architecture"),
    ("architectures", "LlamaForCausalLM", "one architecture"),
    ("architectures", [["LlamaForCausalLM"]], "none of"),
    ("model_type", "mistral", "must be 'llama'"),
    ("model_type", None, "must be 'llama'"),
    ("hidden_act", "__import__('os')", "no plain value"),
    ("hidden_act", "../../evil", "no plain value"),
    ("hidden_act", "silu" * 20, "no plain value"),
    ("rope_theta", 1e300, "no plain value"),
    ("rope_scaling", {"rope_type": {"a": {"b": 1}}}, "no plain value"),
    ("rope_scaling", {f"k{i}": 1 for i in range(40)}, "no plain value"),
    ("layer_types", [1] * 2000, "no plain value"),
    ("vocab_size", 2**31, "manifest says 320"),
    ("vocab_size", "320", "manifest says 320"),
    ("num_hidden_layers", 500, "manifest says 2"),
    ("num_key_value_heads", None, "manifest says 2"),
    ("head_dim", 64, "manifest says 16"),
    ("intermediate_size", 2**31, "out of all proportion"),
    ("intermediate_size", True, "out of all proportion"),
    ("max_position_embeddings", 128, "context is 256"),
]


@pytest.mark.parametrize(("key", "value", "words"), REFUSED)
def test_a_key_that_is_not_plainly_right_refuses_the_package(key: str, value: Any, words: str) -> None:
    with pytest.raises(EngineError) as caught:
        read({key: value})
    assert caught.value.failure == "invalid_package"
    assert repr(key) in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 100_000, "does not read"),
        (b"[]", "does not read"),
        (b'{"a": NaN}', "does not read"),
        (b"\xff\xfe", "does not read"),
        (b'{"a": "' + b"a" * (1 << 18) + b'"}', "over the limit"),
    ],
)
def test_what_is_no_small_object_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        read_config(data, SHAPE, 256)


def test_every_architecture_is_known_by_one_name() -> None:
    assert len(set(ARCHITECTURES.values())) == len(ARCHITECTURES)
