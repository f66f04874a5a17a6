"""TOPLOC (Ong et al., 2025, arXiv 2501.16007) beside our sketches: the same states, its proofs, its thresholds.

The `toploc` package where it loads; else its published scheme again: the TOP largest of a window of WINDOW states, as
bf16, on a polynomial over their places modulo the largest number from 65497 down that keeps the places apart.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lading_node.core.sketch import States

WINDOW, TOP = 32, 128
PRIME = 65497
PROOF_BYTES = 2 + 2 * TOP
Ints = NDArray[np.int64]


class Apart(NamedTuple):
    """The worst window of a job: exponents that differ of TOP, and by how much mantissas of the others do."""

    exponents: float
    mean: float
    median: float

    def passes(self, limits: "Apart") -> bool:
        return all(found <= limit for found, limit in zip(self, limits, strict=True))


PUBLISHED = {"bf16": Apart(38, 10, 8), "f32": Apart(8, 256, 128)}


@functools.cache
def library() -> Any:
    """The package's module, or None where it does not load."""
    try:
        import toploc
    except (ImportError, OSError):
        return None
    return toploc


def windows(states: States, prompt: int) -> list[States]:
    """The whole prompt is one, then WINDOW positions each."""
    return [states[:prompt], *(states[at : at + WINDOW] for at in range(prompt, len(states), WINDOW))]


def prove(states: States, prompt: int) -> list[bytes]:
    return [_encode(*_largest(window)) for window in windows(states, prompt)]


def apart(own: States, prompt: int, proofs: Sequence[bytes]) -> Apart:
    """The verifier's side."""
    found = [_compare(window, proof) for window, proof in zip(windows(own, prompt), proofs, strict=True)]
    return Apart(*(max(each) for each in zip(*found, strict=True)))


def _largest(window: States) -> tuple[Ints, Ints]:
    """Places and bf16 bits of the TOP largest."""
    flat = torch.from_numpy(np.ascontiguousarray(window)).flatten().to(torch.bfloat16)
    places = flat.abs().topk(TOP).indices
    bits = flat[places].view(torch.int16).numpy().astype(np.int64) & 0xFFFF
    return places.numpy().astype(np.int64), bits


def _encode(places: Ints, bits: Ints) -> bytes:
    modulus = next(m for m in range(PRIME, 1, -1) if len(np.unique(places % m)) == len(places))
    coefficients = _newton(places % modulus, bits % PRIME)
    return np.concatenate([[modulus], coefficients]).astype(">u2").tobytes()


@functools.cache
def _inverses() -> Ints:
    """Of 0 (as 0) to PRIME - 1."""
    found = np.zeros(PRIME, np.int64)
    found[1] = 1
    for i in range(2, PRIME):
        found[i] = -(PRIME // i) * found[PRIME % i] % PRIME
    return found


def _newton(x: Ints, y: Ints) -> Ints:
    """Coefficients, lowest first, of the polynomial through the points, by divided differences."""
    inverse, table = _inverses(), y.copy()
    for j in range(1, len(x)):
        table[j:] = (table[j:] - table[j - 1 : -1]) * inverse[(x[j:] - x[: len(x) - j]) % PRIME] % PRIME
    made = np.zeros(len(x), np.int64)
    for i in range(len(x) - 1, -1, -1):
        shifted = np.concatenate([[0], made[:-1]])
        made = (shifted - x[i] * made) % PRIME
        made[0] = (made[0] + table[i]) % PRIME
    return made


def _compare(window: States, proof: bytes) -> Apart:
    modulus, *coefficients = np.frombuffer(proof, ">u2").astype(np.int64)
    places, bits = _largest(window)
    x, told = places % modulus, np.zeros(len(places), np.int64)
    for coefficient in reversed(coefficients):
        told = (told * x + coefficient) % PRIME
    same = (told >> 7 & 0xFF) == (bits >> 7 & 0xFF)
    if not same.any():
        return Apart(TOP, np.inf, np.inf)
    mantissas = np.abs((told[same] & 0x7F) - (bits[same] & 0x7F))
    return Apart(float(TOP - same.sum()), float(mantissas.mean()), float(np.median(mantissas)))
