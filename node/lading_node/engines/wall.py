"""bubblewrap as the outer wall of an engine's process: a world with nothing in it but Python, the agent and a scratch.

Finds out once whether it works here, and writes its command line. What the process does to itself inside is the
business of confine.py.
"""

import functools
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534
_TRIAL_S = 10.0
_MOST_FILES = 32  # every bind costs a mount; a package with more files is bound by its folders
_SYSTEM = (
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/sys/devices/system",
)
_DEVICES = ("/dev/nvidia*", "/dev/kfd", "/dev/dri", "/dev/dxg")
_DRIVERS = ("/sys/devices", "/sys/bus/pci", "/sys/class/drm", "/sys/class/kfd", "/sys/module/nvidia")
_DRIVER_LIBRARIES = ("/usr/local/cuda*", "/usr/local/nvidia", "/opt/rocm*")
_ASK = "import json,sys; print(json.dumps([p for p in sys.path if p]))"


class Wall(NamedTuple):
    """`sized`: it can bound a folder in memory, which bubblewrap learned in 0.7."""

    program: str
    sized: bool


class Room(NamedTuple):
    """What an engine's process may touch: `files` to read, `scratch` (at most `quota` bytes) and `written` to write."""

    scratch: str
    quota: int
    files: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    device: bool = False


@functools.cache
def find_wall() -> Wall | str:
    """The wall, or why there is none. Tries it: a kernel, a container or a policy may forbid what it needs. Blocks."""
    program = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")
    if sys.platform != "linux":
        return "bubblewrap is for Linux"
    if program is None:
        return "bubblewrap is not installed"
    with tempfile.TemporaryDirectory(prefix="lading-wall-") as scratch:
        for sized in (True, False):
            wall = Wall(program, sized)
            command = [*wall_command(wall, Room(os.path.realpath(scratch), 1 << 20)), sys.executable, "-I", "-S", "-c"]
            try:
                done = subprocess.run(
                    [*command, "print('inside')"], capture_output=True, text=True, timeout=_TRIAL_S, check=False, env={}
                )
            except (OSError, subprocess.SubprocessError) as error:
                return f"bubblewrap does not start: {error}"
            if done.stdout.strip() == "inside":
                return wall
    return f"bubblewrap does not work here: {' '.join(done.stderr.split())[:200]}"


def wall_command(wall: Wall, room: Room) -> list[str]:
    """The command line in front of the program to run. That program is process 1 of its own little world."""
    command = [wall.program, "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--cap-drop", "ALL", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "engine"]
    bound = _system_binds() + _binds([*_python(), *_shortened(room.files)])
    command += [*bound, "--proc", "/proc", "--dev", "/dev"]
    if room.device:
        command += _device_binds()
    if wall.sized:
        command += ["--size", str(room.quota), "--tmpfs", room.scratch]
    else:
        command += ["--bind", room.scratch, room.scratch]
    for path in room.written:
        command += ["--bind", path, path]
    # A root's process could still write the kernel's settings there, without any capability.
    sealed = _covers() if room.device else ["--remount-ro", "/proc", "--remount-ro", "/dev"]
    return [*command, *sealed, "--remount-ro", "/", "--chdir", room.scratch, "--"]


def _covers() -> list[str]:
    """A card's driver names its threads in /proc, or does not start: all else there that can be written is covered."""
    covers = []
    for path in sorted(Path("/proc").iterdir()):
        if not path.name.isdecimal() and not path.is_symlink() and (path.is_dir() or path.stat().st_mode & 0o222):
            covers += ["--ro-bind-try", str(path), str(path)]
    return covers


def _system_binds() -> list[str]:
    binds = []
    for path in _SYSTEM:
        if os.path.islink(path):
            binds += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            binds += ["--ro-bind", path, path]
    return binds


def _device_binds() -> list[str]:
    binds = []
    for path in (found for pattern in _DEVICES for found in sorted(glob.glob(pattern))):
        binds += ["--dev-bind", path, path]
    for path in [*_DRIVERS, *(found for pattern in _DRIVER_LIBRARIES for found in glob.glob(pattern))]:
        binds += ["--ro-bind-try", path, path]
    return binds


@functools.cache
def _python() -> tuple[str, ...]:
    """The interpreter and the folders it imports from, asked of one started as an engine's is."""
    asked = subprocess.run(
        [sys.executable, "-I", "-c", _ASK], capture_output=True, text=True, timeout=_TRIAL_S, check=True
    )
    links = [sys.executable]
    while os.path.islink(links[-1]):
        links.append(os.path.join(os.path.dirname(links[-1]), os.readlink(links[-1])))
    home = [sys.prefix] if sys.prefix != sys.base_prefix else []
    libraries = [os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")]
    found = [*home, *libraries, *links, os.path.realpath(sys.executable), *json.loads(asked.stdout)]
    return tuple(os.path.abspath(path) for path in found)


def _shortened(files: tuple[str, ...]) -> list[str]:
    return list(files) if len(files) <= _MOST_FILES else sorted({os.path.dirname(path) for path in files})


def _binds(paths: Iterable[str]) -> list[str]:
    """Read-only, parents before what lies below them; what the system's binds or a parent show already is left out."""
    binds: list[str] = []
    seen = [Path(path) for path in _SYSTEM if os.path.isdir(path)]
    for path in sorted({Path(path) for path in paths}):
        if path.exists() and not any(path.is_relative_to(parent) for parent in seen):
            binds += ["--ro-bind", str(path), str(path)]
            seen.append(path)
    return binds
