"""What an enemy would try from inside an engine, each tried once: the self-test of the isolation tiers runs it there.

A plain program of the standard library only, so that the same file runs in a process and in any container that has
Python: one JSON object of `Targets` on stdin; on stdout a line {"trying": name} before each attempt and a line
{"name": .., "got": ..} after it, where `got` is "" when it was denied. A limit on memory may well end the program: that
attempt is last.
"""

import ctypes
import json
import mmap
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_ARM = platform.machine() == "aarch64"
_SYSCALLS = {
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "process_vm_readv": (310, 270),
    "pidfd_open": (434, 434),
}
_NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000}
_SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state")
_DEVICES = ("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/vsock")
_FORKS, _THREADS = 300, 1200
_PIECE = 1 << 20
_CONNECT_S = 0.5


class Targets:
    """`canaries` maps paths of host files to their secret content; `places` are folders to write in; `listeners` are
    [family, address...] where the host listens ("letters": for datagrams between processes); `parent` is the host's
    process; `quota` and `memory` are in bytes."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.canaries: dict[str, str] = told.get("canaries", {})
        self.places: list[str] = told.get("places", [])
        self.listeners: list[list[Any]] = told.get("listeners", [])
        self.parent: int = told.get("parent", 0)
        self.quota: int = told.get("quota", 0)
        self.memory: int = told.get("memory", 0)
        self.mark: str = told.get("mark", "mark")
        self.scratch: str = told.get("scratch", ".")


def _call(name: str, *arguments: object) -> int:
    number = _SYSCALLS[name][_ARM]
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))


def read_host(to: Targets) -> str:
    for path, secret in to.canaries.items():
        with _quiet(), open(path) as file:
            if secret in file.read():
                return f"read {path}"
    return ""


def write_host(to: Targets) -> str:
    for place in to.places:
        with _quiet():
            path = os.path.join(place, to.mark)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            return f"made {path}"
    for path in to.canaries:
        with _quiet():
            os.close(os.open(path, os.O_WRONLY))
            return f"opened {path} to write"
    return ""


def kernel_settings(to: Targets) -> str:
    for path in _SETTINGS:
        with _quiet():
            os.close(os.open(path, os.O_WRONLY))
            return f"opened {path} to write"
    return ""


def devices(to: Targets) -> str:
    for path in _DEVICES:
        with _quiet():
            os.close(os.open(path, os.O_RDONLY))
            return f"opened {path}"
    return ""


def _connect(to: Targets, family: str) -> str:
    for kind, *address in to.listeners:
        if kind != family:
            continue
        with _quiet(), socket.socket(getattr(socket, family), socket.SOCK_STREAM) as line:
            line.settimeout(_CONNECT_S)
            line.connect(address[0] if family == "AF_UNIX" else tuple(address[:2]))
            return f"reached {address}"
    return ""


def ipv4(to: Targets) -> str:
    return _connect(to, "AF_INET")


def ipv6(to: Targets) -> str:
    return _connect(to, "AF_INET6")


def unix(to: Targets) -> str:
    return _connect(to, "AF_UNIX")


def datagram(to: Targets) -> str:
    """Through a route to anywhere: nothing is sent, the kernel only has to find a way."""
    with _quiet(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.connect(("192.0.2.1", 9))
        return "found a route out"
    return ""


def letters(to: Targets) -> str:
    """A datagram to a process of the host, through half of a pair or a socket of its own."""
    made: tuple[Callable[[], socket.socket], ...] = (
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0],
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW),  # the same by another name
    )
    for address in [place[1] for place in to.listeners if place[0] == "letters"]:
        for make in made:
            with _quiet(), make() as line:
                line.sendto(b"read me", address)
                return f"wrote to {address}"
    return ""


def _opens(family: str, kind: int) -> str:
    with _quiet():
        socket.socket(getattr(socket, family), kind).close()
        return f"opened a socket of {family}"
    return ""


def vsock(to: Targets) -> str:
    return _opens("AF_VSOCK", socket.SOCK_STREAM)


def netlink(to: Targets) -> str:
    return _opens("AF_NETLINK", socket.SOCK_RAW)


def packet(to: Targets) -> str:
    return _opens("AF_PACKET", socket.SOCK_RAW)


def io_uring(to: Targets) -> str:
    parameters = ctypes.create_string_buffer(120)
    return "set up a ring" if _call("io_uring_setup", 1, parameters) >= 0 else ""


def bpf(to: Targets) -> str:
    """BPF_MAP_CREATE of a small array."""
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
    return "made a map" if _call("bpf", 0, attributes, ctypes.sizeof(attributes)) >= 0 else ""


def userfaultfd(to: Targets) -> str:
    return "got a descriptor" if _call("userfaultfd", 0) >= 0 else ""


def keyrings(to: Targets) -> str:
    """KEYCTL_GET_KEYRING_ID of the session's."""
    return "got a keyring" if _call("keyctl", 0, -3, 1) >= 0 else ""


