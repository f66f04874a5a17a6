"""Linux's unprivileged file sandbox (landlock(7)): after `restrict`, this process reaches the named paths only.

Where the kernel knows how, it also loses TCP, foreign abstract sockets and the right to signal others. Absent on older
kernels and other systems; then `restrict` says so.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_PATH_BENEATH = 1
_FILE_RIGHTS = 0b1100_0000_0000_0111  # execute, write, read, truncate, device ioctl
_READ_RIGHTS = 0b1101  # execute, read file, read folder
_KNOWN_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many file rights each version knows; later ones 16


def restrict(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Whether it holds. Paths that do not exist are passed over. Needs "no new privileges" set before."""
    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << _KNOWN_RIGHTS.get(version, 16)) - 1
    network, scope = (0b11 if version >= 4 else 0), (0b11 if version >= 6 else 0)
    rules = struct.pack("=QQQ", handled, network, scope)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = call(_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return False
    try:
        for paths, rights in ((readable, _READ_RIGHTS), (writable, handled)):
            for path in paths:
                if not _allow(call, ruleset, path, rights & handled):
                    return False
        return bool(call(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(call: "ctypes._NamedFuncPointer", ruleset: int, path: str, rights: int) -> bool:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        return bool(call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0) == 0)
    finally:
        os.close(fd)
