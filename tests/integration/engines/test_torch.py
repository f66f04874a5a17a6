"""The torch engine in this process: what it computes, and every package that it refuses before it computes.

How it serves is the conformance suite's business. Importing torch takes seconds, so nothing here starts a process.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from integration.engines import tiny_torch
from integration.engines.tiny_torch import Weights, config, shard, weights
from lading_node.engines.errors import EngineError
from lading_node.engines.load import language_model
from lading_node.engines.model import Logits
from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.messages import Message

replace = msgspec.structs.replace
IDS = [0, 3, 7, 290, 12, 8, 4, 100, 55, 200, 31, 9]


@pytest.fixture(scope="module")
def torch() -> Any:
    tiny_torch.require_torch()
    import torch

    return torch


@pytest.fixture
def good(torch: Any, tmp_path: Path) -> EngineSpec:
    return tiny_torch.write_chat(tmp_path)


def rows(spec: EngineSpec) -> Logits:
    return language_model(spec, Path()).rows(IDS, len(IDS))


def swap(spec: EngineSpec, role: str, *files: AgentFile) -> EngineSpec:
    return replace(spec, files=(*(file for file in spec.files if file.role != role), *files))


def refusal(spec: EngineSpec) -> EngineError:
    with pytest.raises(EngineError) as caught:
        language_model(spec, Path())
    assert "\n" not in caught.value.message
    return caught.value


def test_decoding_step_by_step_gives_the_rows_of_one_prefill(good: EngineSpec) -> None:
    model = language_model(good, Path())
    whole = model.rows(IDS, len(IDS))
    context = model.open(IDS[:4], len(IDS))
    for at in range(3, len(IDS)):
        assert np.abs(context.logits() - whole[at]).max() < 2e-5
        if at + 1 < len(IDS):
            context.append(IDS[at + 1])
    assert np.abs(model.rows(IDS, 3) - whole[-3:]).max() < 2e-5


def test_shards_in_any_order_are_one_model(good: EngineSpec, tmp_path: Path) -> None:
    every = weights()
    names = sorted(every, reverse=True)
    shards = [shard(tmp_path, f"model-{i}.safetensors", {name: every[name] for name in names[i::3]}) for i in range(3)]
    index = tiny_torch.file(tmp_path, "config", "model.safetensors.index.json", b'{"weight_map": {"lies": "/etc"}}')
    split = swap(good, "weights", *shards)
    assert np.array_equal(rows(replace(split, files=(*split.files, index))), rows(good))


def test_the_declared_precision_is_the_one_that_runs(good: EngineSpec) -> None:
    exact, halved = rows(good), rows(replace(good, precision="bf16"))
    apart = np.abs(exact - halved).max()
    assert 1e-3 < apart < 0.5
    assert refusal(replace(good, precision="int4")).failure == "invalid_package"
    assert refusal(replace(good, precision="f16")).failure == "engine_error"


def test_an_engine_that_computes_in_another_class_than_the_offer_names_does_not_load(good: EngineSpec) -> None:
    language_model(replace(good, numeric="torch-f32-cpu"), Path())
    language_model(replace(good, numeric="torch-of-my-own"), Path())
    for named in ("torch-f32-cuda", "torch-bf16-cpu"):
        refused = refusal(replace(good, numeric=named))
        assert refused.failure == "engine_error"
        assert named in refused.message


def test_half_precision_files_are_read_as_numbers(good: EngineSpec, tmp_path: Path) -> None:
    halved = {name: value.astype(np.float16) for name, value in weights().items()}
    whole = {name: value.astype(np.float32) for name, value in halved.items()}
    found = [
        rows(swap(good, "weights", shard(tmp_path, f"{kind}.safetensors", tensors)))
        for kind, tensors in (("half", halved), ("whole", whole))
    ]
    assert np.array_equal(*found)


@pytest.mark.parametrize("architecture", tiny_torch.KINDS)
def test_every_architecture_computes_what_its_library_does(torch: Any, tmp_path: Path, architecture: str) -> None:
    """A folder as the library itself writes it, run from our reading of its files."""
    spec, theirs = tiny_torch.write_architecture(tmp_path, architecture)
    with torch.inference_mode():
        expected = theirs(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(rows(spec) - expected).max() < 1e-5


def lora(folder: Path, tensors: Weights, **changes: Any) -> tuple[AgentFile, AgentFile]:
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "lora_dropout": 0.1}
    text = json.dumps(stated | changes).encode()
    return shard(folder, "adapter_model.safetensors", tensors, "adapter"), tiny_torch.file(
        folder, "config", "adapter_config.json", text
    )


def pair(name: str, rank: int = 4, seed: int = 5) -> Weights:
    rng = np.random.default_rng(seed)
    rows, columns = weights()[f"{name}.weight"].shape
    return {
        f"base_model.model.{name}.lora_A.weight": rng.normal(size=(rank, columns)).astype(np.float32) * 0.1,
        f"base_model.model.{name}.lora_B.weight": rng.normal(size=(rows, rank)).astype(np.float32) * 0.1,
    }


PLACE = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"use_dora": False}, 2.0)])
def test_an_adapter_is_added_into_the_weights(
    good: EngineSpec, tmp_path: Path, changes: dict[str, Any], scale: float
) -> None:
    a, b = pair(PLACE).values()
    merged = weights()
    merged[f"{PLACE}.weight"] = merged[f"{PLACE}.weight"] + np.float32(scale) * (b @ a)
    by_hand = swap(good, "weights", shard(tmp_path, "merged.safetensors", merged))
    adapted = replace(good, files=(*good.files, *lora(tmp_path, pair(PLACE), **changes)))
    assert np.abs(rows(adapted) - rows(by_hand)).max() < 1e-5
    assert np.abs(rows(adapted) - rows(good)).max() > 1e-3


ADAPTERS: dict[str, tuple[Weights, dict[str, Any]]] = {
    "use_dora": (pair(PLACE), {"use_dora": True}),
    "modules_to_save": (pair(PLACE), {"modules_to_save": ["lm_head"]}),
    "auto_mapping": (pair(PLACE), {"auto_mapping": {"base_model_class": "Evil"}}),
    "IA3": (pair(PLACE), {"peft_type": "IA3"}),
    "rank": (pair(PLACE), {"r": 0}),
    "alpha": (pair(PLACE), {"lora_alpha": "8"}),
    "do not fit": (pair(PLACE, rank=3), {}),
    "does not have": ({key.replace("q_proj", "x_proj"): value for key, value in pair(PLACE).items()}, {}),
    "one matrix only": (dict(list(pair(PLACE).items())[:1]), {}),
    "lora_magnitude_vector": ({f"base_model.model.{PLACE}.lora_magnitude_vector": np.ones(3, np.float32)}, {}),
}


@pytest.mark.parametrize("words", ADAPTERS)
def test_an_adapter_that_is_not_plain_is_refused(good: EngineSpec, tmp_path: Path, words: str) -> None:
    tensors, changes = ADAPTERS[words]
    error = refusal(replace(good, files=(*good.files, *lora(tmp_path, tensors, **changes))))
    assert error.failure == "invalid_package"
    assert words in error.message


def test_an_adapter_without_its_numbers_is_refused(good: EngineSpec, tmp_path: Path) -> None:
    adapter, _ = lora(tmp_path, pair(PLACE))
    assert "0 files adapter_config.json" in refusal(replace(good, files=(*good.files, adapter))).message


def test_packages_that_do_not_load_say_why(good: EngineSpec, tmp_path: Path) -> None:
    every = weights()
    lacking = {name: value for name, value in every.items() if "mlp" not in name}
    more = every | {"model.layers.9.extra.weight": np.ones(3, np.float32)}
    wide = every | {"model.norm.weight": np.ones(65, np.float32)}
    pickle = tiny_torch.file(tmp_path, "weights", "pytorch_model.bin", b"PK\x03\x04 archive/data.pkl" + bytes(80))
    whole = good.files[0]
    altered = replace(whole, digest=bytes(32))
    assert good.llm is not None
    huge = replace(good.llm, layers=8, hidden=65536, heads=1024, head_size=64, vocab=2**22, kv_heads=1024)
    sizes = {"num_hidden_layers": 8, "hidden_size": 65536, "num_attention_heads": 1024, "vocab_size": 2**22}
    (tmp_path / "bomb").mkdir()
    bomb = config(tmp_path / "bomb", sizes | {"num_key_value_heads": 1024, "intermediate_size": 64 * 65536})
    cases = {
        "and 5 more": swap(good, "weights", shard(tmp_path, "lacking.safetensors", lacking)),
        "has no 'model.layers.9.extra.weight'": swap(good, "weights", shard(tmp_path, "more.safetensors", more)),
        "has the shape (65,)": swap(good, "weights", shard(tmp_path, "wide.safetensors", wide)),
        "stands in them twice": swap(good, "weights", whole, whole),
        "is a pickle": swap(good, "weights", pickle),
        "is missing": swap(good, "weights"),
        "not the file that the manifest names": swap(good, "weights", altered),
        "0 files of the role 'config'": swap(good, "config"),
        "has the shape (320, 64)": replace(swap(good, "config", bomb), llm=huge),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for words, spec in cases.items():
        error = refusal(spec)
        assert (error.failure, words in error.message) == ("invalid_package", True), error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10, "a refusal takes no memory"


def test_numbers_that_the_library_chokes_on_are_the_packages_fault(good: EngineSpec, tmp_path: Path) -> None:
    for changes in ({"hidden_act": "no_such"}, {"rms_norm_eps": "abc"}, {"rope_theta": [1, 2]}):
        error = refusal(swap(good, "config", config(tmp_path, changes)))
        assert error.failure == "invalid_package", error


def test_an_endless_template_ends_at_its_deadline(good: EngineSpec, tmp_path: Path) -> None:
    text = b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    looping = swap(good, "chat_template", tiny_torch.file(tmp_path, "chat_template", "chat.jinja", text))
    model = language_model(looping, Path())
    with pytest.raises(EngineError) as caught:
        model.prompt([Message("user", "Hi")])
    assert caught.value.failure == "agent_error"


def test_the_library_looks_for_nothing_outside() -> None:
    """In a process of its own, as an engine is: the library reads its settings once, when it is first imported."""
    tiny_torch.require_torch()
    program = """
import lading_node.engines.torch_lm
from huggingface_hub import constants
from transformers.utils import hub
assert constants.HF_HUB_OFFLINE and constants.HF_HUB_DISABLE_TELEMETRY and hub.is_offline_mode()
"""
    loud = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    subprocess.run([sys.executable, "-c", program], env=loud, check=True, timeout=120)


def test_a_folder_that_peers_wrote_is_read_as_its_library_reads_it(good: EngineSpec, tmp_path: Path) -> None:
    """The tiny weights themselves are what safetensors reads from the same file."""
    path = Path(good.files[0].path)
    assert {name: value.tobytes() for name, value in load_file(path).items()} == {
        name: value.tobytes() for name, value in weights().items()
    }
