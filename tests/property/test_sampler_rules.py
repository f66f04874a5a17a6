"""What must hold for every row of logits and every setting of the sampler."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lading_node.core.sampler import choose, margin
from lading_protocol.messages import Sampler

ROWS = st.lists(st.integers(-4096, 4096).map(lambda n: n / 256), min_size=2, max_size=40).map(
    lambda values: np.array(values, dtype=np.float32)
)
SAMPLERS = st.builds(
    Sampler,
    st.binary(min_size=32, max_size=32),
    st.one_of(st.just(0.0), st.floats(1e-6, 2)),
    st.one_of(st.just(1.0), st.floats(1e-6, 1)),
    st.integers(0, 45),
)
INDEX = st.integers(0, 2**17 - 1)


@given(ROWS, INDEX, SAMPLERS)
def test_the_choice_is_in_the_vocabulary_repeatable_and_its_own_margin_is_nothing(
    row: NDArray[np.float32], t: int, sampler: Sampler
) -> None:
    chosen = choose(row, t, sampler)
    assert 0 <= chosen < len(row)
    assert choose(row.copy(), t, sampler) == chosen
    assert margin(row, chosen, t, sampler) == 0


@given(ROWS, INDEX, SAMPLERS)
def test_the_choice_is_among_the_top_k(row: NDArray[np.float32], t: int, sampler: Sampler) -> None:
    chosen = choose(row, t, sampler)
    if sampler.top_k and sampler.temperature:
        assert int((row > row[chosen]).sum()) < sampler.top_k


@given(ROWS, INDEX, SAMPLERS)
def test_the_choice_is_in_the_nucleus(row: NDArray[np.float32], t: int, sampler: Sampler) -> None:
    if sampler.temperature == 0 or sampler.top_p == 1 or sampler.top_k:
        return
    weights = np.exp((row.astype(float) - row.max()) / sampler.temperature)
    chosen = choose(row, t, sampler)
    assert weights[row > row[chosen]].sum() < sampler.top_p * weights.sum() * (1 + 1e-9)


@given(ROWS, INDEX, SAMPLERS)
def test_margins_are_never_negative_or_undefined(row: NDArray[np.float32], t: int, sampler: Sampler) -> None:
    for token in range(len(row)):
        found = margin(row, token, t, sampler)
        assert found >= 0
        assert math.isfinite(found)


@given(ROWS, INDEX, SAMPLERS, st.integers(0, 2**32))
def test_an_honest_host_is_never_far_off(row: NDArray[np.float32], t: int, sampler: Sampler, noise_seed: int) -> None:
    """Errors up to e in every logit make a margin of at most 2 e, whatever is cut off; e stays below the slack."""
    e = 0.002
    errors = np.random.default_rng(noise_seed).uniform(-e, e, len(row))
    host = (row + errors).astype(np.float32)
    if sampler.top_p < 1 and sampler.temperature < 0.25:
        return  # below that temperature e moves more probability than the top-p slack allows
    assert margin(row, choose(host, t, sampler), t, sampler) <= 2 * e + 1e-5
