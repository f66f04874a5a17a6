"""Components: the world's imports, WASI that is closed, and what does not fit the world."""

from pathlib import Path

import pytest

from integration.engines.wasm_components import SAY, component
from integration.engines.wasm_guests import answered, ask_for, failed, finished, opened, said, write
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Failed
from lading_protocol.messages import CallRequest
from lading_protocol.parts import Capabilities
from lading_protocol.work import FUEL

ECHO = """(call $emit (i32.const 1000) (i32.const 3)) (i32.store8 (i32.const 0) (i32.const {tag}))
  (i32.store (i32.const 4) (local.get $in)) (i32.store (i32.const 8) (local.get $in_length)) (i32.const 0)"""


def echo(tag: int = 0) -> bytes:
    return component("(memory.fill (i32.const 1000) (i32.const 33) (i32.const 3))" + ECHO.format(tag=tag), "emit")


def test_a_component_streams_answers_and_refuses(tmp_path: Path) -> None:
    """Through the engine's process, compiled by the step's."""
    spec = write(tmp_path, echo(), "wasm-component")
    one, two = answered(spec, tmp_path, ask_for('"🦊"'), ask_for('"🦊"'))
    assert finished(one).finish == "stop"
    assert one.text == '!!!"🦊"'
    assert one.ids == two.ids
    assert one.ids[-1] == FUEL
    end = failed(opened(echo(1), tmp_path, "wasm-component"), ask_for("no"))
    assert (end.code, end.message) == ("invalid_request", "The agent refuses the request: no")


def test_clock_and_chance_stand_still_unless_granted(tmp_path: Path) -> None:
    code = {
        "chance": component(f"(i64.store (i32.const 64) (call $chance)) {SAY}", "chance"),
        "ticks": component(f"(i64.store (i32.const 64) (call $ticks)) {SAY}", "ticks"),
    }
    for name, capabilities in (("chance", Capabilities(randomness=True)), ("ticks", Capabilities(clock=True))):
        closed = opened(code[name], tmp_path, "wasm-component")
        assert said(closed, ask_for()).ids == said(closed, ask_for()).ids
        granted = opened(code[name], tmp_path, "wasm-component", capabilities=capabilities)
        assert said(granted, ask_for()).text != said(granted, ask_for()).text


def test_what_wasi_does_not_offer_ends_the_call(tmp_path: Path) -> None:
    end = failed(opened(component("(call $exit (i32.const 1)) (i32.const 0)", "exit"), tmp_path, "wasm-component"))
    assert end.code == "agent_error"
    assert "exit" in end.message


@pytest.mark.parametrize("name", ["wrong", "other", "http"])
def test_imports_that_no_host_has_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError) as refusal:
        opened(component("(i32.const 0)", name), tmp_path, "wasm-component")
    assert refusal.value.failure == "invalid_package"
    assert "http" in refusal.value.message or "as what it is not" in refusal.value.message


def test_a_call_of_another_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as refusal:
        opened(component("(i32.const 0)", result="(result u32)"), tmp_path, "wasm-component")
    assert "call" in refusal.value.message


FLOODS = {
    "much for ever": "(loop $l (call $emit (i32.const 0) (i32.const 400000)) (br $l)) (i32.const 0)",
    "nothing for ever": "(loop $l (call $emit (i32.const 0) (i32.const 0)) (br $l)) (i32.const 0)",
    "work for ever": "(loop $l (br $l)) (i32.const 0)",
    "an endless answer": "(i64.store (i32.const 4) (i64.const 0x7a12000004000)) (i32.const 0)",
}


@pytest.mark.parametrize("how", FLOODS)
def test_a_flood_ends_at_the_budget(tmp_path: Path, how: str) -> None:
    loaded = opened(component(FLOODS[how], "emit"), tmp_path, "wasm-component")
    answer = said(loaded, ask_for(tokens=60))
    assert finished(answer).finish == "length"
    assert len(answer.ids) == 60
    assert answer.ids[:20] == said(loaded, ask_for(tokens=20)).ids


_BAD = "(i32.store (i32.const 9) (i32.const -1))"
CRASHES = {
    "unreachable": "(unreachable)",
    "text outside its memory": "(call $emit (i32.const -8) (i32.const 100)) (i32.const 0)",
    "text that is none": f"{_BAD} (call $emit (i32.const 9) (i32.const 1)) (i32.const 0)",
    "a result outside its memory": "(i32.const -4)",
    "a result that is none": "(i32.store8 (i32.const 0) (i32.const 9)) (i32.const 0)",
}


@pytest.mark.parametrize("how", CRASHES)
def test_a_crash_is_the_agents_fault(tmp_path: Path, how: str) -> None:
    loaded = opened(component(CRASHES[how], "emit"), tmp_path, "wasm-component")
    for _ in range(2):
        end = failed(loaded)
        assert end.code == "agent_error"
        assert "\n" not in end.message


def test_input_that_is_no_text_is_refused(tmp_path: Path) -> None:
    end = said(opened(echo(), tmp_path, "wasm-component"), CallRequest("do", b"\xff\xfe", 100)).end
    assert isinstance(end, Failed)
    assert end.code == "invalid_request"
