"""Model files by an enemy, each given to a real engine's process: it harms nothing, ends in time, and is named.

What is refused blames the agent. A process may be killed for it; its host and every other agent go on.
"""

import asyncio
import hashlib
import json
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hostile.kit import ESCAPES, named
from integration.engines import tiny_llama
from integration.engines.asking import ask, collect
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.port import BLAMES_AGENT, AgentFile, Embed, Embedded, EngineSpec, Failed, Finished, Generate
from lading_protocol.messages import EmbedRequest

replace = msgspec.structs.replace
MEMORY = 3 << 30
SECRET = "the canary's secret"
# An engine that cannot hold a model is told apart from a bad model by nobody: the host's limit is what it met.
REFUSALS = BLAMES_AGENT | {"resource_exhausted", "engine_died", "timeout"}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    return replace(tiny_llama.write_chat(tmp_path_factory.mktemp("chat")), memory=MEMORY)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    return replace(tiny_llama.write_embedder(tmp_path_factory.mktemp("embedder")), memory=MEMORY)


def swapped(spec: EngineSpec, role: str, path: Path, data: bytes) -> EngineSpec:
    """The agent with another file in a role; its manifest names the very bytes, as an enemy's would."""
    path.write_bytes(data)
    made = AgentFile(role, str(path), hashlib.sha256(data).digest())
    return replace(spec, files=tuple(made if file.role == role else file for file in spec.files))


async def _load(spec: EngineSpec, folder: Path, deadline: float) -> EngineError | None:
    engine = ChildEngine(spec, folder, load_deadline=deadline)
    try:
        await engine.start()
    except EngineError as error:
        return error
    finally:
        await engine.stop()
    return None


def refusal(spec: EngineSpec, folder: Path, *, deadline: float = 20.0) -> EngineError:
    folder.mkdir(exist_ok=True)
    error = asyncio.run(_load(spec, folder, deadline))
    assert error is not None, "it was loaded"
    named(error)
    assert error.failure in REFUSALS, error
    assert SECRET not in str(error)
    assert list(folder.iterdir()) == []
    return error


def graph(nodes: list[Any], *, weights: list[Any] | None = None, domains: tuple[str, ...] = ()) -> onnx.ModelProto:
    """An embedder of token vectors whose middle is the enemy's: from `ids` (float32 [1, n]) to `out` ([1, n, k])."""
    value = helper.make_tensor_value_info
    cast = helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT)
    made = helper.make_graph(
        [cast, *nodes],
        "enemy",
        [value(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")],
        [value("out", TensorProto.FLOAT, None)],
        weights or [],
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=imports, ir_version=9)


# Files that are something else.


class _Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("/tmp/lading-hostile-pickle", "w"))  # type: ignore[return-value]


def _safetensors(header: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header


def _torch_zip(folder: Path) -> bytes:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Runs()))
    return path.read_bytes()


DISGUISES: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda folder: b"",
    "a pickle": lambda folder: pickle.dumps(_Runs()),
    "a torch archive": _torch_zip,
    "safetensors around a pickle": lambda folder: _safetensors(pickle.dumps(_Runs())),
    "a shared library": lambda folder: b"\x7fELF" + bytes(4096),
    "a script": lambda folder: b"#!/bin/sh\ntouch /tmp/lading-hostile-pickle\n",
    "zeros": lambda folder: bytes(1 << 20),
    "noise": lambda folder: np.random.default_rng(1).bytes(1 << 20),
    "a field of four gigabytes": lambda folder: b"\x3a\xff\xff\xff\xff\x0f" + b"x" * 100,
    "messages in messages": lambda folder: b"\x3a" * 100_000,
}


@pytest.mark.parametrize(
    ("kind", "disguise"),
    [*(("onnx", name) for name in DISGUISES), *(("llm-onnx", name) for name in ("nothing", "a pickle", "noise"))],
)
def test_what_is_no_model_is_a_bad_package(
    chat: EngineSpec, embedder: EngineSpec, tmp_path: Path, kind: str, disguise: str
) -> None:
    spec = chat if kind == "llm-onnx" else embedder
    error = refusal(swapped(spec, "model", tmp_path / "model", DISGUISES[disguise](tmp_path)), tmp_path / "work")
    assert error.failure == "invalid_package"
    assert not Path("/tmp/lading-hostile-pickle").exists()


# Models that reach for files, memory or time.


@pytest.mark.parametrize(
    "location",
    ["canary", "../canary", "/etc/passwd", "/proc/self/environ", "../../../../../../etc/shadow", "link", "hard", ""],
)
def test_weights_elsewhere_are_never_read(embedder: EngineSpec, tmp_path: Path, location: str) -> None:
    (tmp_path / "canary").write_text(SECRET * 10)
    (tmp_path / "link").symlink_to(tmp_path / "canary")
    (tmp_path / "hard").hardlink_to(tmp_path / "canary")
    table = numpy_helper.from_array(np.zeros((4, 4), np.float32), "table")
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        entry = table.external_data.add()
        entry.key, entry.value = key, value
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["out"])]
    data = graph(nodes, weights=[table]).SerializeToString()
    refusal(swapped(embedder, "model", tmp_path / "model", data), tmp_path / "work")


