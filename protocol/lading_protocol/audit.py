"""Spot checks: which receipts public randomness picks, and when a re-run proves a host guilty.

Pure. The commitment (an anchored Merkle root of receipts) comes before the beacon; tokens are checked against the
seeded sampler by their margins (how far a chosen token lies behind the best one, in logits), vectors by relative
difference. Nothing here is statistical: a guilty verdict needs evidence far outside what honest arithmetic of the
class can do.
"""

from collections.abc import Sequence
from enum import IntEnum
from math import inf, isnan

import msgspec

from lading_protocol.ids import Digest
from lading_protocol.transcript import sha256


class Verdict(IntEnum):
    UNKNOWN = 0
    HONEST = 1
    GUILTY = 2


class Tolerance(msgspec.Struct, frozen=True):
    """The limits of one numeric class. `margin` is in logits, `relative` is |a - b| / |b| over a vector."""

    margin: float
    relative: float


# Measured for our own models on CPU hosts (docs/verification.md); a class that is not here cannot be slashed.
TOLERANCES = {
    "onnx-f32-cpu": Tolerance(margin=0.02, relative=2e-5),
    # WebAssembly without host models, clock or randomness: the same bytes and the same fuel, or a lie. The number is
    # wasmtime's major version, as another one may count fuel in another way.
    "wasmtime-50": Tolerance(margin=0.0, relative=0.0),
}


class Rerun(msgspec.Struct, frozen=True):
    """What an auditor's own engine says about a case. `margins` is one number an output position of the attempt.

    `impossible` says why no honest host could have served the request at all, empty when it could.
    """

    prompt_hash: bytes
    prompt_tokens: int
    margins: tuple[float, ...] = ()
    relative: tuple[float, ...] = ()
    ends_well: bool = True
    impossible: str = ""


class Judgement(msgspec.Struct, frozen=True):
    verdict: Verdict
    code: str
    reason: str
    worst: float
    position: int


def judge(rerun: Rerun, claimed_prompt_hash: bytes, claimed_prompt_tokens: int, numeric: str) -> Judgement:
    """Decide one case. UNKNOWN when the class has no published tolerance."""
    limits = TOLERANCES.get(numeric)
    if limits is None:
        return Judgement(Verdict.UNKNOWN, "no_tolerance", f"No tolerance is published for {numeric!r}.", 0.0, 0)
    if rerun.impossible:
        return Judgement(Verdict.GUILTY, "impossible", rerun.impossible, 0.0, 0)
    if (rerun.prompt_hash, rerun.prompt_tokens) != (claimed_prompt_hash, claimed_prompt_tokens):
        return Judgement(Verdict.GUILTY, "prompt", "The receipt names another prompt than the request gives.", 0.0, 0)
    if not rerun.ends_well:
        reason = "The answer ends where neither model nor request ends it."
        return Judgement(Verdict.GUILTY, "ending", reason, 0.0, len(rerun.margins))
    for code, values, limit, unit in (
        ("margin", rerun.margins, limits.margin, "logits"),
        ("vector", rerun.relative, limits.relative, "relative difference"),
    ):
        if values and not (worst := max(values, key=_apart)) <= limit:
            at = values.index(worst)
            reason = f"Output {at} is off by {worst:.4g} {unit}; an honest host stays below {limit:g}."
            return Judgement(Verdict.GUILTY, code, reason, worst, at)
    every = rerun.margins or rerun.relative
    worst = max(every, default=0.0)
    return Judgement(
        Verdict.HONEST, "ok", f"All {len(every)} outputs agree.", worst, every.index(worst) if every else 0
    )


def _apart(deviation: float) -> float:
    """Not a number is further off than any number."""
    return inf if isnan(deviation) else deviation


def beacon(root: bytes, block_hash: bytes) -> Digest:
    """Randomness that was not known when `root` was anchored: the hash of a later block, bound to the root."""
    return sha256(b"lading/beacon/1" + root + block_hash)


def is_picked(randomness: bytes, leaf: bytes, rate_ppm: int) -> bool:
    """Whether a receipt is audited, at `rate_ppm` millionths. Anyone can recompute it."""
    draw = int.from_bytes(sha256(randomness + leaf)[:8], "big")
    return draw * 1_000_000 < rate_ppm << 64


def choose(randomness: bytes, leaf: bytes, candidates: Sequence[bytes], count: int) -> list[bytes]:
    """Pick auditors: the `count` candidates with the lowest hash, the same for everyone."""
    return sorted(candidates, key=lambda who: sha256(randomness + leaf + who))[:count]
