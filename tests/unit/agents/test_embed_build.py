"""The embedding agent's graph against an independent forward pass, on random and, if installed, real weights."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import minilm_files
import numpy as np
import onnxruntime
import pytest
from minilm_graph import OUTPUT, Shape, build
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from unit.agents.bert_reference import sentence_vector

TINY = Shape(layers=2, heads=4, hidden=32, epsilon=1e-12)
SENTENCES = (
    "A fox carries a lantern through the dark forest.",
    "At night an animal walks in the woods with a lamp.",
    "The quarterly report was filed with the tax office.",
    "Hello",
    "Stocks fell sharply on Monday after the central bank raised its interest rates by half a point.",
)


def random_weights(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    hidden, inner = TINY.hidden, 48
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{kind}_embeddings.weight": (n, hidden)
        for kind, n in (("word", 50), ("position", 16), ("token_type", 2))
    }
    dense = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
    dense |= {
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(TINY.layers):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        shapes |= {f"{at}.{name}.weight": shape for name, shape in dense.items()}
        shapes |= {f"{at}.{name}.bias": shape[:1] for name, shape in dense.items()}
    shapes |= {f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """One run over a batch that is padded to its longest row."""
    width = max(map(len, batch))
    ids = np.array([[*row, *[7] * (width - len(row))] for row in batch], np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in batch], np.int64)
    vectors: NDArray[np.float32] = model.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]
    return vectors


def test_the_graph_is_the_model_for_any_length_and_batch() -> None:
    rng = np.random.default_rng(1)
    weights = random_weights(rng)
    model = session(build(weights, TINY).SerializeToString())
    batch = [rng.integers(0, 50, length).tolist() for length in (1, 2, 5, 9, 16)]
    expected = np.array([sentence_vector(weights, row, TINY.layers, TINY.heads, TINY.epsilon) for row in batch])
    alone = np.concatenate([run(model, [row]) for row in batch])
    assert np.abs(alone - expected).max() < 1e-5
    assert np.abs(run(model, batch) - expected).max() < 1e-5, "padding must not be seen"
    assert np.abs(run(model, batch[:2] * 3) - np.tile(expected[:2], (3, 1))).max() < 1e-5


def test_what_the_engine_asks_for_by_name() -> None:
    model = session(build(random_weights(np.random.default_rng(2)), TINY).SerializeToString())
    assert [(i.name, i.type, i.shape) for i in model.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", "sequence"]),
        ("attention_mask", "tensor(int64)", ["batch", "sequence"]),
    ]
    assert [(o.name, o.type, o.shape) for o in model.get_outputs()] == [
        (OUTPUT, "tensor(float)", ["batch", TINY.hidden])
    ]


def test_the_same_weights_give_the_same_bytes() -> None:
    first, second = (
        build(random_weights(np.random.default_rng(3)), TINY).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(minilm_files.BuildError, match="hidden_act"):
        minilm_files.shape_of({"model_type": "bert", "hidden_act": "relu"})


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(minilm_files.BuildError, match="digest"):
        minilm_files.model_bytes(tmp_path)


def test_the_tokenizer_loses_its_padding_and_truncation(tmp_path: Path) -> None:
    saved = {"padding": {"strategy": {"Fixed": 128}}, "truncation": {"max_length": 128}, "model": {"type": "WordPiece"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    plain = json.loads(minilm_files.tokenizer_bytes(tmp_path))
    assert plain == {"padding": None, "truncation": None, "model": {"type": "WordPiece"}}


@pytest.fixture(scope="module")
def source() -> Path:
    try:
        return minilm_files.source_folder()
    except minilm_files.BuildError as missing:
        pytest.skip(str(missing))


def test_the_real_model(source: Path) -> None:
    data = minilm_files.model_bytes(source)
    assert len(data) < 100_000_000
    model = session(data)
    tokenizer = Tokenizer.from_buffer(minilm_files.tokenizer_bytes(source))
    batch = [tokenizer.encode(text).ids for text in SENTENCES]
    shape = minilm_files.shape_of(json.loads((source / "config.json").read_bytes()))
    weights = load_file(source / "model.safetensors")
    expected = np.array([sentence_vector(weights, row, shape.layers, shape.heads, shape.epsilon) for row in batch])
    for vectors in (run(model, batch), np.concatenate([run(model, [row]) for row in batch])):
        assert np.abs(vectors - expected).max() < 1e-5
        likeness = vectors @ vectors.T
        assert likeness[0, 1] > 0.4 > 0.2 > likeness[0, 2], "two ways to say one thing are nearer than two things"
