"""Sketches: how they are made for a job, compared, and bound by marks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_node.core.sketch import directions, project
from lading_protocol.ids import JobId
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import chunk_mark, commitment, marks_of, prompt_mark, sha256

JOB = JobId(bytes(range(32)))


def states(rows: int, width: int = 48, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def test_the_directions_of_a_job_are_frozen() -> None:
    along = directions(JOB, 6)
    assert along.shape == (6, 16)
    assert np.allclose(np.abs(along), 1 / math.sqrt(6))
    assert sha256((along > 0).tobytes()).hex()[:16] == "5f53d03c823ce2d8"
    assert np.array_equal(directions(JOB, 600)[:6] * math.sqrt(600) > 0, along > 0)
    assert not np.array_equal(along, directions(bytes(32), 6))


def test_what_a_sketch_says_grows_with_the_difference() -> None:
    rows, along = states(64), directions(JOB, 48)
    own = project(rows, along)
    assert errors(own, own) == [0.0] * 64
    previous = 0.0
    for size in (1e-3, 1e-2, 1e-1):
        means = chunk_means(errors(own, project(rows + size * states(64, seed=2), along)))
        assert len(means) == 2
        assert previous < means[0] < 5 * size
        previous = means[0]
    assert min(errors(own, project(states(64, seed=3), along))) > 0.3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_infinitely_far_off(number: float) -> None:
    rows, along = states(3), directions(JOB, 48)
    own = project(rows, along)
    broken = bytearray(own)
    broken[34:36] = np.array([number], "<f2").tobytes()
    assert [math.isinf(error) for error in errors(own, bytes(broken))] == [False, True, False]
    assert project(rows * np.float32(1e9), along)  # too large for a half: infinite, not a crash


@pytest.mark.parametrize("theirs", [b"", bytes(32), bytes(65), bytes(128)])
def test_sketches_of_other_sizes_are_not_compared(theirs: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(theirs)} bytes"):
        errors(bytes(64), theirs)


@given(st.integers(0, 70), st.integers(1, 70), st.integers(0, 5), st.data())
def test_every_bit_of_a_sketch_is_bound(positions: int, count: int, first: int, data: st.DataObject) -> None:
    sketch = np.random.default_rng(positions).bytes(32 * (positions + count))
    ids = list(range(first + count))
    marks = marks_of(JOB, first, positions, sketch)
    assert marks[0] == prompt_mark(JOB, sketch[: 32 * positions])
    assert marks[1] == chunk_mark(JOB, first, sketch[32 * positions :][: 32 * 32])
    assert len(marks) == 1 + -(-count // 32)
    root = commitment(JOB, ids, first, marks)
    at = data.draw(st.integers(0, len(sketch) - 1))
    other = bytearray(sketch)
    other[at] ^= 1
    assert commitment(JOB, ids, first, marks_of(JOB, first, positions, bytes(other))) != root
    assert commitment(JOB, ids, first) != root
    shifted = marks_of(JOB, first, positions + 1, sketch) if count > 1 else []
    if len(shifted) == len(marks):
        assert commitment(JOB, ids, first, shifted) != root
    with pytest.raises(ValueError, match="argument"):
        commitment(JOB, ids, first, marks[:-1] or [b""] * 9)
