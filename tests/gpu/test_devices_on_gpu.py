"""What a node says of the card in this machine is what the driver's own program says."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from lading.cli.main import main
from lading_node.hardware import score
from lading_node.hardware.devices import Device, device_class, serving_class
from lading_node.hardware.discover import discover

FIELDS = ("index", "name", "uuid", "memory.total", "driver_version", "compute_cap")


@pytest.fixture
def told(card: str) -> list[dict[str, str]]:
    """The cards, by nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        pytest.skip("nvidia-smi is not installed")
    command = [program, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    return [dict(zip(FIELDS, (cell.strip() for cell in row.split(",")), strict=True)) for row in rows]


def found() -> list[Device]:
    inventory = asyncio.run(discover())
    assert "nvidia" not in inventory.troubles, inventory.troubles
    return [device for device in inventory.devices if device.vendor == "nvidia"]


def test_every_card_is_found_as_the_driver_knows_it(told: list[dict[str, str]]) -> None:
    devices = found()
    assert [(one.index, one.name, one.uuid) for one in devices] == [
        (int(row["index"]), row["name"], row["uuid"]) for row in told
    ]
    for device, row in zip(devices, told, strict=True):
        assert device.usable
        assert device.memory >> 20 == pytest.approx(int(row["memory.total"]), rel=0.02)
        assert 0 <= device.memory_used < device.memory
        assert (device.driver, device.compute) == (row["driver_version"], row["compute_cap"])
        print(device_class(device), device)


def test_an_offer_names_the_card_where_the_engine_may_use_it(told: list[dict[str, str]]) -> None:
    every = asyncio.run(discover()).devices
    largest = max((one for one in every if one.vendor == "nvidia"), key=lambda one: one.memory)
    assert serving_class(every, card=True) == device_class(largest)
    assert device_class(largest).startswith("nvidia-")
    assert serving_class(every, card=False).startswith("cpu-")


def test_the_command_shows_it(told: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "devices", "--json", "--data", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)["devices"]
    assert {row["name"] for row in told} <= {device["name"] for device in shown}


def test_the_measurement_reaches_the_card(told: list[dict[str, str]]) -> None:
    made = asyncio.run(score.score(10.0, {}))
    figures = {one.name: one for one in made.figures}
    print(figures, made.skipped)
    assert {"gpu0 matmul f32", "gpu0 matmul bf16", "gpu0 copy", "gpu0 from host"} <= figures.keys()
    assert figures["gpu0 matmul bf16"].best > 5 * figures["cpu matmul f32"].best
