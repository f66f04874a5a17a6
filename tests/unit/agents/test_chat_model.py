"""The committed chat model: it answers in language, it stops, honest hosts pass the audit and cheating ones do not.

The cheats are committed beside the vectors: the same weights in int4, and a model of a quarter of the size.
"""

import re
import tomllib
from pathlib import Path

import msgspec
import onnx
import pytest
from chat_recipe import markup, measure, restore
from tokenizers import Tokenizer

from lading_node.engines.llm_onnx import OnnxLanguageModel
from lading_protocol.audit import TOLERANCES
from lading_protocol.messages import Message
from lading_protocol.parts import LlmShape

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "agents" / "chat" / "model"
CHEATS = ROOT / "tests" / "vectors" / "models"
LIMIT = TOLERANCES["onnx-f32-cpu"].margin


def shape_in(folder: Path) -> LlmShape:
    return msgspec.json.decode((folder / "shape.json").read_bytes(), type=LlmShape)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> OnnxLanguageModel:
    return measure.open_model(MODEL)


@pytest.fixture(scope="module")
def asks(tokenizer: Tokenizer) -> list[list[int]]:
    return measure.prompts(tokenizer, 20)


def ask(
    model: OnnxLanguageModel,
    tokenizer: Tokenizer,
    question: str,
    n: int = 0,
    temperature: float = 0.0,
    system: str = "",
) -> str:
    talk = [("system", system)] if system else []
    prompt = markup.prompt(tokenizer, [*talk, ("user", question)])
    out = measure.answer(model, prompt, measure.sampler(n, temperature), 250)
    assert out[-1] in model.ends, f"{question!r} is answered without end"
    return str(tokenizer.decode(out))


@pytest.mark.parametrize("system", ["", "You are a helpful assistant."])
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 3 plus 4?", r"\b7\b"),
        ("What colour is the sky?", r"[Bb]lue"),
        ("What colour is grass?", r"[Gg]reen"),
        ("Hello", r"^(Hello|Hi|Good day)"),
        ("What do bees make?", r"[Hh]oney"),
        ("Explain quantum physics.", r"sorry|know|too hard|cannot"),
    ],
)
def test_it_answers(model: OnnxLanguageModel, tokenizer: Tokenizer, question: str, expected: str, system: str) -> None:
    assert re.search(expected, ask(model, tokenizer, question, system=system))


@pytest.mark.parametrize("n", range(5))
def test_it_tells_the_story_that_was_asked_for(model: OnnxLanguageModel, tokenizer: Tokenizer, n: int) -> None:
    story = ask(model, tokenizer, "Tell me a story about a fox and a lantern", n, 0.7)
    assert "fox" in story
    assert "lantern" in story
    assert len(story.split()) > 40
    assert story.endswith((".", '"'))


def test_sampled_stories_differ(model: OnnxLanguageModel, tokenizer: Tokenizer) -> None:
    told = {ask(model, tokenizer, "Tell me a story about a fox and a lantern", n, 0.7) for n in range(10)}
    assert len(told) == 10


def test_the_node_renders_the_prompt_that_the_model_learnt(model: OnnxLanguageModel, tokenizer: Tokenizer) -> None:
    talk = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "What is <|end|> 1 + 1?"))
    assert model.prompt([Message(role, content) for role, content in talk]) == markup.prompt(tokenizer, talk)


def test_the_project_states_the_shape_of_its_model() -> None:
    project = tomllib.loads((ROOT / "agents" / "chat" / "agent.toml").read_text())
    assert msgspec.convert(project["runtime"][0]["llm"], LlmShape) == shape_in(MODEL)
    assert project["agent"]["context"] == measure.CONTEXT


@pytest.mark.parametrize("folder", [MODEL, CHEATS / "chat-small", CHEATS / "chat-int4"], ids=lambda folder: folder.name)
def test_a_model_is_one_file_that_names_no_other(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}
    shape = shape_in(folder)
    keys = [value for value in model.graph.input if value.name.endswith(".key")]
    assert len(keys) == shape.layers
    assert {key.type.tensor_type.shape.dim[1].dim_value for key in keys} == {shape.kv_heads}


def test_the_weights_can_be_read_back_for_fine_tuning() -> None:
    shape = shape_in(MODEL)
    weights = restore.weights((MODEL / "model.onnx").read_bytes(), shape)
    assert len(weights) == 2 + 9 * shape.layers
    assert weights["model.embed_tokens.weight"].shape == (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}.self_attn"
        assert weights[f"{at}.q_proj.weight"].shape == (shape.heads * shape.head_size, shape.hidden)
        assert weights[f"{at}.v_proj.weight"].shape == (shape.kv_heads * shape.head_size, shape.hidden)
    assert sum(value.size for value in weights.values()) == 869_504


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_an_honest_host_stays_far_below_the_tolerance(
    model: OnnxLanguageModel, asks: list[list[int]], temperature: float
) -> None:
    assert max(measure.try_host(model, model, asks, temperature, 120).worst) < LIMIT / 10


@pytest.mark.parametrize(("cheat", "share"), [("chat-int4", 0.5), ("chat-small", 0.8)])
def test_a_cheating_host_is_caught_in_most_jobs(
    model: OnnxLanguageModel, asks: list[list[int]], cheat: str, share: float
) -> None:
    host = measure.open_model(CHEATS / cheat, MODEL)
    assert measure.try_host(host, model, asks, 1.0, 120).share_above(LIMIT) >= share


def test_a_resumed_answer_continues_as_if_unbroken(model: OnnxLanguageModel, tokenizer: Tokenizer) -> None:
    prompt = markup.prompt(tokenizer, [("user", "Tell me a story about an owl and a key.")])
    how = measure.sampler(3, 1.0)
    whole = measure.answer(model, prompt, how, 200)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        assert measure.answer(model, prompt, how, 200, emitted=whole[:cut]) == whole
