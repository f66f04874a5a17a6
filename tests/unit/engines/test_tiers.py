"""Which tier an agent gets, and that a tier which did not pass is refused in words that an operator can act on."""

from pathlib import Path
from typing import get_args

import pytest

from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, open_engine
from lading_node.engines.port import EngineSpec, Kind, Tier
from lading_node.engines.tiers import choose_tier, tier_of

GOOD = ("rlimits", "network", "files", "no-new-privileges", "syscalls")
MODELS: tuple[Kind, ...] = ("memory", "llm-onnx", "torch", "onnx", "ray")


def spec(kind: Kind, tier: Tier = "") -> EngineSpec:
    return EngineSpec(kind, tier=tier)


def tier_fits(kind: Kind, tier: Tier) -> bool:
    if kind == "oci":
        return tier in ("C", "G")
    return tier == ("W" if kind.startswith("wasm") else "P")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_only_tiers_that_passed_are_chosen(kind: Kind) -> None:
    for passed in ((), ("W",), ("P",), ("C",), ("G",), ("W", "P", "C", "G")):
        fitting = {tier for tier in passed if tier_fits(kind, tier)}
        if fitting or kind == "openai-http":
            assert choose_tier(spec(kind), passed) in fitting | {""}
            continue
        with pytest.raises(EngineError, match="need tier") as caught:
            choose_tier(spec(kind), passed)
        assert "lading node probe" in caught.value.hint


def test_code_is_never_run_in_less_than_its_tier() -> None:
    """Not even where the operator does not insist on tiers for models."""
    for kind in ("oci", "wasm-core", "wasm-component"):
        with pytest.raises(EngineError, match="need tier"):
            choose_tier(spec(kind), ("P",), required=False)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_runs_without_a_tier_only_where_the_operator_says_so(kind: Kind) -> None:
    with pytest.raises(EngineError):
        choose_tier(spec(kind), ())
    assert choose_tier(spec(kind), (), required=False) == ""


def test_gvisor_comes_first_for_strangers_programs_and_the_asked_one_is_kept() -> None:
    assert choose_tier(spec("oci"), ("P", "C", "G")) == "G"
    assert choose_tier(spec("oci", "C"), ("P", "C", "G")) == "C"
    with pytest.raises(EngineError, match=r"need tier G \(a container on gVisor\)"):
        choose_tier(spec("oci", "G"), ("C",))
    with pytest.raises(EngineError, match="cannot run in tier P"):
        choose_tier(spec("oci", "P"), ("P", "C"))


@pytest.mark.parametrize("missing", ["network", "files", "no-new-privileges", "syscalls"])
def test_a_limit_that_is_missing_costs_the_tier(missing: str) -> None:
    assert tier_of("onnx", GOOD) == "P"
    assert tier_of("wasm-core", GOOD) == "W"
    assert tier_of("onnx", tuple(name for name in GOOD if name != missing)) == ""


def test_the_factory_refuses_what_the_self_test_did_not_pass(tmp_path: Path) -> None:
    assert isinstance(open_engine(spec("onnx"), tmp_path, Means(("P",))), ChildEngine)
    with pytest.raises(EngineError, match=r"Agents of the kind onnx need tier P \(a confined process\)"):
        open_engine(spec("onnx"), tmp_path, Means(()))
