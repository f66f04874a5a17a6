"""Takes an engine's process out of the world before it touches a stranger's bytes, and says honestly what holds.

Linux only in what it adds: elsewhere the list of what holds is shorter. Knows no engine.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable

from lading_node.engines.landlock import restrict

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000
_OPEN_FILES = 256
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
    "/dev/urandom",
)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends. Exits when it is already gone."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def take_stdio() -> tuple[int, int]:
    """The pipes to the parent, moved away from 0 and 1: a library that reads or prints meets the null device."""
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return reading, writing


def confine(memory: int, files: Iterable[str], scratch: str) -> tuple[str, ...]:
    """Apply every limit that can be had; returns the names of those that hold.

    `memory` is in bytes, 0 for no limit; `files` may be read besides the system's libraries and Python's own folders,
    `scratch` may be written. Call it before anything starts a thread: some limits bind only the calling one.
    """
    held = ["rlimits"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if sys.platform == "linux":
        libc = _libc()
        if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
            held.append("network")
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            held.append("no-new-privileges")
            own = [sys.prefix, sys.base_prefix, *sys.path, f"/proc/{os.getpid()}"]
            if restrict([*_SYSTEM, *own, *files], [scratch, os.devnull]):
                held.append("files")
    return tuple(held)
