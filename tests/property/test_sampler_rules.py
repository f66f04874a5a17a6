"""What must hold for every row of logits and every setting of the sampler."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sampler_rule
from lading_node.core.mask import Masks
from lading_node.core.sampler import EXACT, TOLERANT, Slack, choose, margin, words
from lading_node.core.shaping import Shaper
from lading_node.core.vocabulary import Vocabulary
from lading_protocol.audit import EXACT_MARGIN
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
    st.one_of(st.just(0.0), st.floats(1e-6, 1)),
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


# Each with the largest error that it forgives; of the exact class's half margin the last step of an f32 is left.
SLACKS = st.sampled_from([(TOLERANT, 0.02), (EXACT, EXACT_MARGIN / 2 - 1e-6)])


@given(ROWS, INDEX, SAMPLERS, SLACKS, st.integers(0, 2**32))
def test_an_honest_host_is_never_far_off(
    row: NDArray[np.float32], t: int, sampler: Sampler, forgiven: tuple[Slack, float], noise_seed: int
) -> None:
    """Errors up to e in every logit make a margin of at most 2 e, whatever is cut off, at any temperature."""
    slack, e = forgiven
    rng = np.random.default_rng(noise_seed)
    errors = rng.uniform(-e, e, len(row)) if noise_seed % 2 else rng.choice([-e, e], len(row))
    host = (row + errors).astype(np.float32)
    assert margin(row, choose(host, t, sampler), t, sampler, slack=slack) <= 2 * (e + 1e-6)


def at_the_cut(cut: str, row: NDArray[np.float32], j: int, e: float, rng: np.random.Generator) -> dict[str, float]:
    """Settings by which id `j`, at temperature 1, is cut off or not by less than errors of `e` can move."""
    above = row > row[j]
    match cut:
        case "top-k":
            return {"top_k": max(1, int(above.sum()) + int(rng.integers(-1, 3)))}
        case "top-p":
            weights = np.exp(row.astype(float))
            share = weights[above].sum() / weights.sum() + e * rng.uniform(-0.5, 0.5)
            return {"top_p": min(1.0, max(1e-6, share))}
        case _:
            return {"min_p": min(1.0, math.exp(float(row[j] - row.max()) + e * rng.uniform(-2, 2)))}


@pytest.mark.parametrize(("slack", "e"), [(TOLERANT, 0.024), (EXACT, EXACT_MARGIN / 2 - 1e-6)])
@pytest.mark.parametrize("cut", ["top-k", "top-p", "min-p"])
def test_an_honest_host_whose_every_error_works_against_it_at_a_cut_is_not_far_off(
    slack: Slack, e: float, cut: str
) -> None:
    """Two crowds, each within a few errors; those above one of them are off one way, and itself the other way."""
    seed = random.randrange(2**32)
    rng = np.random.default_rng(seed)
    moved = 0
    for t in range(1500):
        temperature = float(rng.choice([0.05, 0.2, 0.7, 1.0, 2.0]))
        steps = e * rng.integers(-6, 7, 12) / 2 + temperature * np.repeat([rng.choice([0, 1]), 0], 6)
        j = int(rng.integers(12))
        how = at_the_cut(cut, steps / temperature, j, e / temperature, rng)
        errors = e * np.where(steps > steps[j], -1, rng.choice([-1, 1], 12))
        errors[j] = e
        host = (steps + rng.choice([-1, 1]) * errors).astype(np.float32)
        sampler, row = Sampler(rng.bytes(32), temperature, **how), steps.astype(np.float32)  # type: ignore[arg-type]
        chosen = choose(host, t, sampler)
        moved += chosen != choose(row, t, sampler)
        assert margin(row, chosen, t, sampler, slack=slack) <= 2 * (e + 1e-6), (seed, t)
    assert moved > 20


SHAPED = st.builds(
    Sampler,
    st.binary(min_size=32, max_size=32),
    st.one_of(st.just(0.0), st.floats(0.3, 2)),
    st.one_of(st.just(1.0), st.floats(0.05, 1)),
    st.integers(0, 12),
    st.one_of(st.just(0.0), st.floats(0.01, 1)),
    st.one_of(st.just(0.0), st.floats(-2, 2)),
    st.one_of(st.just(0.0), st.floats(-2, 2)),
    st.one_of(st.just(1.0), st.floats(0.5, 2)),
    st.dictionaries(st.integers(0, 19), st.floats(-100, 100), max_size=6).map(lambda bias: tuple(sorted(bias.items()))),
    st.sampled_from([b"", b"", b'{"type":"array","items":{"type":"boolean"},"maxItems":9}', b'{"type":"number"}']),
)
PIECES = [
    b"[",
    b"]",
    b",",
    b" ",
    b"true",
    b"false",
    b"t",
    b"r",
    b"u",
    b"e",
    b"als",
    b"f",
    b"1",
    b"0",
    b".",
    b"12",
    b"-",
]
PIECES += [b"true,", b"5"]
END = len(PIECES)
MASKS = Masks(Vocabulary(END + 1, PIECES, (END,)))


class Course:
    """An answer whose every index has its own row."""

    def __init__(self, sampler: Sampler, prompt: list[int], seed: int) -> None:
        self.sampler, self.prompt, self.answer = sampler, prompt, list[int]()
        self.rng = np.random.default_rng(seed)
        self.shaper = self.rebuilt()

    def rebuilt(self) -> Shaper:
        """As another host or an auditor would: from the prompt and the ids."""
        grammar = self.sampler.grammar
        shaper = Shaper(self.sampler, self.prompt, END + 1, MASKS.guide(grammar) if grammar else None)
        for token in self.answer:
            shaper.push(token)
        return shaper

    @property
    def over(self) -> bool:
        return bool(self.sampler.grammar) and self.answer[-1:] == [END]

    def row(self) -> NDArray[np.float32]:
        return (self.rng.normal(size=END + 1) * self.rng.choice([0.5, 3])).astype(np.float32)

    def allowed(self) -> list[int] | None:
        grammar = self.sampler.grammar
        pieces = [*PIECES, b""]
        return sampler_rule.allowed(grammar, pieces, (END,), self.answer) if grammar else None

    def push(self, token: int) -> None:
        self.shaper.push(token)
        self.answer.append(token)


PROMPTS = st.lists(st.integers(0, END + 5), max_size=8)


@settings(deadline=None)
@given(SHAPED, PROMPTS, st.integers(0, 2**32))
def test_a_shaped_choice_is_that_of_the_plain_rule(sampler: Sampler, prompt: list[int], seed: int) -> None:
    """Over a whole answer, counted step by step here and from scratch there."""
    course = Course(sampler, prompt, seed)
    for t in range(8):
        row, allowed = course.row(), course.allowed()
        drawn = words(sampler.seed, t, len(row))
        plain = sampler_rule.shaped(row, sampler, prompt, course.answer)
        want = sampler_rule.choice(plain, t, sampler, lambda token, drawn=drawn: int(drawn[token]), allowed)
        assert choose(row, t, sampler, course.shaper) == want
        assert choose(row, t, sampler, course.rebuilt()) == want
        for token in range(-1, END + 2):
            found = margin(row, token, t, sampler, course.shaper)
            assert found >= 0
            barred = not 0 <= token <= END or (allowed is not None and token not in allowed)
            assert (found == math.inf) == barred
            assert token != want or found == 0
        course.push(want)
        if course.over:
            break


@settings(deadline=None)
@given(SHAPED, PROMPTS, SLACKS, st.integers(0, 2**32))
def test_an_honest_host_is_never_far_off_however_rows_are_shaped(
    sampler: Sampler, prompt: list[int], forgiven: tuple[Slack, float], seed: int
) -> None:
    """Errors of e in every logit: penalties stretch them, and the margin takes that back."""
    slack, e = forgiven
    course = Course(sampler, prompt, seed)
    for t in range(8):
        row = course.row()
        errors = course.rng.uniform(-e, e, len(row)).astype(np.float32)
        token = choose(row + errors, t, sampler, course.shaper)
        assert margin(row, token, t, sampler, course.shaper, slack) <= 2 * (e + 1e-6)
        course.push(token)
        if course.over:
            break


@given(ROWS, INDEX, SAMPLERS)
def test_settings_at_their_defaults_change_nothing(row: NDArray[np.float32], t: int, sampler: Sampler) -> None:
    """Not even the last bit: a shaper that has nothing to do gives the row that it got."""
    shaper = Shaper(sampler, [0, 1], len(row), None)
    shaped, ids = shaper.shape(row)
    assert ids is None
    assert (shaped == row).all()
    assert choose(row, t, sampler, shaper) == choose(row, t, sampler)
    for token in range(len(row)):
        assert margin(row, token, t, sampler, shaper) == margin(row, token, t, sampler)
