"""From what audits saw to rates: guilty, suspect, pooled over many jobs. Judges by the protocol's own code."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lading_node.core.calibrating import Measured, Shown, measured
from lading_protocol.audit import CLIP, Judgement, Rerun, Tolerance, Verdict, judge
from lading_protocol.calibration import Calibration, tolerance
from lading_protocol.conduct import Z_LIMIT

from . import audit_toploc as toploc
from .audit_cases import Seen

DRAWS = 2000
POOLS = (5, 20, 120)


class Limits(NamedTuple):
    """What one table of honest jobs says: of ours, and of TOPLOC's numbers."""

    numbers: Measured
    exact: bool
    tolerance: Tolerance
    toploc: toploc.Apart


class Rates(NamedTuple):
    """Shares of the jobs of one case. `pooled` by number of audited jobs, `alone` of that by the long record only."""

    guilty: float
    flagged: float
    flips: float
    published: float | None
    calibrated: float | None
    pooled: dict[int, float]
    alone: dict[int, float]


def limits(honest: Sequence[Seen], exact: bool) -> Limits:
    numbers = measured([Shown(one.margins, one.chunks, one.prompt) for one in honest])
    blank = Calibration(
        spec="0x" + 64 * "0",
        agent="",
        host="bench",
        auditor="bench",
        host_engine="",
        auditor_engine="",
        hardware="",
        date="2000-01-01",
        seed=0,
        exact=exact,
        **numbers._asdict(),
    )
    apart = [one.toploc for one in honest if one.toploc is not None]
    widest = toploc.Apart(*(1.25 * max(each) for each in zip(*apart, strict=True)))
    return Limits(numbers, exact, tolerance(blank), widest)


def verdict(seen: Seen, limit: Tolerance) -> Judgement:
    rerun = Rerun(b"", 0, seen.margins, chunks=seen.chunks, prompt=seen.prompt)
    return judge(rerun, b"", 0, limit)


def rates(seen: Sequence[Seen], by: Limits, published: toploc.Apart) -> Rates:
    found = [verdict(one, by.tolerance) for one in seen]
    guilty = np.array([one.verdict == Verdict.GUILTY for one in found])
    flagged = guilty | np.array([one.suspect for one in found])
    proofs = [one.toploc for one in seen if one.toploc is not None]
    pooled, alone = _pools(seen, flagged, by.numbers)
    return Rates(
        guilty=float(guilty.mean()),
        flagged=float(flagged.mean()),
        flips=float(np.mean([margin > 0 for one in seen for margin in one.margins])),
        published=_refused(proofs, published),
        calibrated=_refused(proofs, by.toploc),
        pooled=pooled,
        alone=alone,
    )


def _refused(proofs: Sequence[toploc.Apart], widest: toploc.Apart) -> float | None:
    return sum(not one.passes(widest) for one in proofs) / len(proofs) if proofs else None


def _pools(seen: Sequence[Seen], flagged: NDArray[np.bool_], by: Measured) -> tuple[dict[int, float], dict[int, float]]:
    """Shares of records of N audits, drawn from the measured jobs: those in which a job is flagged or that are suspect
    as a whole, and those that are suspect as a whole."""
    rng = np.random.default_rng(5)
    tokens = np.array([len(one.margins) for one in seen], float)
    excess = np.array([np.minimum(one.margins, CLIP).sum() for one in seen]) - tokens * by.clipped
    pooled, alone = {}, {}
    for count in POOLS:
        drawn = rng.integers(len(seen), size=(DRAWS, count))
        z = excess[drawn].sum(1) / (by.clipped_sd * np.sqrt(tokens[drawn].sum(1)))
        alone[count] = float((z > Z_LIMIT).mean())
        pooled[count] = float((flagged[drawn].any(1) | (z > Z_LIMIT)).mean())
    return pooled, alone
