"""The sampler against frozen vectors, an independent Philox, and its rule written out plainly."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sampler_rule
from lading_node.core.mask import Masks
from lading_node.core.sampler import EXACT, choose, exact_noise, margin, noise, words
from lading_node.core.shaping import Shaper
from lading_node.core.vocabulary import Vocabulary
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.messages import Sampler

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "sampler.json").read_text())
MASK = 2**64 - 1


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x64-10 of Salmon et al., as in the paper: ten rounds, the key grows by the Weyl constants."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = x0 * 0xD2E7470EE14C6C93, x2 * 0xCA5A826395121157
        x0, x1, x2, x3 = (right >> 64) ^ x1 ^ k0, right & MASK, (left >> 64) ^ x3 ^ k1, left & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return x0, x1, x2, x3


def plain_word(seed: bytes, t: int, token: int) -> int:
    digest = hashlib.sha256(seed + t.to_bytes(4, "big")).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    return philox((token // 4, 0, 0, 0), key)[token % 4]


def plain_choice(logits: np.ndarray[Any, np.dtype[np.float32]], t: int, sampler: Sampler) -> int:
    """The rule of protocol.md, token by token."""
    return sampler_rule.choice(logits, t, sampler, lambda token: plain_word(sampler.seed, t, token))


def row_of(seed: int, vocab: int, spread: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits that any language can rebuild: multiples of 1/1024 from a hash."""
    drawn = [int.from_bytes(hashlib.sha256(f"{seed}/{i}".encode()).digest()[:2], "big") for i in range(vocab)]
    return (np.array(drawn) / 65536 * 1024 * spread).round().astype(np.float32) / np.float32(1024)


def test_known_answers_of_the_generator() -> None:
    """The paper's own test vectors, from its reference implementation."""
    assert philox((0, 0, 0, 0), (0, 0)) == tuple(int(word, 16) for word in VECTORS["philox_zero"])
    assert philox((MASK,) * 4, (MASK, MASK)) == tuple(int(word, 16) for word in VECTORS["philox_ones"])


@pytest.mark.parametrize("case", VECTORS["words"])
def test_words_are_philox_keyed_by_seed_and_index(case: dict[str, Any]) -> None:
    seed = bytes.fromhex(case["seed"])
    drawn = words(seed, case["t"], 32)
    assert [int(word) for word in drawn] == [plain_word(seed, case["t"], i) for i in range(32)]
    assert [f"{int(word):016x}" for word in drawn[:6]] == case["first"]


def test_more_ids_do_not_change_the_words_of_the_first() -> None:
    seed = bytes(range(32))
    assert (words(seed, 7, 1000)[:13] == words(seed, 7, 13)).all()


