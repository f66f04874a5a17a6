"""The runner of benchmarks: passes complete lines on, and tells a crash or a false claim from a slow result."""

import json
from pathlib import Path

import pytest

from bench.__main__ import run

SLOW = {"name": "slow", "value": 9, "unit": "s", "bar": "<= 1", "holds": False}


def bench(folder: Path, *lines: object, code: int = 0) -> list[str]:
    script = folder / "bench.py"
    shown = [json.dumps(line) for line in lines]
    script.write_text(f"import sys\nfor line in {shown!r}: print(line)\nsys.exit({code})\n")
    return [str(script)]


def test_a_missed_bar_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(bench(tmp_path, SLOW))
    assert not outcome.trouble
    (line,) = outcome.lines
    assert line.holds is False
    fields = ["name", "value", "unit", "reference", "reference_value", "ratio", "bar", "holds", "n", "note"]
    assert list(json.loads(capsys.readouterr().out)) == fields


def test_a_false_claim_is_trouble(tmp_path: Path) -> None:
    outcome = run(bench(tmp_path, SLOW | {"holds": True}, SLOW))
    assert "slow says holds=True" in outcome.trouble
    assert len(outcome.lines) == 1


def test_a_crash_is_trouble_and_keeps_what_came_before(tmp_path: Path) -> None:
    outcome = run(bench(tmp_path, SLOW, code=3))
    assert outcome.trouble == "it ended with 3"
    assert len(outcome.lines) == 1


def test_silence_is_trouble(tmp_path: Path) -> None:
    assert run(bench(tmp_path)).trouble == "it found nothing"


def test_a_benchmark_whose_device_is_not_here_has_not_crashed() -> None:
    assert run(["-c", "import sys; sys.exit(77)"]).lacking
    told = run(["-c", "import sys; print('words'); sys.exit(77)"])
    assert told.lacking
    assert told.trouble
