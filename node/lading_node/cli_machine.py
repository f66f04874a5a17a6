"""`lading node devices` and `lading node bench`: what this machine has and how fast it is. Measures nothing itself."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape

from lading.cli.flags import Json, Switch
from lading.cli.output import UNHEALTHY, emit, emit_rows, err, out, plain
from lading_node import settings as settings_
from lading_node.cli_flags import Data
from lading_node.hardware import score as scores
from lading_node.hardware import speed
from lading_node.hardware.devices import GIB, Device, Inventory, device_class, remarks
from lading_node.hardware.discover import described, discover
from lading_node.hardware.score import FULL_SECONDS, QUICK_SECONDS, Figure, Score
from lading_protocol.errors import LadingError

# The part of the time that goes to an agent's tokens, and what finding the devices takes, in seconds.
_SPEED_PART, _LOOKING = 0.25, 1.0


async def devices(*, data: Data = None, as_json: Json = False) -> int:
    """What this machine can compute on, what lowers its worth, and why a vendor's cards were not found."""
    inventory = await discover()
    last = scores.last(settings_.read({"data": data}).folder)
    if as_json:
        print(json.dumps(record(inventory, last)))
    else:
        show_devices(inventory, last)
    return 0 if any(device.usable for device in inventory.devices) else UNHEALTHY


async def bench(*, quick: Switch = False, agent: Path | None = None, data: Data = None, as_json: Json = False) -> int:
    """Measure this machine: half a minute, of which a noisy neighbour may spoil any part.

    Parameters
    ----------
    quick
        Five seconds: enough to see that it works.
    agent
        Folder of a chat agent whose tokens per second are measured too; by default one that this node holds.
    """
    folder = settings_.read({"data": data}).folder
    seconds = QUICK_SECONDS if quick else FULL_SECONDS
    if not as_json:
        err.print(f"Measuring for about {seconds:g} s …")
    began = time.monotonic()
    told, why = await _speed(folder, agent, seconds * _SPEED_PART)
    left = max(1.0, seconds - (time.monotonic() - began) - _LOOKING)
    made = await scores.score(left, told)
    made = msgspec.structs.replace(made, skipped={**made.skipped, **why})
    kept = scores.keep(folder, made)
    if as_json:
        print(json.dumps({**msgspec.to_builtins(made), "file": str(kept)}))
    else:
        show_score(made, kept)
    return 0 if made.figures else UNHEALTHY


async def _speed(folder: Path, agent: Path | None, seconds: float) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Samples by name, and why there are none. Raises LadingError only for an agent that was named."""
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as scratch:
        place = Path(scratch)
        try:
            found = speed.project(agent.expanduser(), place, 1) if agent is not None else speed.held(folder, 1)
            if found is None:
                return {}, {"tokens": "no chat agent is here: name one with --agent FOLDER, or serve one first"}
            name, spec = found
            return {f"tokens of {name}, one thread": await speed.tokens_per_second(spec, place, seconds)}, {}
        except LadingError as error:
            if agent is not None:
                raise
            return {}, {"tokens": error.message}


def record(inventory: Inventory, last: Score | None) -> dict[str, Any]:
    return {
        "devices": [
            {"class": device_class(one), **msgspec.to_builtins(one), "remarks": remarks(one)}
            for one in inventory.devices
        ],
        "troubles": inventory.troubles,
        "score": msgspec.to_builtins(last),
    }


def show_devices(inventory: Inventory, last: Score | None) -> None:
    emit_rows([_row(device) for device in inventory.devices], False, "Nothing to compute on was found.")
    for device in inventory.devices:
        for remark in remarks(device):
            _line(f"- {device_class(device)}: {remark}")
    for line in described(inventory):
        _line(line)
    if last is None:
        _line("No score yet. Measure with: lading node bench")
    else:
        _line(f"Last score: {last.at}. {scores.PROVES_NOTHING}")


def _row(device: Device) -> dict[str, str]:
    used, size = device.memory_used / GIB, device.memory / GIB
    return {
        "class": device_class(device),
        "device": device.name,
        "memory in use": f"{used:.1f} of {size:.1f} GiB" if device.memory else "unknown",
        "cores": f"{device.cores:g}" if device.cores else "",
        "driver": device.driver,
    }


def show_score(made: Score, kept: Path) -> None:
    emit_rows([_figures(figure) for figure in made.figures], False, "Nothing was measured in time.")
    for name, why in made.skipped.items():
        _line(f"- {name}: not measured: {why}.")
    for warning in made.warnings:
        out.print(f"[yellow]{escape(plain(warning))}[/]", soft_wrap=True)
    emit(
        {
            "devices": ", ".join(made.devices),
            "load": f"{made.load[0]:.2f} before, {made.load[1]:.2f} after; others took {made.others:.0%}",
            "kept in": kept,
        },
        False,
    )
    _line(made.note)


def _figures(figure: Figure) -> dict[str, str]:
    return {
        "measured": figure.name,
        "best": f"{figure.best:.3g}",
        "median": f"{figure.median:.3g}",
        "unit": figure.unit,
        "spread": f"x{figure.spread:.2f}",
        "samples": str(figure.samples),
    }


def _line(text: str) -> None:
    out.print(escape(plain(text)), soft_wrap=True)
