"""Models behind host imports: the guest's own aliases only, charged apart from fuel, in its bounds and their own."""

import json
import shutil
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from integration.engines import tiny_llama
from integration.engines.wasm_guests import answered, ask_for, finished, module, opened, said, write
from lading_node.engines import host_models
from lading_node.engines.errors import EngineError
from lading_node.engines.host_models import BAD_ARGUMENT, TOO_LONG, UNKNOWN_ALIAS
from lading_node.engines.host_tensors import pack, unpack
from lading_node.engines.load import Loaded
from lading_node.engines.port import AgentFile, HostModel
from lading_protocol.transcript import sha256
from lading_protocol.work import FUEL, MODEL, text_bytes

SEARCH = Path(__file__).resolve().parents[3] / "wasm_agents" / "search" / "search.wasm"
# What a call gives back of an import: its result as four bytes.
RESULT = "(i32.store (i32.const 64) {ask}) (call $emit (i32.const 64) (i32.const 4)) (i32.const 0)"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[HostModel, ...]:
    embedder = tiny_llama.write_embedder(tmp_path_factory.mktemp("embedder"))
    speaker = tiny_llama.write_chat(tmp_path_factory.mktemp("speaker"))
    graph = _adder(tmp_path_factory.mktemp("graph"))
    return (
        HostModel("embedder", "onnx", embedder.files),
        HostModel("speaker", "llm-onnx", speaker.files, speaker.llm),
        HostModel("graph", "onnx", (graph,)),
    )


