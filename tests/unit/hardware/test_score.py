"""The score: its sums, its warnings, its files, and the ONNX files that it writes by hand."""

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from lading_node.hardware import measure, score, tiny_onnx
from lading_node.hardware.devices import Device
from lading_node.hardware.measure import Item, Sample
from lading_node.hardware.score import Busy, Figure, Score


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_the_hand_written_files_are_right_and_multiply(kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind == "f32":
        left, weights = (rng.standard_normal((300, 300), np.float32) for _ in range(2))
    else:
        left, weights = rng.integers(0, 256, (300, 300), np.uint8), rng.integers(-128, 128, (300, 300), np.int8)
    data = tiny_onnx.multiplication(300, weights.tobytes(), kind)
    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"a": left})
    if kind == "f32":
        np.testing.assert_allclose(out, left @ weights, rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_array_equal(out, left.astype(np.int32) @ weights.astype(np.int32))


def test_rounds_take_turns_and_end_in_time() -> None:
    ran: list[str] = []
    made = [Item(name, "GB/s", 1.0, lambda name=name: ran.append(name)) for name in ("a", "b")]  # type: ignore[misc]
    told: list[Sample] = []
    began = time.perf_counter()
    measure.rounds(iter([made[0], Sample("c", skipped="no card"), made[1]]), began + 0.3, told.append)
    assert time.perf_counter() - began < 0.6
    assert [one.name for one in told[:3]] == ["a", "c", "b"]
    names = [one.name for one in told[3:]]
    assert names == (["a", "b"] * len(names))[: len(names)]
    assert len(names) >= 2


def test_figures_keep_best_median_and_spread() -> None:
    samples = [Sample("copy", "GB/s", value) for value in (10.0, 30.0, 20.0, 40.0)]
    (figure,) = score.figures([*samples, Sample("bf16", skipped="no torch")])
    assert figure == Figure("copy", "GB/s", best=40.0, median=25.0, spread=4.0, samples=4)


def test_a_busy_machine_is_told_by_its_ticks(tmp_path: Path) -> None:
    """user nice system idle iowait irq softirq steal: 40 of 100 were busy or stolen, none of them ours."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 0 0 9000 0 0 0 0 5 5\n")
    busy = Busy(stat)
    stat.write_text("cpu  1020000 0 0 1059000 1000 0 0 20000 5 5\n")
    assert busy.others() == pytest.approx(0.494, abs=0.01)
    assert Busy(tmp_path / "none").others() == 0.0


def test_warnings_name_what_spoils_a_score() -> None:
    calm = Figure("cpu copy", "GB/s", 10, 10, 1.1, 5)
    assert score.warnings([calm], (0.3, 1.9), 0.05, 2, [Device("cpu", 0, "EPYC")]) == ()
    hot = Device("nvidia", 0, "NVIDIA L4", throttled=("too hot (driver)",), tenants=2)
    wide = Figure("cpu matmul f32", "TFLOP/s", 3, 2, 2.9, 5)
    said = score.warnings([calm, wide], (6.0, 6.0), 0.61, 2, [hot])
    assert [("61%" in line, "f32" in line, "too hot" in line, "shared with 2" in line) for line in said] == [
        (True, False, False, False),
        (False, True, False, False),
        (False, False, True, False),
        (False, False, False, True),
    ]
    assert "load average was 6.0" in score.warnings([calm], (6.0, 6.0), 0.1, 2, [])[0]


def test_scores_are_kept_with_their_time_and_the_oldest_go(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    assert score.last(folder) is None
    for i in range(130):
        made = Score(f"2026-01-01T00:{i:02}:00+00:00", 5, ("cpu-avx2",), (Figure("copy", "GB/s", i, i, 1, 1),))
        path = score.keep(folder, made)
    assert len(path.read_bytes().splitlines()) == 100
    found = score.last(folder)
    assert found == made
    assert "proves nothing" in found.note
    path.write_bytes(path.read_bytes() + b'{"half a li')
    assert score.last(folder) == made