def test_a_model_of_sixty_four_gigabytes_meets_the_limit(embedder: EngineSpec, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 1 << 17, 1 << 17]), "shape")
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    data = graph([helper.make_node("ConstantOfShape", ["shape"], ["out"], value=one)], weights=[shape])
    assert len(data.SerializeToString()) < 400
    refusal(swapped(embedder, "model", tmp_path / "model", data.SerializeToString()), tmp_path / "work")
    no_limit = replace(swapped(embedder, "model", tmp_path / "model", data.SerializeToString()), memory=0)
    refusal(no_limit, tmp_path / "work")


def _loop() -> bytes:
    """Counts to the largest number there is."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    most = numpy_helper.from_array(np.array(2**63 - 1), "most")
    yes = numpy_helper.from_array(np.array(True), "yes")
    axis = numpy_helper.from_array(np.array([2]), "axis")
    nodes = [
        helper.make_node("Unsqueeze", ["ids", "axis"], ["wide"]),
        helper.make_node("Loop", ["most", "yes", "wide"], ["out"], body=body),
    ]
    return graph(nodes, weights=[most, yes, axis]).SerializeToString()


def test_a_loop_without_end_meets_the_deadline(embedder: EngineSpec, tmp_path: Path) -> None:
    spec = swapped(embedder, "model", tmp_path / "model", _loop())
    began = time.monotonic()
    error = refusal(spec, tmp_path / "work", deadline=1.5)
    assert error.failure == "timeout"
    assert time.monotonic() - began < 60


def test_operators_of_its_own_are_refused(embedder: EngineSpec, tmp_path: Path) -> None:
    nodes = [helper.make_node("Escape", ["ids"], ["out"], domain="evil.ops", library="/tmp/evil.so")]
    data = graph(nodes, domains=("evil.ops",)).SerializeToString()
    error = refusal(swapped(embedder, "model", tmp_path / "model", data), tmp_path / "work")
    assert error.failure == "invalid_package"


@pytest.mark.parametrize("name", ["input\x1b[31m\nids", "x" * 100_000, "input_ids\u202e"])
def test_names_inside_a_model_reach_nobody_s_terminal(embedder: EngineSpec, tmp_path: Path, name: str) -> None:
    made = graph([helper.make_node("Identity", ["ids"], ["out"])])
    made.graph.input[1].name = name
    error = refusal(swapped(embedder, "model", tmp_path / "m", made.SerializeToString()), tmp_path / "work")
    assert error.failure == "invalid_package"


NUMBERS = {"not a number": np.nan, "infinity": np.inf, "nothing": 0.0}


@pytest.mark.parametrize("number", NUMBERS)
def test_vectors_that_are_none_are_the_agent_s_fault(embedder: EngineSpec, tmp_path: Path, number: str) -> None:
    table = numpy_helper.from_array(np.full((320, 4), NUMBERS[number], np.float32), "table")
    data = graph([helper.make_node("Gather", ["table", "input_ids"], ["out"])], weights=[table]).SerializeToString()
    error = refusal(swapped(embedder, "model", tmp_path / "model", data), tmp_path / "work")
    assert error.failure == "agent_error"


# What the manifest says of the model, and is not so.

LIES: dict[str, dict[str, Any]] = {
    "more layers": {"layers": 512},
    "fewer layers": {"layers": 1},
    "more heads": {"heads": 64},
    "more key heads": {"kv_heads": 64},
    "wider heads": {"head_size": 1024},
    "narrower heads": {"head_size": 1},
    "a larger vocabulary": {"vocab": 1 << 22},
    "a smaller vocabulary": {"vocab": 2},
    "an end outside the vocabulary": {"eos": (4_000_000,)},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_the_model_is_refused_or_changes_nothing(chat: EngineSpec, tmp_path: Path, lie: str) -> None:
    """Either the model does not load, or it answers as it would have: no lie gets memory, or a crash, at a request."""
    spec = replace(chat, llm=replace(chat.llm, **LIES[lie]))

    async def main() -> None:
        engine = ChildEngine(spec, tmp_path, load_deadline=20)
        end: Any = None
        try:
            await engine.start()
            end = (await collect(engine, Generate("a", ask(20)))).end
        except EngineError as error:
            named(error)
            end = error.as_event("a")
        assert isinstance(end, Finished) or end.code in REFUSALS, end
        await engine.stop()

    asyncio.run(main())


def test_a_context_beyond_the_model_s_positions_is_the_agent_s_fault(chat: EngineSpec, tmp_path: Path) -> None:
    """The model's table of positions ends at 256; the manifest says that it reads four thousand tokens."""

    async def main() -> None:
        engine = ChildEngine(replace(chat, context=4096), tmp_path)
        await engine.start()
        answer = await collect(engine, Generate("a", ask(3000, temperature=0.0)))
        assert isinstance(answer.end, Finished) or answer.end.code in REFUSALS | {"engine_error"}, answer.end
        if isinstance(answer.end, Failed):
            named(EngineError(answer.end.code, answer.end.message, hint=answer.end.hint))
        await engine.stop()

    asyncio.run(main())


