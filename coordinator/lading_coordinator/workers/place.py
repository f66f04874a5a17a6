"""Which process a part of the coordinator runs in, and which API keys are a worker's own. Pure.

A key belongs to one worker, so that only one process ever signs vouchers of its session, and its cap is kept in one
memory.
"""

import hashlib
from enum import Enum
from pathlib import Path

import msgspec


class Role(Enum):
    """WHOLE: everything in one process. Else the DESK has what there is once, a WORKER its share of the traffic."""

    WHOLE = "whole"
    DESK = "desk"
    WORKER = "worker"


class Place(msgspec.Struct, frozen=True):
    """`number` of `count` workers."""

    role: Role = Role.WHOLE
    number: int = 0
    count: int = 1

    def owns(self, key_hash: bytes) -> bool:
        """Whether this process signs for the session of the API key with this hash."""
        return self.role is Role.WHOLE or (self.role is Role.WORKER and worker_of(key_hash, self.count) == self.number)


def hash_of(api_key: str) -> bytes:
    """The keys are random and long, so a plain hash hides them."""
    return hashlib.sha256(api_key.encode()).digest()


def worker_socket(folder: Path, number: int) -> str:
    """Where a worker takes requests from the other processes."""
    return str(folder / f"worker-{number}.sock")


def worker_of(key_hash: bytes, count: int) -> int:
    return int.from_bytes(key_hash[:8], "big") % count
