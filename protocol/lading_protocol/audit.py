"""Spot checks: which receipts public randomness picks, and when a re-run proves a host guilty.

Pure. The commitment (an anchored Merkle root of receipts) comes before the beacon; tokens are checked against the
seeded sampler by their margins (how far a chosen token lies behind the best one, in logits), vectors by relative
difference. Nothing here is statistical: a guilty verdict needs evidence far outside what honest arithmetic of the
class can do.
"""

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
    """The limits of one numeric class. `margin` is in logits, `relative` is |a - b| / |b| over a vector, `chunk` the
    mean relative error of the sketches of one chunk, `prompt` the relative error of one prompt position's.

    Beyond these no honest host comes, ever. The `rare` ones are passed by one honest job in a thousand: they cast
    suspicion and prove nothing. Infinite: not measured, so not judged.
    """

    margin: float
    relative: float
    chunk: float = inf
    prompt: float = inf
    rare_margin: float = inf
    rare_chunk: float = inf
    rare_prompt: float = inf


# Exact classes are compared by equality; decoding and prefill still differ in the last bits.
EXACT_MARGIN = 1e-4
DECLARED = "declared"
# Measured for our own models on CPU hosts (docs/verification.md); a class that is not here cannot be slashed.
TOLERANCES = {
    "onnx-f32-cpu": Tolerance(margin=0.02, relative=2e-5, chunk=0.01, prompt=0.01),
    # WebAssembly without host models, clock or randomness: the same bytes and the same fuel, or a lie. The number is
    # wasmtime's major version, as another one may count fuel in another way.
    "wasmtime-50": Tolerance(margin=0.0, relative=0.0),
    # Of an image only its publisher says that it repeats itself. Who differs is suspect; to slash for it would let a
    # publisher have honest hosts slashed.
    DECLARED: Tolerance(margin=inf, relative=inf, rare_margin=0.0),
}


def assurance(numeric: str) -> str:
    """What stands behind the answers of a numeric class: "exact" when a re-run must give the same, "measured" when it
    must come as near as was measured of honest hosts, "declared" when the publisher says that it gives the same and who
    differs loses rank, "unverified" when nobody can be held to anything.
    """
    limits = TOLERANCES.get(numeric)
    if limits is None:
        return "unverified"
    if limits.margin == inf:
        return "declared"
    return "measured" if limits.margin else "exact"


# A margin counts for no more than this in a host's long record, so that one odd token does not outweigh a thousand.
CLIP = 0.05


class Rerun(msgspec.Struct, frozen=True):
    """What an auditor's own engine says about a case. `margins` is one number an output position of the attempt.

    `impossible` says why no honest host could have served the request at all, or what is malformed in what it opened;
    empty when nothing is. `chunks` and `prompt` compare its sketch with the auditor's (Tolerance), empty where there is
    none to compare.
    """

    prompt_hash: bytes
    prompt_tokens: int
    margins: tuple[float, ...] = ()
    relative: tuple[float, ...] = ()
    ends_well: bool = True
    impossible: str = ""
    chunks: tuple[float, ...] = ()
    prompt: tuple[float, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    verdict: Verdict
    code: str
    reason: str
    worst: float
    position: int
    suspect: bool = False


def judge(rerun: Rerun, claimed_prompt_hash: bytes, claimed_prompt_tokens: int, limits: Tolerance | None) -> Judgement:
    """Decide one case. UNKNOWN when the class has no published tolerance (None)."""
    if limits is None:
        why = "No tolerance is published for the numeric class of this agent."
        return Judgement(Verdict.UNKNOWN, "no_tolerance", why, 0.0, 0)
    if rerun.impossible:
        return Judgement(Verdict.GUILTY, "impossible", rerun.impossible, 0.0, 0)
    if (rerun.prompt_hash, rerun.prompt_tokens) != (claimed_prompt_hash, claimed_prompt_tokens):
        return Judgement(Verdict.GUILTY, "prompt", "The receipt names another prompt than the request gives.", 0.0, 0)
    if not rerun.ends_well:
        reason = "The answer ends where neither model nor request ends it."
        if limits.margin == inf:
            return Judgement(Verdict.HONEST, "ending", f"{reason} That proves nothing.", inf, len(rerun.margins), True)
        return Judgement(Verdict.GUILTY, "ending", reason, 0.0, len(rerun.margins))
    return _measured(rerun, limits)


def _measured(rerun: Rerun, limits: Tolerance) -> Judgement:
    """The tests that have a number, in the order in which their words help most."""
    suspect = False
    for code, what, values, limit, rare, unit in (
        ("prompt", "Prompt position", rerun.prompt, limits.prompt, limits.rare_prompt, "of the state's size"),
        ("margin", "Output", rerun.margins, limits.margin, limits.rare_margin, "logits"),
        ("sketch", "Chunk", rerun.chunks, limits.chunk, limits.rare_chunk, "of the states' size"),
        ("vector", "Output", rerun.relative, limits.relative, inf, "relative difference"),
    ):
        if not values:
            continue
        worst = max(values, key=_apart)
        if not worst <= limit:
            at = values.index(worst)
            reason = f"{what} {at} is off by {worst:.4g} {unit}; an honest host stays below {limit:g}."
            return Judgement(Verdict.GUILTY, code, reason, worst, at)
        suspect |= worst > rare
    every = rerun.margins or rerun.relative
    worst = max(every, default=0.0)
    at = every.index(worst) if every else 0
    words = f"All {len(every)} outputs agree."
    if suspect:
        words = f"Output {at} is off by {worst:.4g}: an honest host rarely is, which proves nothing."
    return Judgement(Verdict.HONEST, "ok", words, worst, at, suspect)


def seal(salt: bytes, leaf: bytes, margins: bytes, sketch: bytes) -> Digest:
    """What an auditor fixes before it sees the host's numbers. The halves are those of messages.Reveal."""
    return sha256(b"lading/seal/1" + salt + leaf + sha256(margins) + sha256(sketch))


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
