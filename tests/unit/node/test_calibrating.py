"""What a calibration's numbers are, of jobs that can be counted by hand."""

import numpy as np
import pytest

from lading_node.core.calibrating import LEAST_SPREAD, Shown, measured
from lading_protocol.audit import CLIP


def test_numbers_of_a_few_jobs() -> None:
    quiet = Shown((0.0,) * 100, (0.004, 0.006), (0.01, 0.02))
    loud = Shown((0.0,) * 98 + (0.2, 0.01), (0.008,), (0.03,))
    found = measured([quiet, quiet, quiet, loud])
    assert (found.jobs, found.tokens) == (4, 400)
    assert (found.margin.most, found.chunk.most, found.prompt.most) == (0.2, 0.008, 0.03)
    assert found.margin.rare <= found.margin.most
    assert found.flips == 2 / 400
    assert found.clipped == pytest.approx((CLIP + 0.01) / 400)
    sums = np.array([0, 0, 0, CLIP + 0.01])
    assert found.clipped_sd == pytest.approx(float(np.sqrt(((sums - sums.mean()) ** 2 / 100).mean())))
    assert found.chunk_mean == pytest.approx((3 * 0.006 + 0.008) / 4)


def test_a_spread_of_nothing_is_not_nothing() -> None:
    """A record is divided by it, and 0 means that nothing was measured."""
    still = measured([Shown((0.0,) * 10, (0.0,), ())] * 20)
    assert (still.clipped_sd, still.chunk_sd) == (LEAST_SPREAD, LEAST_SPREAD)


def test_no_jobs_and_no_tokens_are_refused() -> None:
    for bad in ([], [Shown((), (), ())]):
        with pytest.raises(ValueError, match="needs jobs"):
            measured(bad)
