"""How likely tokens were, for a consumer who asks: logarithms of a model's own shares, before all shaping. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lading_protocol.messages import Chance

# What JSON can hold in place of minus infinity, as OpenAI has it.
LEAST = -9999.0
LONGEST = 256


def chance(logits: NDArray[np.float32], token: int, likely: int, pieces: Sequence[bytes]) -> Chance:
    """Of the chosen `token`, and of the `likely` best ones; ties go to the lowest id. `logits` has a finite maximum."""
    row = logits.astype(np.float64)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    best: list[int] = []
    if count := min(likely, len(row)):
        near = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
        best = near[np.argsort(-logits[near], kind="stable")][:count].tolist()
    top = tuple((_bounded(row[one]), _piece(pieces, one)) for one in best)
    return Chance(_bounded(row[token]), _piece(pieces, token), top)


def _bounded(value: float) -> float:
    return min(0.0, max(LEAST, float(value)))


def _piece(pieces: Sequence[bytes], token: int) -> bytes:
    return pieces[token][:LONGEST] if token < len(pieces) else b""
