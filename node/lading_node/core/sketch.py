"""The sketch of a model's states: a few numbers a position that nobody has who did not compute the state.

The state is what the model's last norm gives, before its head: the one from which the logits of the next token come.
It is projected on WIDTH random directions that belong to the job alone, so that no sketch is of use for another job.
docs/protocol.md has the rule; lading_protocol.sketches compares.
"""

import hashlib

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from lading_protocol.sketches import WIDTH

States = NDArray[np.float32]
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
