"""What an enemy starts from: a good package to spoil, and what "named in one line" means."""

import json
import unicodedata
from typing import Any

from lading_protocol.errors import LadingError
from lading_protocol.manifest import SCHEMA, Manifest, dump
from lading_protocol.parts import LlmShape, Operation, Runtime, describe_file

MOST_LINE = 400
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\u202egnp\u2066\x9b31m\x00"


def good() -> dict[str, Any]:
    """The JSON of a manifest that reads, to be changed."""
    manifest = Manifest(
        schema=SCHEMA,
        name="chat",
        version="1.0.0",
        publisher="0x" + "11" * 20,
        summary="A small chat model.",
        licence="Apache-2.0",
        api=(Operation("chat"),),
        context=512,
        runtimes=(Runtime("llm-onnx", "model.onnx", "f32", "onnx-f32-cpu", LlmShape(1, 1, 1, 8, 8, 64, (1,))),),
        files=(describe_file("model.onnx", "model", b"weights"), describe_file("t.json", "tokenizer", b"words")),
    )
    tree: dict[str, Any] = json.loads(dump(manifest))
    return tree


def canonical(tree: Any) -> bytes:
    """Any tree in the manifest's form, whatever it says; lone surrogates as JSON would carry them."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def named(error: LadingError, *words: str) -> None:
    """One line for a person: what is wrong, short, and without anything that a terminal would act on."""
    text = str(error)
    assert error.message, repr(error)
    assert len(text) <= MOST_LINE, f"{len(text)} characters: {text[:200]!r}"
    strange = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert not strange, f"{strange!r} in {text!r}"
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
