"""An honest host on a GPU is never guilty: its logits and its sampled tokens agree with an auditor on a CPU."""

from pathlib import Path

import numpy as np
import pytest
from chat_recipe import measure
from tokenizers import Tokenizer

from lading_node.engines.llm_onnx import OnnxLanguageModel
from lading_node.engines.model import margins
from lading_protocol.audit import TOLERANCES

MODEL = Path(__file__).parents[2] / "agents" / "chat" / "model"
LIMIT = TOLERANCES["onnx-f32-cpu"].margin


@pytest.fixture(scope="module")
def auditor() -> OnnxLanguageModel:
    return measure.open_model(MODEL)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return measure.prompts(Tokenizer.from_file(str(MODEL / "tokenizer.json")), 20)


def worst_margin(
    device: str, dtype: str, auditor: OnnxLanguageModel, prompts: list[list[int]], temperature: float
) -> float:
    import torch

    from gpu.torch_host import TorchHost

    host = TorchHost(MODEL, device, getattr(torch, dtype))
    worst = 0.0
    for n, prompt in enumerate(prompts):
        how = measure.sampler(n, temperature)
        worst = max(worst, *margins(auditor, prompt, host.answer(prompt, how, 100), 0, how))
    return worst


def test_f32_logits_on_the_gpu_are_those_of_the_cpu(
    device: str, auditor: OnnxLanguageModel, prompts: list[list[int]]
) -> None:
    from gpu.torch_host import TorchHost

    host = TorchHost(MODEL, device)
    for prompt in prompts:
        assert np.abs(host.logits(prompt) - auditor.rows(prompt, len(prompt))).max() < LIMIT / 20


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_an_honest_gpu_host_passes_the_audit(
    device: str, auditor: OnnxLanguageModel, prompts: list[list[int]], temperature: float
) -> None:
    assert worst_margin(device, "float32", auditor, prompts, temperature) < LIMIT / 10


def test_bf16_is_another_class_and_is_seen(device: str, auditor: OnnxLanguageModel, prompts: list[list[int]]) -> None:
    """bf16 of the same weights must be declared as such: it lies further behind than any f32 host."""
    assert worst_margin(device, "bfloat16", auditor, prompts, 1.0) > LIMIT / 10
