"""The sample agents: they answer their vectors, and their committed modules are what their sources give."""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from integration.engines.wasm_guests import answered, ask_for, finished, write
from lading.project import load_project, vectors
from lading_node.engines.port import EngineSpec, Failed
from lading_protocol.messages import CallRequest
from tools import missing, require_program

ROOT = Path(__file__).resolve().parents[3]
AGENTS = ROOT / "wasm_agents"
# Kept between runs: 18 MB that take half a minute to build and to compile.
KEPT = ROOT / "build" / "wasm"


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wasm_agents_build", AGENTS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hold_to_vectors(name: str, spec: EngineSpec, tmp_path: Path) -> None:
    folder = AGENTS / name
    project = load_project(folder)
    asked = vectors(project, folder)
    assert len(asked) >= 4
    assert all(vector.is_recorded for vector in asked)
    requests = [CallRequest(v.operation, msgspec.json.encode(v.input), v.max_tokens) for v in asked]
    spec = msgspec.structs.replace(spec, context=project.agent.context)
    for vector, answer in zip(asked, answered(spec, tmp_path, *requests), strict=True):
        assert finished(answer).finish == "stop"
        assert answer.text == vector.output


def test_redact_answers_its_vectors(tmp_path: Path) -> None:
    hold_to_vectors("redact", write(tmp_path, (AGENTS / "redact" / "redact.wasm").read_bytes()), tmp_path)


LONE = '{"text":"\\ud800"}'
HOSTILE = [
    *("", "null", "[]", "{", '{"text"', '{"text":1}', '{"text":"a', '{"text":"\\u12', '{"text":"\\q"}'),
    '{"a":' + "[" * 500,
    '{"a":' + "{" * 100_000,
]


@pytest.mark.parametrize("name", ["redact", "search"])
def test_bad_input_is_refused_in_words(name: str, tmp_path: Path) -> None:
    spec = write(tmp_path, (AGENTS / name / f"{name}.wasm").read_bytes())
    asked = [ask_for(text, operation=name) for text in [*HOSTILE, LONE]]
    *refusals, lone = answered(spec, tmp_path, *asked)
    for answer in refusals:
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "invalid_request"
    assert name == "search" or "\N{REPLACEMENT CHARACTER}" in lone.text


# clang runs wasm-opt where it finds it, and gives other bytes where not.
@pytest.mark.parametrize(("name", "tools"), [("redact", ["/usr/bin/rustc"]), ("search", ["clang-14", "wasm-opt"])])
def test_the_committed_module_is_what_its_source_gives(name: str, tools: list[str], tmp_path: Path) -> None:
    for tool in (*tools, "wasm-ld"):
        require_program(tool)
    made = builder().AGENTS[name](tmp_path)
    assert made.read_bytes() == (AGENTS / name / f"{name}.wasm").read_bytes()


def test_extract_is_built_and_answers_its_vectors(tmp_path: Path) -> None:
    """Python in a component. The first run builds and compiles it; the tool must be there in CI."""
    if importlib.util.find_spec("componentize_py") is None:
        missing("componentize-py is not installed")
    sources = b"".join(path.read_bytes() for path in (AGENTS / "extract" / "extract.py", AGENTS / "wit" / "agent.wit"))
    folder = KEPT / hashlib.sha256(sources).hexdigest()[:16]
    if not (folder / "extract.wasm").exists():
        folder.mkdir(parents=True, exist_ok=True)
        builder().extract(tmp_path).rename(folder / "extract.wasm")
    code = (folder / "extract.wasm").read_bytes()
    hold_to_vectors("extract", write(tmp_path, code, "wasm-component", cache=str(KEPT / "native")), tmp_path)
