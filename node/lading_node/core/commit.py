"""The commitment over an attempt's chunks, kept up to date token by token in logarithmic space.

Gives the same root as lading_protocol.transcript.commitment; that one needs all tokens at once.
"""

import hashlib

import msgspec

from lading_protocol.ids import Digest, JobId
from lading_protocol.transcript import CHUNK_TOKENS, SKETCH_BYTES, chunk_leaf, chunk_mark, marked_leaf, resumed


class Commitment(msgspec.Struct, frozen=True):
    """`peaks` are the roots of the full subtrees so far, largest first, with their sizes in leaves.

    `before` is the rolling hash up to `first`, empty when the attempt begins the answer. `marks` holds the prompt's
    mark and those of the chunks that are whole; it is empty where nothing is sketched. `chunk` and `sketch` are of the
    chunk that is not whole.
    """

    job: JobId
    first: int
    before: bytes = b""
    peaks: tuple[tuple[int, bytes], ...] = ()
    marks: tuple[bytes, ...] = ()
    whole: int = 0
    chunk: tuple[int, ...] = ()
    sketch: bytes = b""

    @property
    def count(self) -> int:
        """Tokens committed to so far."""
        return CHUNK_TOKENS * self.whole + len(self.chunk)

    @property
    def is_sketched(self) -> bool:
        return bool(self.marks)


def sketched(state: Commitment, prompt: bytes) -> Commitment:
    """Before the first token: the tokens that come have sketches, and so has the prompt, with this mark."""
    return msgspec.structs.replace(state, peaks=_push(state.peaks, prompt), marks=(prompt,))


def add(state: Commitment, ids: tuple[int, ...], sketch: bytes = b"") -> Commitment:
    """`sketch` has SKETCH_BYTES a token where the state is sketched."""
    chunk, rows = state.chunk + ids, state.sketch + sketch
    size = CHUNK_TOKENS * SKETCH_BYTES
    while len(chunk) >= CHUNK_TOKENS:
        at = state.first + CHUNK_TOKENS * state.whole
        mark, leaf = _leaf(state, at, chunk[:CHUNK_TOKENS], rows[:size])
        peaks, marks = _push(state.peaks, leaf), state.marks + mark
        state = msgspec.structs.replace(state, peaks=peaks, marks=marks, whole=state.whole + 1)
        chunk, rows = chunk[CHUNK_TOKENS:], rows[size:]
    return msgspec.structs.replace(state, chunk=chunk, sketch=rows)


def root(state: Commitment) -> Digest:
    """What a receipt holds now; before the first token of an answer 32 zero bytes."""
    node = _root(state)
    return resumed(node, state.before) if state.before else node


def marks_since(state: Commitment, count: int) -> tuple[bytes, ...]:
    """The marks that a receipt adds to one over `count` tokens of this attempt (messages.Chunk)."""
    if not state.marks or not state.count:
        return ()
    kept = 1 + count // CHUNK_TOKENS if count else 0
    return (*state.marks, *_last_leaf(state)[0])[kept:]


def _leaf(state: Commitment, at: int, ids: tuple[int, ...], sketch: bytes) -> tuple[tuple[bytes, ...], bytes]:
    if not state.marks:
        return (), chunk_leaf(state.job, at, ids)
    mark = chunk_mark(state.job, at, sketch)
    return (mark,), marked_leaf(state.job, at, ids, mark)


def _last_leaf(state: Commitment) -> tuple[tuple[bytes, ...], bytes]:
    """Of the chunk that is not whole."""
    if not state.chunk:
        return (), b""
    return _leaf(state, state.first + CHUNK_TOKENS * state.whole, state.chunk, state.sketch)


def _root(state: Commitment) -> Digest:
    if not state.count:
        return Digest(bytes(32))
    hashes = [node for _, node in state.peaks]
    if state.chunk:
        hashes.append(_last_leaf(state)[1])
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = _join(left, node)
    return Digest(node)


def _push(peaks: tuple[tuple[int, bytes], ...], leaf: bytes) -> tuple[tuple[int, bytes], ...]:
    size, node = 1, leaf
    while peaks and peaks[-1][0] == size:
        size, node, peaks = 2 * size, _join(peaks[-1][1], node), peaks[:-1]
    return (*peaks, (size, node))


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