# Tokenizers.


def _words(**changes: Any) -> bytes:
    tree = json.loads(tiny_llama.tokenizer().to_str())
    for key, value in changes.items():
        tree[key] = value
    return json.dumps(tree).encode()


def _vocabulary(**more: int) -> bytes:
    tree = json.loads(tiny_llama.tokenizer().to_str())
    tree["model"]["vocab"] |= more
    return json.dumps(tree).encode()


TOKENIZERS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a pickle": lambda: pickle.dumps(_Runs()),
    "brackets without end": lambda: b"[" * 1_000_000,
    "deep inside": lambda: b'{"decoder":' * 200_000,
    "an id beyond all models": lambda: _vocabulary(bomb=4_000_000_000),
    "an id beyond the limit": lambda: _vocabulary(bomb=1 << 23),
    "a negative id": lambda: _vocabulary(bomb=-1),
    "another decoder": lambda: _words(decoder={"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}),
    "a decoder in a list": lambda: _words(decoder=[{"type": "ByteLevel"}]),
    "no decoder": lambda: _words(decoder=None),
    "a pattern that does not compile": lambda: _words(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 1000}, "behavior": "Isolated", "invert": False}
    ),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_tokenizer_that_is_a_trap_is_a_bad_package(chat: EngineSpec, tmp_path: Path, tokenizer: str) -> None:
    data = TOKENIZERS[tokenizer]()
    error = refusal(swapped(chat, "tokenizer", tmp_path / "tokenizer.json", data), tmp_path / "work")
    assert error.failure == "invalid_package", error


TRAPS: dict[str, dict[str, Any]] = {
    "a pattern that backtracks without end": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(x+x+)+y"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "a text that multiplies": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "x"}, "content": "x" * 1000} for _ in range(6)],
        }
    },
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_that_a_request_springs_costs_its_agent_only(embedder: EngineSpec, tmp_path: Path, trap: str) -> None:
    """It loads and answers; then a text meets the trap. The request ends in time, and another agent goes on."""
    data = _words(**TRAPS[trap])
    spec = swapped(embedder, "tokenizer", tmp_path / "tokenizer.json", data)
    (tmp_path / "work").mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def main() -> None:
        enemy = ChildEngine(spec, tmp_path / "work", stall=2.0)
        honest = ChildEngine(embedder, tmp_path / "work")
        await enemy.start()
        await honest.start()
        began = time.monotonic()
        sprung, other = await asyncio.gather(
            enemy.embed(Embed("trap", EmbedRequest(("x" * 60,)))), honest.embed(Embed("a", EmbedRequest(("fox",))))
        )
        assert time.monotonic() - began < 60
        assert isinstance(other, Embedded)
        if isinstance(sprung, Failed):
            named(EngineError(sprung.code, sprung.message, hint=sprung.hint))
        await enemy.stop()
        await honest.stop()

    asyncio.run(main())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kibibytes


# Chat templates, in the process that runs them. What each may not do is tested one by one with the template.

TEMPLATES = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "reaches for the system": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "says its words in escapes": "{{ raise_exception('\x1b[2J\x1b]0;owned\x07 and \u202e so on') }}",
    "names what it lacks in escapes": "{{ nothing['\x1b[31m\n'].at.all }}",
    "compares what takes for ever": "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 48
    + "{{ a == b }}",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_is_a_trap_costs_its_agent_only(chat: EngineSpec, tmp_path: Path, template: str) -> None:
    source = TEMPLATES[template].encode("utf-8", "surrogatepass")
    path = tmp_path / "template.jinja"
    spec = swapped(chat, "chat_template", path, source)
    (tmp_path / "work").mkdir()

    async def main() -> None:
        engine = ChildEngine(spec, tmp_path / "work", stall=2.0)
        await engine.start()
        began = time.monotonic()
        answer = await collect(engine, Generate("a", ask(5)))
        assert time.monotonic() - began < 60
        assert isinstance(answer.end, Failed)
        assert answer.end.code in ("agent_error", "invalid_request", "timeout"), answer.end
        assert "root:" not in answer.end.message
        named(EngineError(answer.end.code, answer.end.message, hint=answer.end.hint))
        await engine.stop()

    asyncio.run(main())


def test_a_template_of_escapes_that_does_not_compile_is_named(chat: EngineSpec, tmp_path: Path) -> None:
    spec = swapped(chat, "chat_template", tmp_path / "t.jinja", ("{{ " + ESCAPES).encode())
    assert refusal(spec, tmp_path / "work").failure == "invalid_package"
