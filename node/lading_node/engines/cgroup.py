"""Limits that only a control group can set: memory as it is really used, and threads of a root's process.

A group is made below this program's own, where that is permitted (root, or a delegated one); versions 1 and 2. The
engine's process joins it by itself, through a file that we opened, before it confines itself.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "lading-"
_LIMITS = {
    "threads": ("pids", (("pids.max", "pids.max"),)),
    "memory": (
        "memory",
        (("memory.max", "memory.limit_in_bytes"), ("memory.swap.max", "memory.memsw.limit_in_bytes")),
    ),
}


class Group:
    """`joins` maps an open file to the names of the limits that a process gets by writing "0" into it."""

    def __init__(self) -> None:
        self.joins: dict[int, tuple[str, ...]] = {}
        self._folders: list[Path] = []

    def add(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folders.append(folder)
        self.joins[os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)] = names

    def close(self) -> None:
        """Our ends of the files: once the process has them."""
        for fd in self.joins:
            os.close(fd)
        self.joins = {}

    def remove(self) -> bool:
        """Whether nothing of it is left; a group whose process is still ending cannot go yet."""
        self.close()
        self._folders = [folder for folder in self._folders if not _removed(folder)]
        return not self._folders


def make_group(memory: int, threads: int, root: Path = _ROOT, own: Path = Path("/proc/self/cgroup")) -> Group:
    """A group with as many of the limits as can be had; `memory` in bytes, 0 for no limit of it."""
    group = Group()
    wanted = {"threads": threads, **({"memory": memory} if memory else {})}
    name = f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    made: dict[Path, tuple[str, ...]] = {}
    for limit, value in wanted.items():
        for parent, unified in _places(_LIMITS[limit][0], root, own):
            _sweep(parent)
            if _set(parent / name, limit, value, unified):
                made[parent / name] = (*made.get(parent / name, ()), limit)
                break
    for folder, names in made.items():
        try:
            group.add(folder, names)
        except OSError:
            _removed(folder)
    return group


def _places(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """Groups that a child with this controller may be made in, our own first, and whether they are of version 2."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield root / controllers / path.lstrip("/"), False
        elif not controllers:
            place = root / path.lstrip("/")
            for folder in (place, *place.parents):
                if not folder.is_relative_to(root):
                    break
                if controller in _words(folder / "cgroup.subtree_control"):
                    yield folder, True


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _set(folder: Path, limit: str, value: int, unified: bool) -> bool:
    try:
        folder.mkdir(exist_ok=True)
        for i, (new, old) in enumerate(_LIMITS[limit][1]):
            file = folder / (new if unified else old)
            if i == 0 or file.exists():  # swap may not be counted at all
                file.write_text("0" if unified and i else str(value))
    except OSError:
        _removed(folder)
        return False
    return True


def _sweep(parent: Path) -> None:
    """Remove what a program that was killed left behind."""
    try:
        leftovers = list(parent.glob(f"{_PREFIX}*-*"))
    except OSError:
        return
    for folder in leftovers:
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _removed(folder)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
