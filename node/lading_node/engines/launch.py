"""How an engine's process is started here: the command inside the wall if there is one, its environment, its groups.

Decides from what this machine has; starts nothing itself.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from lading_node.engines.cgroup import Group, make_group
from lading_node.engines.confine import SCRATCH_QUOTA, THREADS, Bounds
from lading_node.engines.port import EngineSpec
from lading_node.engines.wall import Room, Wall, find_wall, wall_command

RUNNER = "lading_node.engines.runner"
# Of every engine: each library has a spelling of its own for "do not phone home".
QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "ORT_GENAI_TELEMETRY_DISABLED": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}


class Launch(NamedTuple):
    """`bounds` goes to the process in its first message; `group` is ours to remove when it has ended."""

    command: tuple[str, ...]
    environment: dict[str, str]
    bounds: Bounds
    group: Group


def prepare(
    spec: EngineSpec,
    scratch: Path,
    *,
    wall: Wall | str | None = None,
    module: str = RUNNER,
    quota: int = SCRATCH_QUOTA,
    written: tuple[str, ...] = (),
) -> Launch:
    """May block for a moment. `wall` is this machine's own unless one, or the reason for none, is given.

    `module` is what the process runs; it must confine itself by the bounds that it is sent. `written` are folders that
    it may write besides its scratch.
    """
    wall = find_wall() if wall is None else wall
    memory = spec.memory or _share()
    group = make_group(memory, THREADS)
    models = [file for model in spec.models for file in model.files]
    files = [os.path.abspath(file.path) for file in (*spec.files, *models)]
    if spec.cache:
        files.append(os.path.abspath(spec.cache))
    # A device's driver, and wasm's guard pages, reserve far more addresses than they will ever use.
    reserves = spec.device or spec.kind.startswith("wasm")
    bounds = Bounds(
        scratch=os.path.abspath(scratch),
        files=tuple(dict.fromkeys(files)),
        written=tuple(map(os.path.abspath, written)),
        memory=memory,
        address_space=bool(spec.memory) and not reserves,
        quota=quota,
        walled=isinstance(wall, Wall),
        sized=isinstance(wall, Wall) and wall.sized,
        device=spec.device,
        rootless=_rootless(),
        joins=group.joins,
    )
    return Launch(_command(wall, bounds, module), _environment(bounds.scratch, spec.threads, spec.card), bounds, group)


def _share() -> int:
    """Most of this machine's memory, in bytes: for an engine without a limit, so that it ends before its host does."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def _rootless() -> bool:
    """Whether the kernel takes this program for an ordinary user, also where a container calls it root."""
    if os.getuid() != 0:
        return True
    try:
        return Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"]
    except OSError:
        return False


def _command(wall: Wall | str, bounds: Bounds, module: str) -> tuple[str, ...]:
    """Inside the wall the process is the first one and has no parent that it could see: 0."""
    python = (sys.executable, "-I", "-B", "-X", "utf8", "-m", module)
    if isinstance(wall, str):
        return (*python, str(os.getpid()))
    room = Room(bounds.scratch, bounds.quota, bounds.files, bounds.written, bounds.device)
    return (*wall_command(wall, room), *python, "0")


def _environment(scratch: str, threads: int, card: str = "") -> dict[str, str]:
    """Every vendor's runtime has a name of its own for the one card that a process may see."""
    seen = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK") if card else ()
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "USER": "engine",  # or a library asks the system who it is, through a socket
        "OMP_NUM_THREADS": str(threads),
        **QUIET,
        **dict.fromkeys(seen, card),
    }
