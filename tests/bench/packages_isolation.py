"""What isolation costs: starting a process behind the wall and in its confinement, and the self-test of the tiers.

A start is measured from the first call until the process says its first line, the same small program on both sides;
rounds alternate, so that noise of the machine meets both; medians.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lading_node.engines.child import ChildEngine
from lading_node.engines.launch import prepare
from lading_node.engines.port import EngineSpec
from lading_node.engines.probe import probe_process
from lading_node.engines.wall import Room, Wall, find_wall, wall_command

from .report import say

_PROGRAM = (sys.executable, "-I", "-B", "-c", "print('here', flush=True); import sys; sys.stdin.read()")


def started(command: list[str]) -> float:
    """Milliseconds until the program speaks."""
    pipe = subprocess.PIPE
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={"LANG": "C.UTF-8"}) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        took = (time.perf_counter() - began) * 1e3
    assert said == "here\n", "the program did not start"
    return took


def wall_start(rounds: int, scratch: Path) -> None:
    wall = find_wall()
    if isinstance(wall, str):
        say("isolation_bubblewrap_start", None, "ms", bar="<= 50", note=wall)
        return
    behind = wall_command(wall, Room(str(scratch), 1 << 20))
    bare, walled = [], []
    for _ in range(rounds + 1):
        bare.append(started([*_PROGRAM]))
        walled.append(started([*behind, *_PROGRAM]))
    plain, inside = statistics.median(bare[1:]), statistics.median(walled[1:])
    extra = statistics.median(b - a for a, b in zip(bare[1:], walled[1:], strict=True))
    say(
        "isolation_bubblewrap_start",
        extra,
        "ms",
        bar="<= 50",
        n=rounds,
        note=f"what the wall adds to the start of a process: {inside:.1f} ms against {plain:.1f} ms bare",
    )


async def engine_start(rounds: int, scratch: Path) -> None:
    """A whole engine with the smallest model, with everything that isolates it; and without the wall."""
    took: dict[str, list[float]] = {"walled": [], "alone": []}
    wall = find_wall()
    for _ in range(rounds + 1):
        for name, chosen in (("alone", "measured without the wall"), ("walled", wall)):
            took[name].append(await _engine(scratch, chosen))
    alone, walled = (statistics.median(took[name][1:]) for name in ("alone", "walled"))
    note = "process, imports and the toy model; namespaces, landlock, system calls and limits hold in both"
    say("isolation_engine_start", walled, "ms", reference=("the same without bubblewrap", alone), n=rounds, note=note)


async def _engine(scratch: Path, wall: Wall | str) -> float:
    from lading_node.engines import child

    honest = child.prepare
    child.prepare = lambda spec, folder: prepare(spec, folder, wall=wall)
    engine = ChildEngine(EngineSpec("memory"), scratch)
    try:
        began = time.perf_counter()
        await engine.start()
        return (time.perf_counter() - began) * 1e3
    finally:
        child.prepare = honest
        await engine.stop(0)


async def probe_time(rounds: int, scratch: Path) -> None:
    found = [await probe_process(scratch) for _ in range(rounds)]
    passed = sum(one.passed for one in found)
    note = f"tier P, {len(found[0].held)} attempts denied, passed {passed} of {rounds} times"
    say("isolation_probe", statistics.median(one.took_ms for one in found), "ms", bar="<= 2000", n=rounds, note=note)


def rows(quick: bool = False) -> None:
    """Prints its lines; for whoever puts the benchmarks of packages together."""
    rounds = 5 if quick else 25
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        wall_start(rounds, scratch)
        asyncio.run(engine_start(3 if quick else 9, scratch))
        asyncio.run(probe_time(3 if quick else 7, scratch))


if __name__ == "__main__":
    rows("--quick" in sys.argv)
