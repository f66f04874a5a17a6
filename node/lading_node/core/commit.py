"""The commitment over an attempt's chunks, kept up to date token by token in logarithmic space.

Gives the same root as lading_protocol.transcript.commitment; that one needs all tokens at once.
"""

import hashlib

import msgspec

from lading_protocol.ids import Digest, JobId
from lading_protocol.transcript import CHUNK_TOKENS, chunk_leaf, resumed


class Commitment(msgspec.Struct, frozen=True):
    """`peaks` are the roots of the full subtrees so far, largest first, with their sizes in chunks.

    `before` is the rolling hash up to `first`, empty when the attempt begins the answer.
    """

    job: JobId
    first: int
    before: bytes = b""
    peaks: tuple[tuple[int, bytes], ...] = ()
    chunk: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Tokens committed to so far."""
        return CHUNK_TOKENS * sum(size for size, _ in self.peaks) + len(self.chunk)


def add(state: Commitment, ids: tuple[int, ...]) -> Commitment:
    chunk = state.chunk + ids
    while len(chunk) >= CHUNK_TOKENS:
        at = state.first + CHUNK_TOKENS * sum(size for size, _ in state.peaks)
        leaf = chunk_leaf(state.job, at, chunk[:CHUNK_TOKENS])
        state = msgspec.structs.replace(state, peaks=_push(state.peaks, leaf))
        chunk = chunk[CHUNK_TOKENS:]
    return msgspec.structs.replace(state, chunk=chunk)


def root(state: Commitment) -> Digest:
    """What a receipt holds now; before the first token of an answer 32 zero bytes."""
    node = _root(state)
    return resumed(node, state.before) if state.before else node


def _root(state: Commitment) -> Digest:
    hashes = [node for _, node in state.peaks]
    if state.chunk:
        at = state.first + state.count - len(state.chunk)
        hashes.append(chunk_leaf(state.job, at, state.chunk))
    if not hashes:
        return Digest(bytes(32))
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = Digest(_join(left, node))
    return Digest(node)


def _push(peaks: tuple[tuple[int, bytes], ...], leaf: bytes) -> tuple[tuple[int, bytes], ...]:
    size, node = 1, leaf
    while peaks and peaks[-1][0] == size:
        size, node, peaks = 2 * size, _join(peaks[-1][1], node), peaks[:-1]
    return (*peaks, (size, node))


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
