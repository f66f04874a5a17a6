"""Discovery and score on this very machine, and against vendor libraries that hang, crash, print and flood."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from lading.cli.main import main
from lading_node.hardware import cpu
from lading_node.hardware.devices import device_class
from lading_node.hardware.discover import described, discover

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("LADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LADING_SETTINGS", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_this_machine_has_a_processor_and_says_why_it_has_no_more() -> None:
    found = asyncio.run(discover())
    (processor,) = (device for device in found.devices if device.vendor == "cpu")
    assert 0 < processor.cores <= cpu.affinity()
    assert processor.memory > 1 << 28
    assert device_class(processor).startswith("cpu-")
    vendors = {device.vendor for device in found.devices}
    assert vendors | set(found.troubles) == {"cpu", "nvidia", "amd", "intel", "apple"}
    assert not vendors & set(found.troubles)
    if "nvidia" not in vendors:
        assert "NVIDIA: no driver (libnvidia-ml.so is missing)." in described(found)


HOSTILE = """
import os, signal, sys, time
vendor = sys.argv[1]
if vendor == "nvidia":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
if vendor == "amd":
    os.kill(os.getpid(), signal.SIGSEGV)
if vendor == "intel":
    while True:
        print("x" * 65536)
if vendor == "apple":
    print('{"devices": [{"vendor": "apple"}]}')
if vendor == "cpu":
    print('{"devices": [{"vendor": "cpu", "index": 0, "name": "EPYC"}]}')
"""


def test_a_vendor_that_misbehaves_costs_its_deadline_and_nobody_elses_answer() -> None:
    began = time.monotonic()
    found = asyncio.run(discover(1.5, command=(sys.executable, "-c", HOSTILE)))
    assert time.monotonic() - began < 30
    assert [device.name for device in found.devices] == ["EPYC"]
    assert found.troubles["nvidia"] == "it did not answer within 1.5 s"
    assert found.troubles["amd"] == "its process broke (status -11)"
    assert set(found.troubles) == {"nvidia", "amd", "intel", "apple"}


def test_a_machine_where_no_process_starts_is_told_in_words() -> None:
    found = asyncio.run(discover(command=("/nowhere/python",)))
    assert found.devices == ()
    assert all("no process can be started" in why for why in found.troubles.values())


def test_devices_and_bench_are_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = str(tmp_path / "node")
    began = time.monotonic()
    arguments = ["node", "bench", "--quick", "--agent", str(ROOT / "agents/chat"), "--data", node]
    assert main([*arguments, "--json"]) == 0
    assert time.monotonic() - began < 60
    made = json.loads(capsys.readouterr().out)
    names = {figure["name"] for figure in made["figures"]}
    assert {"cpu matmul f32", "cpu matmul int8", "cpu copy", "tokens of lading-chat, one thread"} <= names
    for figure in made["figures"]:
        assert 0 < figure["median"] <= figure["best"]
        assert figure["spread"] >= 1
    assert Path(made["file"]).parent == Path(node)
    assert main(["node", "devices", "--data", node]) == 0
    told = capsys.readouterr().out
    assert "cpu-" in told
    assert f"Last score: {made['at']}" in told
    assert "proves nothing" in told
    assert main(["node", "devices", "--data", node, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"]["at"] == made["at"]


def test_an_agent_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "bench", "--quick", "--agent", str(tmp_path), "--data", str(tmp_path / "node"), "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "bad_project"
