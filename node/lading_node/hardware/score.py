"""A score of this machine that hides nothing: best and median, how far samples lay apart, and who else was at work.

It orders this machine's own devices and shows when one got slower. To anybody else it proves nothing.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lading_node.hardware.devices import Device, Inventory, device_class
from lading_node.hardware.discover import discover
from lading_node.hardware.measure import Sample

FULL_SECONDS, QUICK_SECONDS = 30.0, 5.0
PROVES_NOTHING = (
    "A score that a machine gives itself proves nothing: payers go by the tokens per second of real traffic, "
    "which overrules it."
)
FILE = "scores.jsonl"
_KEPT = 100
_BUSY = 0.2
_WIDE = 1.5


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`spread` is the best sample by the worst: 1 says that all were equal."""

    name: str
    unit: str
    best: float
    median: float
    spread: float
    samples: int


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`at` is UTC. `load` is the one-minute load average before and after; `others` the part of all processors that
    other programs, and on a virtual machine its neighbours, took meanwhile."""

    at: str
    seconds: float
    devices: tuple[str, ...]
    figures: tuple[Figure, ...]
    skipped: dict[str, str] = {}
    load: tuple[float, float] = (0.0, 0.0)
    others: float = 0.0
    warnings: tuple[str, ...] = ()
    note: str = PROVES_NOTHING


class Busy:
    """Processor time of the whole machine, ours left out, from one moment on. Linux tells; elsewhere it says 0."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._before = self._read()

    def _read(self) -> tuple[float, float]:
        """Ticks of others that were busy, and ticks altogether."""
        try:
            ticks = [int(part) for part in self._stat.read_text().splitlines()[0].split()[1:9]]
        except (OSError, ValueError, IndexError):
            return 0.0, 0.0
        own = os.times()
        ours = (own.user + own.system + own.children_user + own.children_system) * os.sysconf("SC_CLK_TCK")
        return sum(ticks) - ticks[3] - ticks[4] - ours, float(sum(ticks))

    def others(self) -> float:
        """A part of 1. Children of ours count once they have ended."""
        busy, total = (now - then for now, then in zip(self._read(), self._before, strict=True))
        return min(1.0, max(0.0, busy / total)) if total > 0 else 0.0


async def measure(seconds: float, threads: int) -> list[Sample]:
    """Run the measuring process for `seconds`, kill it a little later, and take what it wrote by then."""
    command = (sys.executable, "-I", "-X", "utf8", "-m", "lading_node.hardware.measure")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ORT_DISABLE_TELEMETRY": "1"}
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, str(seconds), str(threads), str(os.getpid()), stdin=null, stdout=pipe, stderr=null, env=environment
    )
    assert process.stdout is not None
    found: list[Sample] = []
    try:
        async with asyncio.timeout(1.5 * seconds + 2):
            async for line in process.stdout:
                found.append(msgspec.json.decode(line, type=Sample))
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            while await process.stdout.read(1 << 16):
                pass  # its end is told only once its pipe is empty
        await process.wait()
    return found


def figures(samples: Iterable[Sample]) -> tuple[Figure, ...]:
    by_name: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        if not sample.skipped:
            by_name.setdefault((sample.name, sample.unit), []).append(sample.value)
    return tuple(
        Figure(name, unit, max(values), statistics.median(values), max(values) / max(min(values), 1e-12), len(values))
        for (name, unit), values in by_name.items()
    )


def warnings(
    found: Sequence[Figure], load: tuple[float, float], others: float, cores: float, devices: Iterable[Device]
) -> tuple[str, ...]:
    """Why the figures may be too low; empty for a quiet and cool machine."""
    said = []
    if others > _BUSY:
        said.append(f"Other work took {others:.0%} of the processors: the figures are too low. Measure again later.")
    elif load[0] > max(1.0, cores / 2):
        said.append(
            f"The load average was {load[0]:.1f} on {cores:g} cores before it began: others may have disturbed."
        )
    wide = [figure.name for figure in found if figure.spread > _WIDE]
    if wide:
        said.append(f"Samples lay more than {_WIDE:g} times apart for: {', '.join(wide)}. Trust the medians.")
    said += [
        f"{device.name} ran slower than it can: {', '.join(device.throttled)}."
        for device in devices
        if device.throttled
    ]
    said += [
        f"{device.name} was shared with {device.tenants} other programs."
        for device in devices
        if device.vendor != "cpu" and device.tenants
    ]
    return tuple(said)


async def score(seconds: float, speed: Mapping[str, Sequence[float]] | None = None) -> Score:
    """Measure for about `seconds`. `speed` are tokens per second of agents that were run before, by name."""
    inventory = await discover()
    cores = next((device.cores for device in inventory.devices if device.vendor == "cpu"), 1.0)
    load, busy, began = os.getloadavg()[0], Busy(), time.monotonic()
    samples = await measure(seconds, max(1, int(cores)))
    others, spent = busy.others(), time.monotonic() - began
    for name, values in (speed or {}).items():
        samples += [Sample(name, "token/s", value) for value in values]
    after: Inventory = await discover()  # a card shows its heat after the work
    found, loads = figures(samples), (load, os.getloadavg()[0])
    return Score(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(spent, 1),
        devices=tuple(device_class(device) for device in inventory.devices),
        figures=found,
        skipped={sample.name: sample.skipped for sample in samples if sample.skipped},
        load=loads,
        others=round(others, 3),
        warnings=warnings(found, loads, others, cores, after.devices),
    )


def keep(folder: Path, made: Score) -> Path:
    """Append to the folder's scores, of which the last hundred stay. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / FILE
    lines = [*_lines(path)[1 - _KEPT :], msgspec.json.encode(made)]
    fresh = path.with_suffix(".new")
    fresh.write_bytes(b"\n".join(lines) + b"\n")
    fresh.replace(path)
    return path


def last(folder: Path) -> Score | None:
    """The newest score that reads."""
    for line in reversed(_lines(folder / FILE)):
        try:
            return msgspec.json.decode(line, type=Score)
        except msgspec.MsgspecError:
            continue
    return None


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
