"""From a manifest to what an engine loads."""

from pathlib import Path

import msgspec
import pytest

from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec
from lading_node.engines.spec import Limits, engine_spec
from lading_protocol.manifest import SCHEMA, Manifest
from lading_protocol.parts import Capabilities, LlmShape, Operation, Runtime, describe_file
from lading_protocol.transcript import sha256

SHAPE = LlmShape(2, 4, 2, 16, 64, 320, (1,))


def manifest(runtime: Runtime) -> Manifest:
    files = (
        describe_file("weights/f32.onnx", "model", b"f32"),
        describe_file("weights/int4.onnx", "model", b"int4"),
        describe_file("tokenizer.json", "tokenizer", b"words"),
        describe_file("chat_template.json", "chat_template", b"markup"),
        describe_file("README.md", "readme", b"read me"),
    )
    return Manifest(SCHEMA, "a", "1", "0x" + "1" * 40, "s", "MIT", (Operation("chat"),), 512, (runtime,), files)


def test_the_engine_gets_the_entry_and_what_it_needs_with_their_digests() -> None:
    runtime = Runtime("llm-onnx", "weights/int4.onnx", "int4", "onnx-int4-cpu", SHAPE)
    spec = engine_spec(manifest(runtime), runtime, Path("/agent"), Limits(slots=2, threads=3, memory=5))
    assert isinstance(spec, EngineSpec)
    assert (spec.kind, spec.llm, spec.context, spec.slots, spec.threads, spec.memory) == (
        "llm-onnx",
        SHAPE,
        512,
        2,
        3,
        5,
    )
    assert [(file.role, file.path, file.digest) for file in spec.files] == [
        ("model", "/agent/weights/int4.onnx", sha256(b"int4")),
        ("tokenizer", "/agent/tokenizer.json", sha256(b"words")),
        ("chat_template", "/agent/chat_template.json", sha256(b"markup")),
    ]


@pytest.mark.parametrize(
    ("numeric", "allowed", "used"),
    [("torch-f32-cuda", True, True), ("torch-f32-cpu", True, False), ("torch-f32-cuda", False, False)],
)
def test_a_class_of_the_processor_is_served_on_it(numeric: str, allowed: bool, used: bool) -> None:
    """A card that the package may use would give other numbers than the offer promises."""
    runtime = Runtime("torch", "weights/f32.onnx", "f32", numeric, SHAPE)
    asking = msgspec.structs.replace(manifest(runtime), capabilities=Capabilities(device=True))
    spec = engine_spec(asking, runtime, Path("/agent"), Limits(device=allowed))
    assert (spec.device, spec.numeric) == (used, numeric)


def test_an_unknown_engine_is_named() -> None:
    runtime = Runtime("quantum", "weights/f32.onnx", "f32", "x")
    with pytest.raises(EngineError, match="'quantum'"):
        engine_spec(manifest(runtime), runtime, Path("/agent"))