def test_noise_is_the_exact_noise_to_the_last_bits() -> None:
    drawn = words(bytes(32), 0, 200)
    for got, word in zip(noise(bytes(32), 0, 200), drawn, strict=True):
        assert got == pytest.approx(exact_noise(int(word)), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_noise_is_finite_for_the_extreme_words(word: int) -> None:
    assert math.isfinite(exact_noise(word))
    assert -4 < exact_noise(word) < 37


@pytest.mark.parametrize("case", VECTORS["choices"])
def test_frozen_choices(case: dict[str, Any]) -> None:
    sampler = Sampler(
        bytes.fromhex(case["seed"]), case["temperature"], case["top_p"], case["top_k"], case.get("min_p", 0.0)
    )
    logits = row_of(case["row"], case["vocab"], case["spread"])
    chosen = [choose(logits, t, sampler) for t in range(len(case["chosen"]))]
    assert chosen == case["chosen"]
    assert chosen == [plain_choice(logits, t, sampler) for t in range(len(chosen))]


@pytest.mark.parametrize("case", VECTORS["answers"])
def test_frozen_answers(case: dict[str, Any]) -> None:
    """Whole answers: one row of logits an index, the tokens so far counted and the grammar followed."""
    bias = tuple((token, value) for token, value in case["bias"])
    sampler = Sampler(bytes.fromhex(case["seed"]), *case["numbers"], bias, case["grammar"].encode())
    ends = tuple(case["ends"])
    pieces = [bytes([i]) if i < 256 else text.encode() for i, text in enumerate(["x"] * 256 + case["pieces"])]
    vocab = case["vocab"]
    guide = Masks(Vocabulary(vocab, pieces, ends)).guide(sampler.grammar) if sampler.grammar else None
    shaper = Shaper(sampler, case["prompt"], vocab, guide)
    answer: list[int] = []
    for t, want in enumerate(case["chosen"]):
        logits = row_of(case["row"] + t, vocab, case["spread"])
        assert choose(logits, t, sampler, shaper) == want
        assert margin(logits, want, t, sampler, shaper) == 0
        allowed = None
        if sampler.grammar:
            allowed = sampler_rule.allowed(sampler.grammar, pieces[:vocab], ends, answer)
        plain = sampler_rule.shaped(logits, sampler, case["prompt"], answer)
        word = lambda token, t=t: plain_word(sampler.seed, t, token)  # noqa: E731
        assert sampler_rule.choice(plain, t, sampler, word, allowed) == want
        shaper.push(want)
        answer.append(want)
    if "text" in case:
        assert b"".join(pieces[i] for i in answer if i not in ends).decode() == case["text"]


def test_choices_of_a_large_vocabulary_equal_the_full_argmax() -> None:
    """Large rows skip logarithms that cannot matter."""
    rng = np.random.default_rng(5)
    for t in range(30):
        logits = (rng.normal(size=9000) * rng.choice([0.1, 2, 10])).astype(np.float32)
        sampler = Sampler(bytes(32), 0.8)
        assert choose(logits, t, sampler) == int((logits.astype(float) / 0.8 + noise(bytes(32), t, 9000)).argmax())


def test_frequencies_follow_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float32))
    counts = np.bincount([choose(logits, t, Sampler(bytes(32))) for t in range(4000)], minlength=4)
    assert counts / 4000 == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.03)


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.array([1, 5, 5, 2], dtype=np.float32)
    assert choose(logits, 3, Sampler(bytes(32), 0.0)) == 1
    assert margin(logits, 1, 3, Sampler(bytes(32), 0.0)) == 0
    assert margin(logits, 2, 3, Sampler(bytes(32), 0.0)) == 0
    assert margin(logits, 3, 3, Sampler(bytes(32), 0.0)) == 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_refused(temperature: float, bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose(np.array([0, bad, 1], dtype=np.float32), 0, Sampler(bytes(32), temperature))


def test_a_masked_token_is_never_chosen() -> None:
    logits = np.array([0, -math.inf, 0, -math.inf], dtype=np.float32)
    chosen = {choose(logits, t, Sampler(bytes(32), 1.0, top_p)) for t in range(40) for top_p in (1.0, 0.9)}
    assert chosen == {0, 2}


def test_ties_at_the_top_k_cut_go_to_the_lowest_id() -> None:
    logits = np.array([1, 2, 1, 1, 2], dtype=np.float32)
    assert {choose(logits, t, Sampler(bytes(32), 1.0, 1.0, 3)) for t in range(60)} == {0, 1, 4}


def test_a_nucleus_that_hits_its_share_exactly_takes_no_more() -> None:
    """Equal weights: half of four is two, however a library rounds."""
    logits = np.zeros(4, dtype=np.float32)
    assert {choose(logits, t, Sampler(bytes(32), 1.0, 0.5)) for t in range(60)} == {0, 1}


class TestMargin:
    seed = bytes(range(32))

    def test_counts_in_logits_at_any_temperature(self) -> None:
        logits = row_of(1, 64, 8)
        for temperature in (0.5, 1.0, 2.0):
            sampler = Sampler(self.seed, temperature)
            scores = logits + temperature * noise(self.seed, 4, 64)
            for token in range(64):
                assert margin(logits, token, 4, sampler) == pytest.approx(scores.max() - scores[token], abs=1e-9)

    def test_a_token_outside_the_vocabulary_is_infinitely_wrong(self) -> None:
        assert margin(row_of(1, 8, 1), 8, 0, Sampler(self.seed)) == math.inf
        assert margin(row_of(1, 8, 1), -1, 0, Sampler(self.seed)) == math.inf

    def test_a_token_that_top_k_may_or_may_not_admit_is_accepted_either_way(self) -> None:
        """Ids 1 and 2 are 0.01 logits apart at the cut of top-k 2, less than an honest host may be off."""
        logits = np.array([5, 1, 0.99, -3], dtype=np.float32)
        sampler = Sampler(self.seed, 1.0, 1.0, 2)
        gumbel = noise(self.seed, 0, 4)
        for token in (1, 2):
            want = max(0.0, float(logits[0] + gumbel[0] - logits[token] - gumbel[token]))
            assert margin(logits, token, 0, sampler) == pytest.approx(
                want if token != choose(logits, 0, sampler) else 0
            )

    def test_a_token_clearly_cut_by_top_k_is_as_far_as_the_cut(self) -> None:
        logits = np.array([5, 4.5, 1, -3], dtype=np.float32)
        sampler = Sampler(self.seed, 1.0, 1.0, 2)
        assert all(margin(logits, 2, t, sampler) >= 3.5 for t in range(20))

    def test_a_token_clearly_outside_the_nucleus_is_as_far_as_its_last_member(self) -> None:
        logits = np.log(np.array([0.6, 0.35, 0.04, 0.01], dtype=np.float32))
        sampler = Sampler(self.seed, 1.0, 0.9)
        assert all(margin(logits, 3, t, sampler) >= math.log(0.35 / 0.01) - 1e-6 for t in range(20))

    def test_a_token_near_the_end_of_the_nucleus_may_be_in_or_out(self) -> None:
        """Mass before id 2 is .89, just under .9: an honest host may have left it out, and may have taken it."""
        logits = np.log(np.array([0.6, 0.29, 0.1, 0.01], dtype=np.float32))
        sampler = Sampler(self.seed, 1.0, 0.9)
        gumbel = noise(self.seed, 0, 4)
        for t in range(60):
            gumbel = noise(self.seed, t, 4)
            if choose(logits, t, sampler) == 2:
                second = int((logits[:2] + gumbel[:2]).argmax())
                assert margin(logits, second, t, sampler) == 0
                return
        pytest.fail("no index at which the token at the cut wins")

    def test_in_an_exact_class_a_cut_is_a_cut(self) -> None:
        """What lies beyond it by a little more than two logits can be off counts, and what lies within does not."""
        cuts = {
            "top-k": (Sampler(self.seed, 1.0, 1.0, 2), lambda gap: np.array([5, 1 + gap, 1, -3])),
            "min-p": (Sampler(self.seed, 1.0, 1.0, 0, 0.5), lambda gap: np.array([5, 5 + math.log(0.5) - gap, -9, -9])),
            # The third has .9 + gap before it, where that is all the better by an error of gap in its odds.
            "top-p": (Sampler(self.seed, 1.0, 0.9), lambda gap: np.log([0.6, 0.3 + gap / 4, 0.08, 0.02 - gap / 4])),
        }
        token = {"top-k": 2, "min-p": 1, "top-p": 2}
        for name, (sampler, row) in cuts.items():
            for gap, cut in ((0.8 * EXACT_MARGIN, False), (1.5 * EXACT_MARGIN, True)):
                logits = row(gap).astype(np.float32)
                t = next(t for t in range(5000) if (logits + noise(self.seed, t, 4)).argmax() == token[name])
                assert margin(logits, token[name], t, sampler) == 0, name
                found = margin(logits, token[name], t, sampler, slack=EXACT)
                assert (found > EXACT_MARGIN) is cut, (name, gap, found)
                assert cut or found == 0

    def test_tiny_errors_of_an_honest_host_stay_tiny(self) -> None:
        rng = np.random.default_rng(1)
        for t in range(200):
            logits = (rng.normal(size=300) * 3).astype(np.float32)
            for sampler in (Sampler(self.seed), Sampler(self.seed, 0.7, 0.9, 40), Sampler(self.seed, 0.0)):
                host = logits + rng.normal(size=300).astype(np.float32) * np.float32(1e-4)
                assert margin(logits, choose(host, t, sampler), t, sampler) < 1e-3

    def test_another_seed_is_far_off(self) -> None:
        logits = row_of(2, 256, 3)
        wrong = [margin(logits, choose(logits, t, Sampler(bytes(32))), t, Sampler(self.seed)) for t in range(40)]
        assert np.mean(np.array(wrong) > 0.1) > 0.8


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.1, 1.0, 3.0, 30.0, 1e4])
def test_in_a_large_vocabulary_nobody_who_could_win_is_passed_over(spread: float) -> None:
    """Only few logarithms are taken there; the choice is what all of them would give."""
    rng = np.random.default_rng(7)
    for t in range(30):
        row = (rng.standard_normal(20_000) * spread).astype(np.float32)
        if t % 3 == 0:
            row[rng.integers(20_000, size=19_000)] = -np.inf
        if t % 3 == 1:
            row[int(rng.integers(20_000))] += np.float32(20)
        temperature = (0.3, 1.0, 1.9)[t % 2 + t % 3 // 2]
        scores = row.astype(np.float64) / temperature + noise(b"\x05" * 32, t, len(row))
        assert choose(row, t, Sampler(b"\x05" * 32, temperature)) == int(scores.argmax())
