"""A tiny random Llama as ONNX, its tokenizer and chat markup: an agent made in a second, with nothing to download.

Random weights have flat logits, so sampling, resuming and text handling are stressed more than by a trained model.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.parts import LlmShape


class Size(NamedTuple):
    layers: int
    heads: int
    kv_heads: int
    head: int
    hidden: int
    mlp: int
    context: int
    vocab: int


TINY = Size(layers=2, heads=4, kv_heads=2, head=16, hidden=64, mlp=128, context=256, vocab=320)
# As large as the chat agent that the project ships.
CHAT = Size(layers=4, heads=4, kv_heads=2, head=32, hidden=128, mlp=384, context=1024, vocab=1024)
SPECIAL = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEXT = ["The fox carries a small lantern over the river. Füchse tragen Laternen. 狐は灯りを運ぶ。 🦊🏮"] * 4
MARKUP = {
    "bos": "<|bos|>",
    "end": "<|end|>",
    "roles": {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"},
}
JINJA = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' ~ message.role ~ '|>' ~ message.content ~ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> Tokenizer:
    """Byte-level BPE with all 256 bytes: random tokens are often halves of characters."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def model(size: Size = TINY, seed: int = 1) -> onnx.ModelProto:
    """Grouped-query attention with rotary positions, the operators that genai's own exporter writes."""
    rng = np.random.default_rng(seed)
    initializers: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int, scale: float = 0.0) -> str:
        values = rng.normal(size=shape) * (scale or shape[0] ** -0.5)
        initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def constant(name: str, values: NDArray[np.generic]) -> str:
        initializers.append(numpy_helper.from_array(values, name))
        return name

    def op(kind: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def norm(name: str, x: str) -> str:
        scale = constant(f"{name}.scale", np.ones(size.hidden, np.float32))
        return op("SimplifiedLayerNormalization", [x, scale], [f"{name}.out"], epsilon=1e-5, axis=-1, stash_type=1)

    def times(name: str, x: str, rows: int, columns: int) -> str:
        return op("MatMul", [x, weight(name, rows, columns)], [f"{name}.out"])

    angles = np.outer(np.arange(size.context), 10000.0 ** (-np.arange(0, size.head, 2) / size.head))
    cos = constant("cos", np.cos(angles).astype(np.float32))
    sin = constant("sin", np.sin(angles).astype(np.float32))
    summed = op("ReduceSum", ["attention_mask", constant("one", np.array([1]))], ["mask.sum"], keepdims=1)
    lengths = op("Sub", [summed, "one"], ["mask.last"])
    lengths = op("Cast", [lengths], ["seqlens"], to=TensorProto.INT32)
    total = op("Gather", [op("Shape", ["attention_mask"], ["mask.shape"]), constant("axis", np.array(1))], ["total64"])
    total = op("Cast", [total], ["total"], to=TensorProto.INT32)

    x = op("Gather", [weight("embed", size.vocab, size.hidden, scale=1.0), "input_ids"], ["x0"])
    for i in range(size.layers):
        h = norm(f"l{i}.norm1", x)
        q = times(f"l{i}.q", h, size.hidden, size.heads * size.head)
        k = times(f"l{i}.k", h, size.hidden, size.kv_heads * size.head)
        v = times(f"l{i}.v", h, size.hidden, size.kv_heads * size.head)
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        attended = op(
            "GroupQueryAttention",
            [q, k, v, *past, lengths, total, cos, sin],
            [f"l{i}.attended", f"present.{i}.key", f"present.{i}.value"],
            domain="com.microsoft",
            num_heads=size.heads,
            kv_num_heads=size.kv_heads,
            do_rotary=1,
        )
        x = op("Add", [x, times(f"l{i}.o", attended, size.heads * size.head, size.hidden)], [f"l{i}.x1"])
        h = norm(f"l{i}.norm2", x)
        up = times(f"l{i}.up", h, size.hidden, size.mlp)
        gated = op("Mul", [up, op("Sigmoid", [up], [f"l{i}.gate"])], [f"l{i}.gated"])
        x = op("Add", [x, times(f"l{i}.down", gated, size.mlp, size.hidden)], [f"l{i}.x2"])
    x = norm("last", x)
    op("MatMul", [x, weight("head", size.hidden, size.vocab)], ["logits"])

    def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(shape))

    def cache(prefix: str, length: str) -> list[onnx.ValueInfoProto]:
        names = [f"{prefix}.{i}.{part}" for i in range(size.layers) for part in ("key", "value")]
        return [value(name, TensorProto.FLOAT, "batch", size.kv_heads, length, size.head) for name in names]

    graph = helper.make_graph(
        nodes,
        "tiny_llama",
        [
            value("input_ids", TensorProto.INT64, "batch", "sequence"),
            value("attention_mask", TensorProto.INT64, "batch", "total"),
            *cache("past_key_values", "past"),
        ],
        [value("logits", TensorProto.FLOAT, "batch", "sequence", size.vocab), *cache("present", "total")],
        initializers,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def _file(folder: Path, role: str, name: str, data: bytes) -> AgentFile:
    path = folder / name
    path.write_bytes(data)
    return AgentFile(role, str(path), hashlib.sha256(data).digest())


def write_chat(folder: Path, *, jinja: bool = False, seed: int = 1, size: Size = TINY) -> EngineSpec:
    """Ids beyond the tokenizer's stand for no text, as in models whose vocabulary is padded."""
    words = tokenizer()
    template = ("template.jinja", JINJA.encode()) if jinja else ("chat.json", json.dumps(MARKUP).encode())
    files = (
        _file(folder, "model", "model.onnx", model(size, seed).SerializeToString()),
        _file(folder, "tokenizer", "tokenizer.json", words.to_str().encode()),
        _file(folder, "chat_template", *template),
    )
    shape = LlmShape(size.layers, size.heads, size.kv_heads, size.head, size.hidden, size.vocab, (1,), bos=0, pad=1)
    return EngineSpec("llm-onnx", files, shape, size.context)


def write_embedder(folder: Path, width: int = 24) -> EngineSpec:
    """Token vectors from a table, squashed; the engine averages and scales them."""
    words = tokenizer()
    rng = np.random.default_rng(3)
    table = numpy_helper.from_array(rng.normal(size=(words.get_vocab_size(), width)).astype(np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Tanh", ["rows"], ["token_vectors"]),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    out = helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["batch", "sequence", width])
    graph = helper.make_graph(nodes, "tiny_embedder", ids, [out], [table])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    files = (
        _file(folder, "model", "model.onnx", made.SerializeToString()),
        _file(folder, "tokenizer", "tokenizer.json", words.to_str().encode()),
    )
    return EngineSpec("onnx", files, None, 64)
