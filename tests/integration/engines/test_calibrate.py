"""`lading audit calibrate` on our own chat model: through the engines that serve, to a table that others can read."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from integration.engines import chat_agents
from lading.blobs import BlobStore
from lading.calibrations import PUBLISHER, merged, published
from lading.cli.main import main
from lading.publisher import load_project, pack
from lading_node.calibrate import Plan, question
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.calibration import (
    BadCalibration,
    SignedCalibration,
    find,
    read,
    spec_hash,
    tolerance,
)
from lading_protocol.ids import ZERO_ADDRESS
from lading_protocol.keys import PrivateKey

AGENT = chat_agents.ROOT / "agents" / "chat"
SECRET = "11" * 32


@pytest.fixture
def calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, str]]]:
    (tmp_path / "key").write_text(SECRET + "\n")
    (tmp_path / "key").chmod(0o600)

    def run(*more: str) -> tuple[int, dict[str, str]]:
        where = ["--home", str(tmp_path), "--key", str(tmp_path / "key"), "--out", str(tmp_path / "tables.json")]
        code = main(["audit", "calibrate", str(AGENT), "--date", "2026-11-26", "--json", *where, *more])
        return code, json.loads(capsys.readouterr().out or "{}")

    return run


def test_a_table_of_honest_jobs(calibrate: Callable[..., tuple[int, dict[str, str]]], tmp_path: Path) -> None:
    code, shown = calibrate("--jobs", "20", "--tokens", "24", "--exact")
    assert code == 0
    assert shown["classes"] == "onnx-f32-cpu against onnx-f32-cpu, exact"
    (table,) = read((tmp_path / "tables.json").read_bytes(), [PrivateKey.from_hex(SECRET).address])
    assert table.jobs == 20 <= table.tokens
    assert table.margin.most <= EXACT_MARGIN
    assert 0 < table.chunk.most < 1e-3
    assert table.host_engine.startswith("llm-onnx ")
    with pytest.raises(BadCalibration, match="whom nobody here trusts"):
        published([tmp_path / "tables.json"])
    # Once more, for the same pair: it takes the place of the first.
    (kept,) = msgspec.json.decode((tmp_path / "tables.json").read_bytes(), type=tuple[SignedCalibration, ...])
    assert merged(tmp_path / "none.json", kept) == [kept] == merged(tmp_path / "tables.json", kept)


def test_too_few_jobs_and_unknown_classes_are_refused(calibrate: Callable[..., tuple[int, dict[str, str]]]) -> None:
    assert calibrate("--jobs", "5")[0] == 1
    assert calibrate("--against", "gpu-of-tomorrow")[0] == 1


def test_our_own_tables_are_signed_by_us_and_of_the_agent_that_we_ship(tmp_path: Path) -> None:
    assert any(PUBLISHER)
    _, manifest = pack(load_project(AGENT), AGENT, ZERO_ADDRESS, BlobStore(tmp_path / "blobs"))
    table = find(published(), spec_hash(manifest), "onnx-f32-cpu", "onnx-f32-cpu")
    assert table is not None, "the agent's files changed: measure it again with lading audit calibrate"
    assert table.exact
    assert tolerance(table).margin == EXACT_MARGIN


def test_the_same_plan_asks_the_same_everywhere() -> None:
    plan = Plan(8, 32, 7)
    assert [question(plan, n) for n in range(8)] == [question(plan, n) for n in range(8)]
    assert len({question(plan, n).sampler.seed for n in range(8)}) == 8
    assert question(plan, 0) != question(Plan(8, 32, 8), 0)
