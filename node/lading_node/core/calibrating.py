"""What known-good jobs show together: the numbers of a calibration table. Pure.

The limits that follow from them are lading_protocol.calibration's.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lading_protocol.audit import CLIP
from lading_protocol.calibration import Seen

RARE = 0.999
# Of a spread that was measured as nothing: far below any number that means something, and no division by zero.
LEAST_SPREAD = 1e-4


class Shown(NamedTuple):
    """What an audit of one honest job saw (audit.Rerun)."""

    margins: tuple[float, ...]
    chunks: tuple[float, ...]
    prompt: tuple[float, ...]


class Measured(NamedTuple):
    """The fields of a Calibration that are measured, by their names there."""

    jobs: int
    tokens: int
    margin: Seen
    chunk: Seen
    prompt: Seen
    clipped: float
    clipped_sd: float
    flips: float
    chunk_mean: float
    chunk_sd: float


def measured(shown: Sequence[Shown]) -> Measured:
    """Raises ValueError for no jobs, or jobs without tokens."""
    if not shown or not all(job.margins for job in shown):
        raise ValueError("A calibration needs jobs, and each of them output tokens.")
    lengths = np.array([len(job.margins) for job in shown], float)
    sums = np.array([np.minimum(job.margins, CLIP).sum() for job in shown])
    mean = float(sums.sum() / lengths.sum())
    # Of whole jobs, so that what hangs together within one is counted.
    spread = float(np.sqrt((((sums - mean * lengths) ** 2) / lengths).mean()))
    chunks = np.array([max(job.chunks, default=0.0) for job in shown])
    flips = sum(1 for job in shown for margin in job.margins if margin > 0)
    return Measured(
        jobs=len(shown),
        tokens=int(lengths.sum()),
        margin=_seen(max(job.margins) for job in shown),
        chunk=_seen(chunks.tolist()),
        prompt=_seen(max(job.prompt, default=0.0) for job in shown),
        clipped=mean,
        clipped_sd=max(spread, LEAST_SPREAD),
        flips=flips / float(lengths.sum()),
        chunk_mean=float(chunks.mean()),
        chunk_sd=max(float(chunks.std()), LEAST_SPREAD),
    )


def _seen(worst: Iterable[float]) -> Seen:
    values = np.fromiter(worst, float)
    return Seen(most=float(values.max()), rare=float(np.quantile(values, RARE)))
