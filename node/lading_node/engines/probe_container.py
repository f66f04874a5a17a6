"""The self-test of tiers C and G: the same attempts as in a process, made by a container that is made as an agent's is.

The container engine is asked for everything by dock.py, which blocks and so has a thread here.
"""

import asyncio
import importlib.util
import json
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading_node.engines.container import owner
from lading_node.engines.demux import STDOUT, Demux
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.port import Tier
from lading_node.engines.probe import NAMES, Probe, Range, judge
from lading_node.engines.probe_image import probe_image

if TYPE_CHECKING:
    from lading_node.engines.dock import Dock, Plan

DEADLINE_S = 60.0
MEMORY = 256 << 20
_READ = 1 << 16
_RUNTIMES: dict[Tier, str] = {"C": "", "G": "runsc"}
# Folders that a container has for itself; that what is made there stays there is seen from outside.
_OWN = ("/tmp", "/dev/shm")
# What a guest of gVisor gets of these is gVisor's own, not this machine's kernel's. Its threads are so too: what they
# cost here is memory and tasks of one container, which its groups bound.
_OWN_KERNEL: dict[Tier, frozenset[str]] = {
    "C": frozenset(),
    "G": frozenset({"netlink", "namespaces", "devices", "io_uring", "threads", "processes"}),
}
# Which attempts one container makes. Where its limit ends gVisor itself, an attempt needs a container of its own.
_ALONE = ("threads", "processes")
_ROUNDS: dict[Tier, tuple[tuple[str, ...], ...]] = {
    "C": (NAMES,),
    "G": (tuple(name for name in NAMES if name not in _ALONE), *((name,) for name in _ALONE)),
}


async def probe_container(
    url: str, tier: Tier, folder: Path, folders: Iterable[Path] = (), *, deadline: float = DEADLINE_S
) -> Probe:
    """Never raises. `url` is the container engine's, `folder` where engines have their scratch."""
    began = time.perf_counter()
    held: list[str] = []
    failed: list[str] = []
    try:
        if importlib.util.find_spec("docker") is None:
            raise EngineError("engine_error", "The Docker SDK is not installed.")
        field = Range([folder, Path.home(), *folders])
        async with asyncio.timeout(deadline), field.laid(folder):
            held, failed = await _attack(url, tier, field, owner(folder))
            failed += field.damage()
    except TimeoutError:
        failed.append(f"it did not end within {deadline:g} s")
    except EngineError as error:
        failed.append(f"containers do not run here: {error.message}")
    except Exception as error:  # whatever it is, this tier has not passed
        failed.append(f"the self-test could not be made: {type(error).__name__}: {error}")
    return Probe(tier, not failed, tuple(held), tuple(failed), round((time.perf_counter() - began) * 1000))


async def _attack(url: str, tier: Tier, field: Range, whose: str) -> tuple[list[str], list[str]]:
    from lading_node.engines.dock import Plan

    dock = await asyncio.to_thread(_open, url)
    if (runtime := _RUNTIMES[tier]) and runtime not in (await asyncio.to_thread(dock.about)).get("Runtimes", {}):
        raise EngineError("engine_error", f"The container engine has no runtime {runtime!r}.")
    image = await asyncio.to_thread(_image, dock)
    held: list[str] = []
    failed: list[str] = []
    for tried in _ROUNDS[tier]:
        plan = Plan(f"lading-probe-{uuid.uuid4().hex}", whose, MEMORY, 1, runtime)
        try:
            lines, status = await _run(dock, image, plan, field, tried)
        finally:
            await asyncio.to_thread(dock.remove, plan.name)
        denied, got = judge(lines, status, tried=tried, harmless=_OWN_KERNEL[tier])
        held, failed = held + denied, failed + got
    return held, failed


async def _run(
    dock: "Dock", image: str, plan: "Plan", field: Range, tried: tuple[str, ...]
) -> tuple[list[dict[str, Any]], str]:
    """The lines of the attempts, and how they ended in words ("" when all were made)."""
    from lading_node.engines.dock import TMP

    await asyncio.to_thread(dock.create, image, plan)
    link = await asyncio.to_thread(dock.attach, plan.name)
    reader, writer = await asyncio.open_unix_connection(sock=link)
    try:
        await asyncio.to_thread(dock.start, plan.name)
        told = field.targets("/tmp") | {"quota": TMP, "memory": MEMORY}
        told["skip"] = [name for name in NAMES if name not in tried]
        told["places"] = [place for place in told["places"] if place not in _OWN]
        writer.write(json.dumps(told).encode() + b"\n")
        demux, said, words = Demux(), bytearray(), bytearray()
        while (data := await reader.read(_READ)) and len(said) + len(words) < _READ:
            for stream, piece in demux.feed(data):
                (said if stream == STDOUT else words).extend(piece)
    finally:
        writer.close()
    state = await asyncio.to_thread(dock.state, plan.name)
    why = one_line(bytes(words[-200:]).decode(errors="replace"))
    status = f"the process ended with {state.status} {why}".strip() if state.status or state.running else ""
    return [json.loads(line) for line in bytes(said).splitlines()], status


def _open(url: str) -> "Dock":
    """The import takes longer than an event loop may."""
    from lading_node.engines.dock import Dock

    return Dock(url)


def _image(dock: "Dock") -> str:
    """Loaded once for every version of this Python and of the attempts; the container engine keeps it."""
    made = probe_image()
    if held := dock.image(made.tag):
        return held
    with tempfile.NamedTemporaryFile(prefix="lading-probe-", suffix=".tar") as file:
        file.write(made.archive)
        file.flush()
        return dock.load(Path(file.name), frozenset({made.id}), made.tag)
