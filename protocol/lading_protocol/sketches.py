"""How far apart two sketches of the same positions are: what an auditor judges by, and what anyone can check again.

A sketch has SKETCH_BYTES a position: little-endian half-precision numbers. Made by an engine; here they are compared.
"""

import struct
from collections.abc import Sequence
from math import inf, isfinite, sqrt

from lading_protocol.transcript import CHUNK_TOKENS, SKETCH_BYTES

WIDTH = SKETCH_BYTES // 2


def errors(own: bytes, theirs: bytes) -> list[float]:
    """For each position the length of the difference over that of our own; infinite where theirs is no number.

    Raises ValueError when the sizes differ or are ragged.
    """
    if len(own) != len(theirs) or len(own) % SKETCH_BYTES:
        raise ValueError(f"A sketch has {len(theirs)} bytes where {len(own)} belong.")
    found = []
    for at in range(0, len(own), SKETCH_BYTES):
        a = _ROW.unpack_from(theirs, at)
        b = _ROW.unpack_from(own, at)
        apart = sqrt(sum([(x - y) * (x - y) for x, y in zip(a, b, strict=True)]))
        size = sqrt(sum([y * y for y in b]))
        error = 0.0 if apart == 0 else apart / size if size else inf
        found.append(error if isfinite(error) else inf)
    return found


def chunk_means(found: Sequence[float]) -> tuple[float, ...]:
    """The mean error of each run of CHUNK_TOKENS positions."""
    runs = [found[at : at + CHUNK_TOKENS] for at in range(0, len(found), CHUNK_TOKENS)]
    return tuple(sum(run) / len(run) for run in runs)


_ROW = struct.Struct(f"<{WIDTH}e")
