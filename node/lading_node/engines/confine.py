"""Takes an engine's process out of the world before it touches a stranger's bytes, and says honestly what holds.

Works alone, and inside the wall (wall.py), which has done some of it already. Linux only in what it adds: elsewhere
the list of what holds is shorter. Knows no engine.
"""

import ctypes
import os
import re
import resource
import signal
import sys

import msgspec

from lading_node.engines.landlock import restrict
from lading_node.engines.seccomp import seal

THREADS = 512
SCRATCH_QUOTA = 256 << 20

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 14, 1 << 18
_OPEN_FILES = 256
_CAPABILITIES_VERSION = 0x20080522
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
_DEVICE_READS = ("/proc/driver", "/proc/devices", "/proc/modules", "/proc/self", "/sys", "/opt/rocm")
_DEVICE_NODES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/dxg")


class Bounds(msgspec.Struct, frozen=True):
    """What an engine's process may have.

    `files` (or folders) are read besides the system's libraries and Python's own folders; `scratch` is written, at most
    `quota` bytes of it, and `written` are folders for a step that makes something for later processes. `memory` is in
    bytes, 0 for no limit; with `address_space` it also bounds addresses that are only reserved. `walled`: the process
    is inside the wall, whose scratch has its quota (`sized`). `device` leaves the graphics cards open. `rootless`: this
    machine's kernel does not take the process for root. `joins` maps the open files of control groups to the limits
    that joining them sets.
    """

    scratch: str
    files: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    memory: int = 0
    address_space: bool = True
    quota: int = SCRATCH_QUOTA
    walled: bool = False
    sized: bool = False
    device: bool = False
    rootless: bool = False
    joins: dict[int, tuple[str, ...]] = {}


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


def confine(bounds: Bounds, parent: int) -> tuple[str, ...]:
    """Apply every limit that can be had; returns the names of those that hold.

    Call it before anything starts a thread: some limits bind only the calling one. `parent` is whom to die with.
    """
    held = ["rlimits", *_join(bounds.joins)]
    if bounds.walled:
        held += ["bubblewrap", "users", "network", "files", *(["disk"] if bounds.sized else [])]
    elif sys.platform == "linux":
        held += _leave(bounds)
    _limit(bounds, held)
    if sys.platform == "linux":
        die_with(parent)  # again: a new user namespace makes the kernel forget it
        held += _seal(bounds)
    return tuple(dict.fromkeys(held))


def _join(joins: dict[int, tuple[str, ...]]) -> list[str]:
    names: list[str] = []
    for fd, limits in joins.items():
        try:
            os.write(fd, b"0")
            names += limits
        except OSError:
            pass
        finally:
            os.close(fd)
    return names


def _leave(bounds: Bounds) -> list[str]:
    """Namespaces of our own, where there is no wall: no network, and a scratch in memory that cannot outgrow its
    quota."""
    libc, held = _libc(), ["network"]
    user, group = os.getuid(), os.getgid()
    spaces = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWNS
    if libc.unshare(spaces) != 0:
        if libc.unshare(spaces | _CLONE_NEWUSER) != 0:
            return held if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 else []
        held.append("users")
        if not _keep_ids(user, group):
            return held
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    size = f"size={bounds.quota}".encode()
    if libc.mount(b"tmpfs", os.fsencode(bounds.scratch), b"tmpfs", _MS_NOSUID | _MS_NODEV, size) == 0:
        os.chdir(bounds.scratch)
        held.append("disk")
    return held


def _keep_ids(user: int, group: int) -> bool:
    """In a new user namespace: be who we were, or no file could be made in it."""
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def _limit(bounds: Bounds, held: list[str]) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, bounds.quota)
    if bounds.memory and bounds.address_space:
        _lower(resource.RLIMIT_AS, bounds.memory)
    if bounds.memory:  # counts what may be written; a driver's reserved addresses are not among it
        _lower(resource.RLIMIT_DATA, bounds.memory)
        held.append("memory")
    if "threads" not in held and "users" in held and bounds.rootless and _release() >= (5, 14):
        # Counts the threads of this process's own user namespace only, since then. Never binds root.
        _lower(resource.RLIMIT_NPROC, THREADS)
        held.append("threads")


def _release() -> tuple[int, int]:
    major, minor = re.match(r"(\d+)\.(\d+)", os.uname().release).groups()  # type: ignore[union-attr]
    return int(major), int(minor)


def _lower(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _seal(bounds: Bounds) -> list[str]:
    libc, held = _libc(), []
    if _drop_capabilities(libc):
        held.append("capabilities")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return held
    held.append("no-new-privileges")
    own = [sys.prefix, sys.base_prefix, *sys.path, f"/proc/{os.getpid()}"]
    readable, writable = [*_SYSTEM, *own, *bounds.files], [bounds.scratch, os.devnull, *bounds.written]
    if bounds.device:
        readable += _DEVICE_READS
        writable.append(f"/proc/{os.getpid()}/task")  # CUDA names its threads there, or does not start
        writable += [f"/dev/{name}" for name in os.listdir("/dev") if f"/dev/{name}".startswith(_DEVICE_NODES)]
    if restrict(readable, writable):
        held += ["files", "landlock"]
    if seal(os.getpid(), unix=bounds.device and bounds.walled, device=bounds.device):
        held.append("syscalls")
    return held


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    return bool(libc.capset(header, (ctypes.c_uint32 * 6)()) == 0)
