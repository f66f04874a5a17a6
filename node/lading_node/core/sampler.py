"""The seeded sampler: which token follows, from fp32 logits, a job's seed and the token's absolute output index.

Host and auditor run this same code, so the tokens themselves prove the sampling. docs/protocol.md has the rule; the
vectors in tests/vectors/sampler.json freeze it. Knows no engine, clock or generator state: every number is keyed.
"""

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from lading_protocol.messages import Sampler

Reals = NDArray[np.float64]
Ids = NDArray[np.intp]

# An honest host's logits differ in the last bits, so at a cut it may keep or drop a token that lies this close to it.
TOP_K_SLACK = 0.05  # logits
TOP_P_SLACK = 0.02  # cumulative probability

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


def choose(logits: NDArray[np.float32], t: int, sampler: Sampler) -> int:
    """The token at output index `t`: argmax over allowed ids of logit / temperature + noise; ties go to the lowest id.

    `logits` is one fp32 row over the vocabulary. Raises ValueError when the row has no finite maximum.
    """
    top = float(logits.max())
    if not math.isfinite(top):
        raise ValueError("The logits are not finite.")
    if sampler.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / sampler.temperature
    drawn = words(sampler.seed, t, len(scaled))
    if sampler.top_k == 0 and sampler.top_p == 1:
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
    """Positions that could win under the largest noise drawn: only these need logarithms."""
    lead = int(scaled.argmax())
    least, most = _noise(np.array([drawn[lead], drawn.max()], dtype=np.uint64))
    return np.flatnonzero(scaled >= scaled[lead] + (least - most) - _CLOSE * max(1.0, abs(float(scaled[lead]))))


def _exact_best(scaled: Reals, drawn: NDArray[np.uint64], near: Ids) -> int:
    """Math libraries differ in the last bit; among positions where that could decide, correctly rounded noise does."""
    exact = [float(scaled[i]) + exact_noise(int(drawn[i])) for i in near]
    return int(near[exact.index(max(exact))])


def _allowed(scaled: Reals, sampler: Sampler) -> Ids:
    """Ids that pass top-k, then top-p over what top-k left, in ascending order."""
    order = _top_k(scaled, sampler.top_k)
    if sampler.top_p < 1:
        order = _nucleus(scaled, order, sampler.top_p)
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


def margin(logits: NDArray[np.float32], chosen: int, t: int, sampler: Sampler) -> float:
    """By how many logits the reference would have to be wrong for `chosen` to be the right token at index `t`.

    0 when it is the choice. A token near a top-k or top-p cut (TOP_K_SLACK, TOP_P_SLACK) may be in or out: such a
    token may be chosen and need not be beaten. A token clearly cut off is as far away as it is from the cut, or as
    its score is from the best, whichever is more. Infinite for an id outside the vocabulary. Raises ValueError when
    the row has no finite maximum.
    """
    if not 0 <= chosen < len(logits):
        return math.inf
    best = choose(logits, t, sampler)
    if chosen == best:
        return 0.0
    row = logits.astype(np.float64)
    if sampler.temperature == 0:
        return float(row[best] - row[chosen])
    scores = row + sampler.temperature * noise(sampler.seed, t, len(row))
    if sampler.top_k == 0 and sampler.top_p == 1:
        return max(0.0, float(scores[best] - scores[chosen]))
    surely, perhaps, cut = _slack(row, sampler)
    rivals = scores[surely]
    behind = max(0.0, float(rivals.max() - scores[chosen])) if len(rivals) else 0.0
    return behind if perhaps[chosen] else max(behind, cut - float(row[chosen]))


def _slack(row: Reals, sampler: Sampler) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Which ids are in under any error within the slack, which may be in, and the logit of the last one really in."""
    scaled = row / sampler.temperature
    kept = _top_k(scaled, sampler.top_k)
    edge = float(row[kept].min())
    limited = len(kept) < len(row)
    surely = row >= edge + TOP_K_SLACK if limited else np.ones(len(row), np.bool_)
    perhaps = row >= edge - TOP_K_SLACK if limited else np.ones(len(row), np.bool_)
    if sampler.top_p < 1:
        # Among nearly equal logits the order itself is not sure: count before a token only what is clearly above it,
        # or everything that might be.
        falling = row[_descending(scaled, np.arange(len(row)))]
        weights = np.exp((falling - falling[0]) / sampler.temperature)
        mass = np.concatenate([[0.0], np.cumsum(weights)]) / weights[: len(kept)].sum()
        own = np.exp((row - falling[0]) / sampler.temperature) / weights[: len(kept)].sum()
        least = mass[np.searchsorted(-falling, -(row + TOP_K_SLACK), "left")]
        most = mass[np.searchsorted(-falling, -(row - TOP_K_SLACK), "right")] - own
        surely &= most < sampler.top_p - TOP_P_SLACK
        perhaps &= least < sampler.top_p + TOP_P_SLACK
        edge = max(edge, float(row[_nucleus(scaled, kept, sampler.top_p)].min()))
    return surely, perhaps, edge
