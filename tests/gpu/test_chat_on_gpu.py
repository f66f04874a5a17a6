"""An honest host on a GPU is never guilty: its logits and its sampled tokens agree with an auditor on a CPU."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from integration.engines import chat_agents
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel, margins
from lading_protocol.audit import TOLERANCES

LIMIT = TOLERANCES["onnx-f32-cpu"].margin
Host = Callable[[str], LanguageModel]


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return language_model(chat_agents.onnx_chat(), tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def host(device: str, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The torch engine on the GPU, by precision."""
    spec = msgspec.structs.replace(chat_agents.torch_chat(tmp_path_factory.mktemp("hf")), device=True)
    return lambda precision: language_model(msgspec.structs.replace(spec, precision=precision), Path())


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return chat_agents.prompts(20)


def worst_margin(model: LanguageModel, auditor: LanguageModel, prompts: list[list[int]], temperature: float) -> float:
    from chat_recipe import measure

    worst = 0.0
    for n, prompt in enumerate(prompts):
        how = measure.sampler(n, temperature)
        worst = max(worst, *margins(auditor, prompt, measure.answer(model, prompt, how, 100), 0, how))
    return worst


def test_f32_logits_on_the_gpu_are_those_of_the_cpu(
    host: Host, device: str, auditor: LanguageModel, prompts: list[list[int]]
) -> None:
    model = host("f32")
    assert model.version.endswith(f" torch-f32-{device}")
    for prompt in prompts:
        assert np.abs(model.rows(prompt, len(prompt)) - auditor.rows(prompt, len(prompt))).max() < LIMIT / 20


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_an_honest_gpu_host_passes_the_audit(
    host: Host, auditor: LanguageModel, prompts: list[list[int]], temperature: float
) -> None:
    assert worst_margin(host("f32"), auditor, prompts, temperature) < LIMIT / 10


def test_half_precision_is_another_class_and_is_seen(
    host: Host, auditor: LanguageModel, prompts: list[list[int]]
) -> None:
    """The same weights at half must be declared as such: they lie further behind than any f32 host. (f16 has three bits
    more, and takes the states to be seen: test_audits_on_gpu.)"""
    assert worst_margin(host("bf16"), auditor, prompts, 1.0) > LIMIT / 10