def perf(to: Targets) -> str:
    attributes = (ctypes.c_uint32 * 32)(1, 128)
    return "opened a counter" if _call("perf_event_open", attributes, 0, -1, -1, 0) >= 0 else ""


def signals(to: Targets) -> str:
    for target, whom in ((to.parent, "the host's program"), (-1, "processes")):
        with _quiet():
            if target:
                os.kill(target, 0)
                return f"could signal {whom}"
    return ""


def parent_memory(to: Targets) -> str:
    """By /proc, by process_vm_readv, and by ptrace."""
    with _quiet():
        if to.parent and to.parent != os.getpid():
            with open(f"/proc/{to.parent}/environ", "rb") as file:
                file.read(1)
                return "read the host program's environment"
    here = ctypes.create_string_buffer(8)
    spans = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
    if to.parent and _call("process_vm_readv", to.parent, spans, 1, spans, 1, 0) >= 0:
        return "read the host program's memory"
    if to.parent and ctypes.CDLL(None).ptrace(16, to.parent, 0, 0) == 0:
        ctypes.CDLL(None).ptrace(17, to.parent, 0, 0)
        return "attached to the host's program"
    return ""


def namespaces(to: Targets) -> str:
    for name, flag in _NAMESPACES.items():
        if ctypes.CDLL(None).unshare(flag) == 0:
            return f"made a {name} namespace"
    return ""


def mounts(to: Targets) -> str:
    libc = ctypes.CDLL(None)
    if libc.mount(b"tmpfs", to.scratch.encode(), b"tmpfs", 0, None) == 0:
        libc.umount2(to.scratch.encode(), 2)
        return "mounted a file system"
    return ""


def identity(to: Targets) -> str:
    with _quiet():
        os.setuid(0 if os.getuid() else 12345)
        return f"became user {os.getuid()}"
    return ""


def processes(to: Targets) -> str:
    """A fork bomb that stops itself. Children end by themselves even if nobody may kill them."""
    children: list[int] = []
    with _quiet():
        while len(children) < _FORKS:
            child = os.fork()
            if not child:
                time.sleep(2)
                os._exit(0)
            children.append(child)
    for child in children:
        with _quiet():
            os.kill(child, 9)
        with _quiet():
            os.waitpid(child, 0)
    return f"started {len(children)} processes" if len(children) == _FORKS else ""


def threads(to: Targets) -> str:
    import _thread

    _thread.stack_size(64 << 10)
    hold, started = _thread.allocate_lock(), 0
    hold.acquire()

    def wait() -> None:
        with hold:
            pass

    with _quiet(RuntimeError):
        while started < _THREADS:
            _thread.start_new_thread(wait, ())
            started += 1
    hold.release()
    until = time.monotonic() + 2
    while _thread._count() and time.monotonic() < until:
        time.sleep(0.005)
    return f"started {started} threads" if started == _THREADS else ""


def disk(to: Targets) -> str:
    """Fill the scratch, in several files: a limit on one file is no limit."""
    paths: list[str] = []
    written, piece = 0, b"\xa5" * _PIECE
    with _quiet():
        while written <= to.quota:
            path = os.path.join(to.scratch, f"fill{len(paths)}")
            paths.append(path)
            with open(path, "wb", buffering=0) as file:
                for _ in range(4):
                    written += file.write(piece)
    for path in paths:
        with _quiet():
            os.unlink(path)
    return f"wrote {written} bytes" if written > to.quota else ""


def memory(to: Targets) -> str:
    """More pages than allowed: reserved first, then touched. Ends by an error, or by being killed."""
    held: list[mmap.mmap] = []
    size, used = 16 << 20, 0
    with _quiet(MemoryError, ValueError):
        while size * len(held) <= to.memory:
            held.append(mmap.mmap(-1, size))
        for block in held:
            for at in range(0, size, mmap.PAGESIZE):
                block[at] = 1
            used += size
    held.clear()
    return f"used {used} bytes" if used > to.memory else ""


ATTEMPTS: tuple[Callable[[Targets], str], ...] = (
    *(read_host, write_host, kernel_settings, devices),
    *(ipv4, ipv6, unix, datagram, letters, vsock, netlink, packet, io_uring),
    *(bpf, userfaultfd, keyrings, perf, signals, parent_memory),
    *(threads, processes, disk, mounts, identity, namespaces, memory),
)


class _quiet:
    """What the kernel refuses is what we hope for."""

    def __init__(self, *more: type) -> None:
        self._kinds = (OSError, AttributeError, *more)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, self._kinds)


def attempt_all(told: dict[str, Any], skip: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    to = Targets(told)
    for one in ATTEMPTS:
        if one.__name__ in skip:
            continue
        yield {"trying": one.__name__}
        try:
            got = one(to)
        except Exception as error:
            got = f"the attempt itself failed: {type(error).__name__}: {error}"
        yield {"name": one.__name__, "got": got}


def main() -> None:
    told = json.loads(sys.stdin.readline())
    for line in attempt_all(told, tuple(told.get("skip", ()))):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
