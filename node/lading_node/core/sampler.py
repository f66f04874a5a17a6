"""The seeded sampler: which token follows, from fp32 logits, a job's seed and the token's absolute output index.

Host and auditor run this same code, so the tokens themselves prove the sampling. docs/protocol.md has the rule; the
vectors in tests/vectors/sampler.json freeze it. Knows no engine, clock or generator state: every number is keyed.
"""

import hashlib
import math
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from lading_node.core.shaping import Shaper
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.messages import Sampler

Reals = NDArray[np.float64]
Ids = NDArray[np.intp]


class Slack(NamedTuple):
    """How close to a cut a token may be in or out: in logits, and at least in cumulative probability for top-p.

    `stretch` is how much larger both have become with the errors of the logits.
    """

    near: float
    share: float
    stretch: float = 1.0

    def stretched(self, by: float) -> "Slack":
        return Slack(self.near * by, self.share * by, by)


# An honest host's logits differ in the last bits, so at a cut it may keep or drop a token that lies this close to it.
TOLERANT = Slack(0.05, 0.02)
# Where no logit is off by more than e, no margin and no distance to a cut is off by more than 2 e: whoever keeps within
# the margin of an exact class keeps within this.
EXACT = Slack(EXACT_MARGIN, 0.0)

# numpy counts up before it makes a block, so the first block with counter 0 needs the counter before it.
_BEFORE_FIRST = np.full(4, 2**64 - 1, dtype=np.uint64)
_SHIFT = np.uint64(12)
# Far above the error of any math library, far below any logit difference that means something.
_CLOSE = 1e-9
# Below this size it is cheaper to take every logarithm than to find out which are needed.
_SMALL = 4096


def words(seed: bytes, t: int, count: int) -> NDArray[np.uint64]:
    """The random words of token ids 0..count-1 at output index `t`.

    Philox4x64-10 (Salmon et al., SC 2011) keyed by the first 16 bytes of sha256(seed || uint32be(t)), read as two
    little-endian words. Token v owns word v mod 4 of the block whose 256-bit counter is v div 4.
    """
    digest = hashlib.sha256(seed + t.to_bytes(4, "big")).digest()
    key = np.frombuffer(digest, "<u8", 2)
    return Philox(key=key, counter=_BEFORE_FIRST).random_raw(count)


def _noise(drawn: NDArray[np.uint64]) -> Reals:
    """Standard Gumbel: -ln(-ln u) with u = ((word >> 12) + 1/2) / 2^52, which is exact in a double and never 0 or 1."""
    u = ((drawn >> _SHIFT).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(u))


def noise(seed: bytes, t: int, count: int) -> Reals:
    """The noise of token ids 0..count-1 at output index `t`, to about 1e-15."""
    return _noise(words(seed, t, count))


def exact_noise(word: int) -> float:
    """The noise of one word, correctly rounded; slow. The rule is stated in these numbers."""
    with localcontext() as context:
        context.prec = 60
        u = (Decimal(word >> 12) + Decimal("0.5")) / Decimal(2**52)
        return float(-((-(u.ln())).ln()))


def choose(logits: NDArray[np.float32], t: int, sampler: Sampler, shaper: Shaper | None = None) -> int:
    """The token at output index `t`: argmax over allowed ids of logit / temperature + noise; ties go to the lowest id.

    `logits` is one fp32 row over the vocabulary; `shaper` is needed where shaping.shapes(sampler). Raises ValueError
    when no allowed logit, or not every largest one, is finite.
    """
    # Written out, for it is most of what a greedy choice costs.
    if not math.isfinite(float(logits.max())):
        raise ValueError("The logits are not finite.")
    if shaper is None:
        return int(logits.argmax()) if sampler.temperature == 0 else _pick(logits, None, t, sampler)
    row, ids = shaper.shape(logits)
    if ids is None:
        return _pick(row, None, t, sampler)
    if not len(ids):
        raise ValueError("The grammar allows no token of this vocabulary.")
    _check(row)
    return int(ids[_pick(row, ids, t, sampler)])


def _check(row: NDArray[np.floating]) -> None:
    if not math.isfinite(float(row.max())):
        raise ValueError("The logits are not finite.")


def _pick(row: NDArray[np.floating], ids: Ids | None, t: int, sampler: Sampler) -> int:
    """The position in `row` of the choice; `ids` are the ids of its positions (None: the positions themselves)."""
    if sampler.temperature == 0 or len(row) == 1:
        return int(row.argmax())
    scaled = row.astype(np.float64) / sampler.temperature
    drawn = words(sampler.seed, t, len(row)) if ids is None else words(sampler.seed, t, int(ids[-1]) + 1)[ids]
    if sampler.top_k == 0 and sampler.top_p == 1 and sampler.min_p == 0:
        return _best(scaled, drawn)
    kept = _allowed(scaled, sampler)
    return int(kept[_best(scaled[kept], drawn[kept])])


