"""The sketch of a model's states: a few numbers a position that nobody has who did not compute the state.

The state is what the model's last norm gives, before its head: the one from which the logits of the next token come.
It is projected on WIDTH random directions that belong to the job alone, so that no sketch is of use for another job.
docs/protocol.md has the rule.
"""

import hashlib

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from lading_protocol.transcript import CHUNK_TOKENS, SKETCH_BYTES

States = NDArray[np.float32]
Errors = NDArray[np.float64]

WIDTH = SKETCH_BYTES // 2
# numpy counts up before it makes a block, so the first block with counter 0 needs the counter before it.
_BEFORE_FIRST = np.full(4, 2**64 - 1, dtype=np.uint64)


def directions(job: bytes, width: int) -> States:
    """The (width, WIDTH) matrix of a job: signs over the square root of `width`.

    Philox4x64-10 keyed by the first 16 bytes of sha256("lading/sketch/1" || job); row r has the bits 16 r to 16 r + 15
    of its words, lowest bit first, a 1 for plus.
    """
    digest = hashlib.sha256(b"lading/sketch/1" + job).digest()
    drawn = Philox(key=np.frombuffer(digest, "<u8", 2), counter=_BEFORE_FIRST).random_raw(-(-width * WIDTH // 64))
    bits = np.unpackbits(drawn.astype("<u8").view(np.uint8), bitorder="little")[: width * WIDTH]
    signs = bits.reshape(width, WIDTH).astype(np.float32) * 2 - 1
    return np.asarray(signs / np.sqrt(np.float32(width)), np.float32)


def project(states: States, along: States) -> bytes:
    """SKETCH_BYTES a row of `states` (n, width): little-endian halves."""
    with np.errstate(over="ignore"):
        return (states @ along).astype("<f2").tobytes()


def errors(own: bytes, theirs: bytes) -> Errors:
    """How far each position of `theirs` is from our own, relative to our own; infinite where theirs is no number.

    Raises ValueError when the sizes differ or are ragged.
    """
    if len(own) != len(theirs):
        raise ValueError(f"A sketch has {len(theirs)} bytes where {len(own)} belong.")
    a, b = (np.frombuffer(data, "<f2").astype(np.float64).reshape(-1, WIDTH) for data in (theirs, own))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.linalg.norm(a - b, axis=1)
        size = np.linalg.norm(b, axis=1)
        found = np.where(apart == 0, 0.0, apart / size)
    return np.where(np.isfinite(found), found, np.inf)


def chunk_means(found: Errors) -> tuple[float, ...]:
    """The mean error of each run of CHUNK_TOKENS positions."""
    return tuple(float(found[at : at + CHUNK_TOKENS].mean()) for at in range(0, len(found), CHUNK_TOKENS))
