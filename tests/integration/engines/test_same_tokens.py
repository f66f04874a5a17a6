"""One model, two engines: at f32 the same greedy tokens, and sampled tokens that the other engine's audit passes."""

from pathlib import Path

import numpy as np
import pytest

from integration.engines import chat_agents, tiny_torch
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel, margins
from lading_protocol.audit import TOLERANCES

PROMPTS, TOKENS = 80, 40
LIMIT = TOLERANCES["onnx-f32-cpu"].margin


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, LanguageModel]:
    tiny_torch.require_torch()
    scratch = tmp_path_factory.mktemp("scratch")
    torch = language_model(chat_agents.torch_chat(tmp_path_factory.mktemp("hf")), scratch)
    return torch, language_model(chat_agents.onnx_chat(), scratch)


def test_greedy_tokens_are_equal(models: tuple[LanguageModel, LanguageModel]) -> None:
    from chat_recipe import measure

    how = measure.sampler(0, 0.0)
    asks = chat_agents.prompts(PROMPTS)
    assert len({tuple(ask) for ask in asks}) > PROMPTS * 0.9
    torch, onnx = ([measure.answer(model, ask, how, TOKENS) for ask in asks] for model in models)
    assert sum(map(len, torch)) > PROMPTS * TOKENS / 2
    assert [at for at, (a, b) in enumerate(zip(torch, onnx, strict=True)) if a != b] == []


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_tokens_pass_the_audit_of_the_other_engine(
    models: tuple[LanguageModel, LanguageModel], temperature: float
) -> None:
    from chat_recipe import measure

    torch, onnx = models
    for n, ask in enumerate(chat_agents.prompts(8)):
        how = measure.sampler(n, temperature)
        for host, auditor in ((torch, onnx), (onnx, torch)):
            assert max(margins(auditor, ask, measure.answer(host, ask, how, 60), 0, how)) < LIMIT / 10


def test_logits_are_those_of_the_other_engine(models: tuple[LanguageModel, LanguageModel]) -> None:
    torch, onnx = models
    for ask in chat_agents.prompts(20):
        assert np.abs(torch.rows(ask, len(ask)) - onnx.rows(ask, len(ask))).max() < LIMIT / 100


def test_the_folder_is_made_of_the_committed_file_alone(tmp_path: Path) -> None:
    """And so has the same bytes wherever it is made."""
    first, second = (chat_agents.torch_chat(tmp_path / name) for name in ("a", "b"))
    assert [file.digest for file in first.files] == [file.digest for file in second.files]