def _best(scaled: Reals, drawn: NDArray[np.uint64]) -> int:
    """Position of the best score."""
    if len(scaled) > _SMALL:
        rivals = _rivals(scaled, drawn)
        scaled, drawn = scaled[rivals], drawn[rivals]
    else:
        rivals = None
    scores = scaled + _noise(drawn)
    lead = int(scores.argmax())
    near = np.flatnonzero(scores >= scores[lead] - _CLOSE * max(1.0, abs(float(scores[lead]))))
    if len(near) > 1:
        lead = _exact_best(scaled, drawn, near)
    return lead if rivals is None else int(rivals[lead])


def _rivals(scaled: Reals, drawn: NDArray[np.uint64]) -> Ids:
    """Positions that could win: only these need logarithms.

    The winner does not score less than the best logit, nor than the luckiest draw. So its logit reaches that score with
    the largest noise drawn, and its noise with the best logit; few rows have many that do both.
    """
    tried = np.array([scaled.argmax(), drawn.argmax()])
    own = _noise(drawn[tried])
    least = float((scaled[tried] + own).max())
    least -= 2 * _CLOSE * max(1.0, abs(least))
    return np.flatnonzero((scaled >= least - own[1]) & (drawn >= _word_of(least - float(scaled[tried[0]]))))


def _word_of(noise: float) -> np.uint64:
    """A word that has no more than this noise, and hardly less: by some units more than its own rounding."""
    u = math.exp(-math.exp(min(-noise, 700.0)))
    return np.uint64(max(0, int(u * 2.0**52) - 16)) << _SHIFT


def _exact_best(scaled: Reals, drawn: NDArray[np.uint64], near: Ids) -> int:
    """Math libraries differ in the last bit; among positions where that could decide, correctly rounded noise does."""
    exact = [float(scaled[i]) + exact_noise(int(drawn[i])) for i in near]
    return int(near[exact.index(max(exact))])


def _allowed(scaled: Reals, sampler: Sampler) -> Ids:
    """Ids that pass top-k, then top-p over what top-k left, then min-p, in ascending order."""
    order = _top_k(scaled, sampler.top_k)
    if sampler.top_p < 1:
        order = _nucleus(scaled, order, sampler.top_p)
    if sampler.min_p > 0:
        order = order[_likely(scaled[order], sampler.min_p)]
    return np.sort(order)


def _descending(scaled: Reals, ids: Ids) -> Ids:
    """`ids` (ascending) by falling score; equal scores by rising id."""
    return ids[np.argsort(-scaled[ids], kind="stable")]


def _top_k(scaled: Reals, k: int) -> Ids:
    """The k best ids, ties at the cut to the lowest id; all ids when k is 0. Ascending."""
    if k == 0 or k >= len(scaled):
        return np.arange(len(scaled))
    cut = np.partition(scaled, len(scaled) - k)[len(scaled) - k]
    above = np.flatnonzero(scaled > cut)
    level = np.flatnonzero(scaled == cut)[: k - len(above)]
    return np.sort(np.concatenate([above, level]))


def _nucleus(scaled: Reals, ids: Ids, p: float) -> Ids:
    """The fewest of `ids`, best first, whose weights exp(score) reach the share `p` of the weight of all of `ids`."""
    gaps = scaled[ids] - scaled[ids].max()
    # What lies below this depth weighs less than 1 - p in total: it can be summed without being sorted.
    deep = gaps < math.log1p(-p) - math.log(len(ids)) - 1
    order = _descending(scaled, ids[~deep])
    mass = np.cumsum(np.exp(scaled[order] - scaled[order[0]]))
    total = mass[-1] + np.exp(gaps[deep]).sum()
    size = min(int(np.searchsorted(mass, p * total)) + 1, len(order))
    if np.abs(mass[max(0, size - 2) : size] - p * total).min() <= _CLOSE * total:
        size = _exact_size(scaled[order] - scaled[order[0]], gaps[deep], p)
    return order[:size]


def _likely(scaled: Reals, p: float) -> NDArray[np.bool_]:
    """Which weigh, as exp(score), at least the share `p` of the best one."""
    gaps = scaled - scaled.max()
    least = math.log(p)
    kept: NDArray[np.bool_] = gaps >= least
    for i in np.flatnonzero(np.abs(gaps - least) <= _CLOSE * max(1.0, -least)):
        with localcontext() as context:
            context.prec = 60
            kept[i] = Decimal(float(gaps[i])).exp() >= Decimal(p)
    return kept


def _exact_size(falling: Reals, rest: Reals, p: float) -> int:
    """The size of the nucleus in real arithmetic (60 digits), for when rounding could decide."""
    with localcontext() as context:
        context.prec = 60
        weights = [Decimal(float(gap)).exp() for gap in falling]
        target = Decimal(p) * (sum(weights) + sum(Decimal(float(gap)).exp() for gap in rest))
        mass = Decimal(0)
        for size, weight in enumerate(weights, 1):
            mass += weight
            if mass >= target:
                return size
        return len(weights)


