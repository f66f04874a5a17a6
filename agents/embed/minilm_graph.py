"""A BERT sentence encoder as an ONNX graph, written node by node from its weights.

Owns the graph: embeddings, layers, mean over the unmasked tokens, length 1. Pure: arrays in, a ModelProto out, the
same bytes for the same weights. Needs no torch, and knows no file and no package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

OPSET = 20  # the first with Gelu
IR = 10
OUTPUT = "sentence_vector"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    layers: int
    heads: int
    hidden: int
    epsilon: float


def build(weights: Mapping[str, Floats], shape: Shape) -> onnx.ModelProto:
    """The model with inputs input_ids and attention_mask (int64, batch x sequence) and output sentence_vector.

    `weights` carries the names of a Hugging Face BertModel. Positions beyond its position table make a run fail.
    """
    graph = _Graph(weights, shape)
    mask = graph.node("Cast", "attention_mask", name="mask", to=TensorProto.FLOAT)
    states = graph.embed("input_ids")
    blocked = graph.blocked(mask)
    for layer in range(shape.layers):
        states = graph.layer(f"encoder.layer.{layer}", states, blocked)
    graph.pool(states, mask)
    return graph.model()


class _Graph:
    """Nodes and initialisers in the order in which they were asked for. Values are named after what they hold."""

    def __init__(self, weights: Mapping[str, Floats], shape: Shape) -> None:
        self._weights = weights
        self._shape = shape
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"{name}/{op}", **attributes))
        return name

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        if name not in self._tensors:
            tensor = onnx.numpy_helper.from_array(np.asarray(value, order="C"), name)
            self._tensors[name] = tensor
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number_{value!r}", np.array(value, np.float32))

    def whole(self, *values: int) -> str:
        return self.constant("whole_" + "_".join(map(str, values)), np.array(values, np.int64))

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def norm(self, states: str, at: str) -> str:
        scale, bias = self.weight(f"{at}.weight"), self.weight(f"{at}.bias")
        return self.node(
            "LayerNormalization", states, scale, bias, name=f"{at}/out", axis=-1, epsilon=self._shape.epsilon
        )

    def linear(self, states: str, *parts: str, name: str) -> str:
        """states @ W^T + b; several layers that read the same states become one multiplication."""
        matrix = np.concatenate([self._weights[f"{part}.weight"] for part in parts]).T
        bias = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        product = self.node("MatMul", states, self.constant(f"{name}.weight", matrix), name=f"{name}/product")
        return self.node("Add", product, self.constant(f"{name}.bias", bias), name=f"{name}/out")

    def embed(self, ids: str) -> str:
        words = self.node("Gather", self.weight("embeddings.word_embeddings.weight"), ids, name="words")
        # Every token is of type 0, so its type vector goes with the positions.
        places = (
            self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][:1]
        )
        length = self.node("Shape", ids, name="length", start=1, end=2)
        near = self.node(
            "Slice", self.constant("positions", places), self.whole(0), length, self.whole(0), name="places"
        )
        return self.norm(self.node("Add", words, near, name="placed_words"), "embeddings.LayerNorm")

    def blocked(self, mask: str) -> str:
        """What to add to attention scores: 0 for a token, the lowest float for padding; batch x 1 x 1 x sequence."""
        absent = self.node("Sub", self.number(1.0), mask, name="absent")
        lowest = self.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
        return self.node(
            "Unsqueeze", self.node("Mul", absent, lowest, name="weight_of_absence"), self.whole(1, 2), name="blocked"
        )

    def layer(self, at: str, states: str, blocked: str) -> str:
        attended = self.attention(f"{at}.attention", states, blocked)
        inner = self.linear(attended, f"{at}.intermediate.dense", name=f"{at}.intermediate.dense")
        inner = self.node("Gelu", inner, name=f"{at}.intermediate/gelu")
        outer = self.linear(inner, f"{at}.output.dense", name=f"{at}.output.dense")
        return self.norm(self.node("Add", outer, attended, name=f"{at}.output/sum"), f"{at}.output.LayerNorm")

    def attention(self, at: str, states: str, blocked: str) -> str:
        heads, hidden = self._shape.heads, self._shape.hidden
        size = hidden // heads
        mixed = self.linear(states, *(f"{at}.self.{part}" for part in ("query", "key", "value")), name=f"{at}.self.qkv")
        # batch x sequence x (3 x heads x size) -> 3 x batch x heads x sequence x size
        split = self.node("Reshape", mixed, self.whole(0, 0, 3, heads, size), name=f"{at}/split")
        turned = self.node("Transpose", split, name=f"{at}/turned", perm=[2, 0, 3, 1, 4])
        query, key, value = (
            self.node("Gather", turned, self.constant(f"pick_{i}", np.array(i, np.int64)), name=f"{at}/{part}", axis=0)
            for i, part in enumerate(("query", "key", "value"))
        )
        key = self.node("Transpose", key, name=f"{at}/key_turned", perm=[0, 1, 3, 2])
        scores = self.node("MatMul", query, key, name=f"{at}/scores")
        scaled = self.node("Mul", scores, self.number(float(np.float32(size**-0.5))), name=f"{at}/scaled")
        masked = self.node("Add", scaled, blocked, name=f"{at}/masked")
        shares = self.node("Softmax", masked, name=f"{at}/shares", axis=-1)
        seen = self.node("MatMul", shares, value, name=f"{at}/seen")
        joined = self.node("Transpose", seen, name=f"{at}/joined", perm=[0, 2, 1, 3])
        flat = self.node("Reshape", joined, self.whole(0, 0, hidden), name=f"{at}/flat")
        out = self.linear(flat, f"{at}.output.dense", name=f"{at}.output.dense")
        return self.norm(self.node("Add", out, states, name=f"{at}.output/sum"), f"{at}.output.LayerNorm")

    def pool(self, states: str, mask: str) -> None:
        """Mean over the tokens that the mask keeps, then length 1 (Reimers and Gurevych, 2019)."""
        column = self.node("Unsqueeze", mask, self.whole(2), name="mask_column")
        kept = self.node("Mul", states, column, name="kept_states")
        total = self.node("ReduceSum", kept, self.whole(1), name="total_states", keepdims=0)
        count = self.node("ReduceSum", mask, self.whole(1), name="token_count", keepdims=1)
        mean = self.node("Div", total, self.node("Max", count, self.number(1e-9), name="divisor"), name="mean_state")
        length = self.node("ReduceL2", mean, self.whole(1), name="mean_length", keepdims=1)
        self.node("Div", mean, self.node("Max", length, self.number(1e-12), name="length_divisor"), name=OUTPUT)

    def model(self) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", self._shape.hidden])]
        graph = helper.make_graph(self._nodes, "sentence_encoder", inputs, outputs, list(self._tensors.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lading", ir_version=IR
        )
        onnx.checker.check_model(model)
        return model
