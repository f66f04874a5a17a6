"""The loads of all workers in one small file that each of them has mapped: the Shares of several processes.

A worker writes its own part only. Who decides holds the file's lock for some microseconds, so that two never take the
last place at once; a process that is killed gives the lock back, and its counts go with its next life.
"""

import fcntl
import hashlib
import mmap
import os
import struct
from array import array
from pathlib import Path

from lading_coordinator.core.shares import Allowed, Load, allowed
from lading_coordinator.workers.place import Place

_LOAD = struct.Struct("=QQ")
# A payer's jobs are counted by its hash: two payers in one place count as one, which few limits ever notice. The hash
# has a key, so that nobody can make itself an address that fills another's place.
PLACES = 1 << 14
SIZE = _LOAD.size + PLACES * 4


class Tally:
    """`key` is the same in all processes, and a secret."""

    def __init__(self, path: Path, place: Place, key: bytes) -> None:
        self._key = key
        self._number, self._count = place.number, place.count
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, SIZE * place.count)
        self._map = mmap.mmap(self._file, SIZE * place.count)
        self._map[self._number * SIZE : (self._number + 1) * SIZE] = bytes(SIZE)
        self._mine = array("I", bytes(PLACES * 4))

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def begin(self, most: Allowed) -> Allowed:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        others = [Load(*_LOAD.unpack_from(self._map, n * SIZE)) for n in range(self._count) if n != self._number]
        return allowed(most, others)

    def elsewhere(self, tenant: bytes) -> int:
        at = _LOAD.size + 4 * self._place(tenant)
        return sum(self._read(n * SIZE + at) for n in range(self._count) if n != self._number)

    def end(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def note(self, running: int, waiting: int) -> None:
        _LOAD.pack_into(self._map, self._number * SIZE, running, waiting)

    def waits(self, tenant: bytes, change: int) -> None:
        at = self._place(tenant)
        self._mine[at] += change
        struct.pack_into("=I", self._map, self._number * SIZE + _LOAD.size + 4 * at, self._mine[at])

    def _place(self, tenant: bytes) -> int:
        named = hashlib.blake2b(tenant, digest_size=8, key=self._key).digest()
        return int.from_bytes(named, "little") % PLACES

    def _read(self, at: int) -> int:
        found: int = struct.unpack_from("=I", self._map, at)[0]
        return found