def margin(
    logits: NDArray[np.float32],
    chosen: int,
    t: int,
    sampler: Sampler,
    shaper: Shaper | None = None,
    slack: Slack = TOLERANT,
) -> float:
    """By how many logits the reference would have to be wrong for `chosen` to be the right token at index `t`.

    0 when it is the choice. A token near a top-k, top-p or min-p cut (`slack`) may be in or out: such a token may be
    chosen and need not be beaten. A token clearly cut off is as far away as it is from the cut, or as its score is from
    the best, whichever is more. Infinite for an id outside the vocabulary, or that the grammar does not allow. Where
    penalties stretch errors, the slack is stretched and the margin is shrunk by as much. Raises ValueError when the
    row has no finite maximum.
    """
    if not 0 <= chosen < len(logits):
        return math.inf
    _check(logits)
    if shaper is None:
        return _behind(logits, None, chosen, t, sampler, slack)
    slack = slack.stretched(shaper.stretch)
    row, ids = shaper.shape(logits)
    if ids is None:
        return _behind(row, None, chosen, t, sampler, slack)
    at = int(np.searchsorted(ids, chosen))
    if at == len(ids) or ids[at] != chosen:
        return math.inf
    _check(row)
    return _behind(row, ids, at, t, sampler, slack)


def _behind(given: NDArray[np.floating], ids: Ids | None, at: int, t: int, sampler: Sampler, slack: Slack) -> float:
    """`margin` of the position `at`; `ids` as in _pick."""
    best = _pick(given, ids, t, sampler)
    if at == best:
        return 0.0
    row = given.astype(np.float64)
    if sampler.temperature == 0:
        return float(row[best] - row[at]) / slack.stretch
    gumbel = noise(sampler.seed, t, len(row)) if ids is None else noise(sampler.seed, t, int(ids[-1]) + 1)[ids]
    scores = row + sampler.temperature * gumbel
    if sampler.top_k == 0 and sampler.top_p == 1 and sampler.min_p == 0:
        return max(0.0, float(scores[best] - scores[at])) / slack.stretch
    surely, perhaps, cut = _around(row, sampler, slack)
    rivals = scores[surely]
    behind = max(0.0, float(rivals.max() - scores[at])) if len(rivals) else 0.0
    return (behind if perhaps[at] else max(behind, cut - float(row[at]))) / slack.stretch


def _around(row: Reals, sampler: Sampler, slack: Slack) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Which ids are in under any error within the slack, which may be in, and the logit of the last one really in.

    Logits that are off by half of `near` change the odds of the share before a token by a factor of up to
    exp(near / temperature): the share itself, as no logistic curve is steeper than 1/4, by near / (4 temperature).
    """
    scaled = row / sampler.temperature
    kept = _top_k(scaled, sampler.top_k)
    near, share = slack.near, max(slack.share, slack.near / (4 * sampler.temperature))
    edge = float(row[kept].min())
    limited = len(kept) < len(row)
    surely = row >= edge + near if limited else np.ones(len(row), np.bool_)
    perhaps = row >= edge - near if limited else np.ones(len(row), np.bool_)
    if sampler.top_p < 1:
        high = _high(row, sampler, near, share)
        least, most = _before(row[high], row[kept], near, sampler.temperature)
        inside, nearby = np.zeros(len(row), np.bool_), np.zeros(len(row), np.bool_)
        nearby[high] = least < sampler.top_p + share
        inside[high] = nearby[high] & (most < sampler.top_p - share)
        surely, perhaps = surely & inside, perhaps & nearby
        edge = max(edge, float(row[_nucleus(scaled, kept, sampler.top_p)].min()))
    if sampler.min_p > 0:
        least_logit = float(row.max()) + sampler.temperature * math.log(sampler.min_p)
        surely &= row >= least_logit + near
        perhaps &= row >= least_logit - near
        edge = max(edge, least_logit)
    return surely, perhaps, edge


def _high(row: Reals, sampler: Sampler, near: float, share: float) -> Ids:
    """Ids that may be within top-p, and all that could come before one of them: as in _nucleus, what lies deeper than
    this weighs less than what the share leaves."""
    left = 1 - sampler.top_p - share
    if left <= 0:
        return np.arange(len(row))
    depth = sampler.temperature * (math.log(left) - math.log(len(row)) - 1)
    return np.flatnonzero(row >= row.max() + depth - 2 * near)


def _before(high: Reals, kept: Reals, near: float, temperature: float) -> tuple[Reals, Reals]:
    """Of each of `high` the share of the weight of `kept` before it, at least and at most. Among nearly equal
    logits the order itself is not sure: only what is clearly above counts, or everything that might be."""
    top = high.max()
    total = np.exp((kept - top) / temperature).sum()
    falling = -np.sort(-high)
    mass = np.concatenate([[0.0], np.cumsum(np.exp((falling - top) / temperature))]) / total
    own = np.exp((high - top) / temperature) / total
    least = mass[np.searchsorted(-falling, -(high + near), "left")]
    return least, mass[np.searchsorted(-falling, -(high - near), "right")] - own
