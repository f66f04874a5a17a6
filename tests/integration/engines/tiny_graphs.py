"""Small ONNX agents that take calls, honest ones and those of an enemy."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from integration.engines.tiny_llama import tokenizer
from lading_node.engines.port import AgentFile, EngineSpec
from lading_protocol.parts import Operation

LABELS = ["good", "bad", "so-so"]
OPSET = [helper.make_opsetid("", 17)]
Value = onnx.ValueInfoProto


def value(name: str, kind: int, *shape: int | str) -> Value:
    return helper.make_tensor_value_info(name, kind, list(shape))


def graph(nodes: list[onnx.NodeProto], inputs: list[Value], outputs: list[Value], *weights: Any) -> bytes:
    made = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    return bytes(helper.make_model(made, opset_imports=OPSET, ir_version=9).SerializeToString())


def write(folder: Path, model: bytes, *operations: Operation, words: bool = False) -> EngineSpec:
    named = {"model.onnx": ("model", model)}
    if words:
        named["tokenizer.json"] = ("tokenizer", tokenizer().to_str().encode())
    files = []
    for name, (role, data) in named.items():
        (folder / name).write_bytes(data)
        files.append(AgentFile(role, str(folder / name), hashlib.sha256(data).digest()))
    return EngineSpec("onnx", tuple(files), context=1 << 18, operations=operations or (Operation("scale"),))


def scaler() -> bytes:
    """y = 3 x + bias."""
    three = numpy_helper.from_array(np.array(3, np.float32), "three")
    nodes = [helper.make_node("Mul", ["x", "three"], ["scaled"]), helper.make_node("Add", ["scaled", "bias"], ["y"])]
    inputs = [value("x", TensorProto.FLOAT, "n", 2), value("bias", TensorProto.FLOAT, 2)]
    return graph(nodes, inputs, [value("y", TensorProto.FLOAT, "n", 2)], three)


def classifier(labels: int = len(LABELS)) -> bytes:
    table = np.random.default_rng(4).normal(size=(320, labels)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["logits"], axes=[1], keepdims=0),
    ]
    ids = [value(name, TensorProto.INT64, "batch", "sequence") for name in ("input_ids", "attention_mask")]
    out = value("logits", TensorProto.FLOAT, "batch", labels)
    return graph(nodes, ids, [out], numpy_helper.from_array(table, "table"))


def judging(labels: list[str] = LABELS) -> Operation:
    output = {"type": "object", "properties": {"label": {"enum": labels}}}
    return Operation("judge", {"type": "object", "properties": {"text": {"type": "string"}}}, output)


ONE_IN = [value("x", TensorProto.FLOAT, 1)]
ONE_OUT = [value("y", TensorProto.FLOAT, "n")]


def greedy() -> bytes:
    """A few bytes that ask for 64 GiB."""
    shape = numpy_helper.from_array(np.array([1 << 34], np.int64), "shape")
    return graph([helper.make_node("Expand", ["x", "shape"], ["y"])], ONE_IN, ONE_OUT, shape)


def endless() -> bytes:
    true = helper.make_node("Constant", [], ["again"], value=numpy_helper.from_array(np.array(True)))
    nodes = [true, helper.make_node("Identity", ["state"], ["next"])]
    state = [value("state", TensorProto.FLOAT, 1)]
    inputs = [value("i", TensorProto.INT64), value("c", TensorProto.BOOL), *state]
    outputs = [value("again", TensorProto.BOOL), value("next", TensorProto.FLOAT, 1)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    yes = numpy_helper.from_array(np.array(True), "yes")
    return graph([helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], ONE_IN, ONE_OUT, yes)


def custom() -> bytes:
    made = helper.make_graph([helper.make_node("Run", ["x"], ["y"], domain="evil.ops")], "graph", ONE_IN, ONE_OUT)
    imports = [*OPSET, helper.make_opsetid("evil.ops", 1)]
    return bytes(helper.make_model(made, opset_imports=imports, ir_version=9).SerializeToString())


def outside(location: str) -> bytes:
    """Weights that would be read from another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    return graph([helper.make_node("Add", ["x", "w"], ["y"])], ONE_IN, ONE_OUT, weight)