def _adder(folder: Path) -> AgentFile:
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("given", "made")]
    nodes = [helper.make_node("Add", ["given", "half"], ["made"])]
    model = helper.make_model(
        helper.make_graph(nodes, "adder", row[:1], row[1:], [half]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    return AgentFile("model", str(folder / "model.onnx"), sha256(data))


def result(loaded: Loaded) -> int:
    answer = said(loaded, ask_for())
    assert finished(answer).finish == "stop"
    return int(struct.unpack("<i", text_bytes(answer.ids))[0])


def guest(ask: str, imports: tuple[str, ...], data: str = "") -> bytes:
    return module(RESULT.format(ask=ask), imports=("emit", *imports), more=f'(data (i32.const 128) "{data}")')


def test_search_ranks_with_the_hosts_model_in_the_engines_process(
    models: tuple[HostModel, ...], tmp_path: Path
) -> None:
    spec = write(tmp_path, SEARCH.read_bytes(), models=models[:1])
    passages = ["a small lantern", "the fox", "🦊 over the river", "the \u0022fox\u0022\\ " * 60]
    given = {"query": "the fox", "x": [{"y": 1}], "passages": passages, "top": 3}
    asked = ask_for(json.dumps(given), operation="search")
    one, two = answered(spec, tmp_path, asked, asked)
    found = json.loads(one.text)["results"]
    assert found[0] == {"passage": 1, "score": 1.0}
    assert len(found) == 3
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    assert one.ids == two.ids
    assert one.ids.count(MODEL) > len("".join(passages)) // 4
    assert one.ids.count(FUEL) >= 1


def test_a_language_model_is_read_piece_by_piece(models: tuple[HostModel, ...], tmp_path: Path) -> None:
    prompt = json.dumps({"messages": [{"role": "user", "content": "the fox"}], "max_tokens": 12, "temperature": 0.7})
    body = f"""(local $h i32) (local $n i32)
      (local.set $h (call $generate (i32.const 128) (i32.const 7) (i32.const 135) (i32.const {len(prompt)})))
      (loop $l
        (local.set $n (call $next (local.get $h) (i32.const 2048) (i32.const 3)))
        (if (i32.gt_s (local.get $n) (i32.const 0))
          (then (call $emit (i32.const 2048) (local.get $n)) (br $l))))
      (local.get $n)"""
    data = "speaker" + prompt.replace('"', '\\"')
    code = module(body, imports=("emit", "generate", "next"), more=f'(data (i32.const 128) "{data}")')
    loaded = opened(code, tmp_path, models=models)
    one = said(loaded, ask_for())
    assert finished(one).finish == "stop"
    assert one.text
    # What it read and what it wrote; the prompt has at least its role markers and one token more.
    assert 12 + 4 <= one.ids.count(MODEL) <= 12 + 20
    assert said(loaded, ask_for()).ids == one.ids
    assert said(loaded, ask_for(tokens=10)).ids == one.ids[:10]


def test_tensors_go_through_a_plain_graph(models: tuple[HostModel, ...], tmp_path: Path) -> None:
    given = pack({"given": np.array([1.0, 2.5, -3.0], np.float32)})
    text = "".join(f"\\{byte:02x}" for byte in b"graph" + given)
    taken = f"(i32.const 128) (i32.const 5) (i32.const 133) (i32.const {len(given)})"
    ask = f"(call $tensors {taken} (i32.const 4096) (i32.const 4096))"
    body = f"(local $n i32) (local.set $n {ask}) (call $emit (i32.const 4096) (local.get $n)) (i32.const 0)"
    code = module(body, imports=("emit", "tensors"), more=f'(data (i32.const 128) "{text}")')
    answer = said(opened(code, tmp_path, models=models), ask_for())
    made = unpack(text_bytes(answer.ids))
    assert made["made"].tolist() == [1.5, 3.0, -2.5]
    assert answer.ids.count(MODEL) == 1


_EMBED = "(call $embed {alias} (i32.const 8) (i32.const 128) (i32.const %d) {out})"
_TENSORS = "(call $tensors {alias} (i32.const %d) (i32.const 128) (i32.const 16) {out})"
REFUSALS = {
    "an alias that is not declared": (UNKNOWN_ALIAS, _EMBED % 3, "stranger"),
    "an alias of another kind": (UNKNOWN_ALIAS, _EMBED.replace("8", "7", 1) % 3, "speaker"),
    "text that is none": (BAD_ARGUMENT, _EMBED % 10, "embedder\\ff\\fe"),
    "no room for the vector": (TOO_LONG, (_EMBED % 3).replace("{out}", "{none}"), "embedder"),
    "an alias too long": (TOO_LONG, _EMBED.replace("8", "800", 1) % 3, "embedder"),
    "a text too long": (TOO_LONG, _EMBED % 5000, "embedder" + "a" * 5000),
    "a request that does not read": (
        BAD_ARGUMENT,
        "(call $generate {alias} (i32.const 7) (i32.const 128) (i32.const 7))",
        "speaker",
    ),
    "a stream that is not there": (BAD_ARGUMENT, "(call $next (i32.const 5) {none})", ""),
    "a negative stream": (BAD_ARGUMENT, "(call $next (i32.const -1) {none})", ""),
    "tensors that do not read": (BAD_ARGUMENT, _TENSORS % 5, "graph"),
    "a model that takes no tensors": (UNKNOWN_ALIAS, _TENSORS % 8, "embedder"),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_what_a_model_refuses_is_a_number_for_the_guest(
    models: tuple[HostModel, ...], tmp_path: Path, how: str
) -> None:
    code, ask, data = REFUSALS[how]
    room = {name: f"(i32.const 8192) (i32.const {size})" for name, size in (("out", 64), ("none", 3))}
    filled = ask.format(alias="(i32.const 128)", **room)
    loaded = opened(guest(filled, ("embed", "generate", "next", "tensors"), data), tmp_path, models=models)
    assert result(loaded) == code


def test_a_model_that_takes_too_long_is_left(
    models: tuple[HostModel, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_models, "STREAM_S", 0.0)
    prompt = '{\\"messages\\":[{\\"role\\":\\"user\\",\\"content\\":\\"a\\"}]}'
    length = len(prompt.replace("\\", ""))
    begun = f"(call $generate (i32.const 128) (i32.const 7) (i32.const 135) (i32.const {length}))"
    ask = f"(call $next {begun} (i32.const 2048) (i32.const 10))"
    loaded = opened(guest(ask, ("generate", "next"), "speaker" + prompt), tmp_path, models=models)
    assert result(loaded) == host_models.TOO_SLOW


def test_a_model_whose_bytes_changed_is_not_loaded(models: tuple[HostModel, ...], tmp_path: Path) -> None:
    file = models[2].files[0]
    other = shutil.copy(file.path, tmp_path / "model.onnx")
    Path(other).write_bytes(Path(other).read_bytes() + b"\0")
    changed = msgspec.structs.replace(models[2], files=(msgspec.structs.replace(file, path=str(other)),))
    with pytest.raises(EngineError):
        opened(module("(i32.const 0)"), tmp_path, models=(changed,))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"[]",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (5).to_bytes(8, "little") + b"{" * 5,
        *[
            len(text).to_bytes(8, "little") + text + bytes(16)
            for text in (
                b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
                b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,16]}}',
                b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
                b'{"a":{"dtype":"F32","shape":4,"data_offsets":[0,16]}}',
                b'{"a":7}',
            )
        ],
    ],
)
def test_tensors_that_lie_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)
