"""Hashes that bind a job: request, prompt, the rolling hash over output tokens, and the commitment over chunks.

All sha256. The rolling hash starts from the job alone, so a stream that moves to another host goes on with the same
values. The tree follows RFC 6962: leaves and nodes have different prefixes, and an odd node is
carried up.
"""

import hashlib
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from lading_protocol import native
from lading_protocol.ids import Digest, JobId

CHUNK_TOKENS: Final = 32
SKETCH_BYTES: Final = 32
_CHUNKS: Final = [Struct(f">{count}I").pack for count in range(CHUNK_TOKENS + 1)]


_sha256: Final = hashlib.sha256
_few: Final = native.sha256
_roll: Final = native.roll
_FEW: Final = native.FEW


def sha256(data: bytes) -> Digest:
    return Digest(_few(data) if len(data) <= _FEW else _sha256(data).digest())


def token_bytes(ids: Sequence[int]) -> bytes:
    count = len(ids)
    return bytes((_CHUNKS[count] if count <= CHUNK_TOKENS else Struct(f">{count}I").pack)(*ids))


def prompt_hash(prompt_ids: Sequence[int]) -> Digest:
    return sha256(token_bytes(prompt_ids))


def rolling_start(job: JobId) -> Digest:
    return Digest(_few(b"lading/tokens/1" + job))


def roll(state: bytes, ids: Iterable[int]) -> Digest:
    """The rolling hash after `ids`, one step a token."""
    return Digest(_roll(state, ids))


def chunk_leaf(job: JobId, first: int, ids: Sequence[int]) -> Digest:
    """The leaf of one chunk whose first token has absolute output index `first`."""
    return sha256(b"\0" + job + first.to_bytes(4, "big") + token_bytes(ids))


def chunk_mark(job: JobId, first: int, sketch: bytes) -> Digest:
    """What stands in a chunk's leaf for the sketch of its tokens (docs/protocol.md), SKETCH_BYTES each."""
    return sha256(b"\3" + job + first.to_bytes(4, "big") + sketch)


def prompt_mark(job: JobId, sketch: bytes) -> Digest:
    """What stands for the sketch of all positions before the one that gave the attempt's first token."""
    size = CHUNK_TOKENS * SKETCH_BYTES
    parts = [
        sha256(b"\4" + job + (at // SKETCH_BYTES).to_bytes(4, "big") + sketch[at : at + size])
        for at in range(0, len(sketch), size)
    ]
    return sha256(b"\5" + job + (len(sketch) // SKETCH_BYTES).to_bytes(4, "big") + merkle_root(parts))


def marks_of(job: JobId, first: int, positions: int, sketch: bytes) -> list[bytes]:
    """The marks of a whole sketch, of which `positions` lie before the one that gave output index `first`."""
    at, size = SKETCH_BYTES * positions, SKETCH_BYTES * CHUNK_TOKENS
    marks: list[bytes] = [prompt_mark(job, sketch[:at])]
    for start in range(at, len(sketch), size):
        marks.append(chunk_mark(job, first + (start - at) // SKETCH_BYTES, sketch[start : start + size]))
    return marks


def marked_leaf(job: JobId, first: int, ids: Sequence[int], mark: bytes) -> Digest:
    """The leaf of a chunk whose tokens are sketched."""
    return sha256(b"\6" + job + first.to_bytes(4, "big") + token_bytes(ids) + mark)


def vectors_leaf(job: JobId, data: bytes) -> Digest:
    """The only leaf of an embedding attempt: over the little-endian float32 rows."""
    return sha256(b"\0" + job + data)


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """The root over leaf digests; 32 zero bytes for none."""
    if not leaves:
        return Digest(bytes(32))
    row = list(leaves)
    while len(row) > 1:
        paired = [_few(b"\1" + row[i] + row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = paired + row[len(row) & ~1 :]
    return Digest(row[0])


def commitment(job: JobId, emitted: Sequence[int], first: int, marks: Sequence[bytes] = ()) -> Digest:
    """The root over the chunks of the attempt that delivered `emitted` from index `first` on: CHUNK_TOKENS tokens each,
    counted from the attempt's first token. `emitted` are all tokens of the job up to the attempt's end.

    `marks` are empty where nothing is sketched; else the prompt's mark, which is the first leaf, and one a chunk.
    Raises ValueError when their number is wrong. Without tokens there are neither leaves nor marks.
    """
    starts = range(first, len(emitted), CHUNK_TOKENS)
    if marks:
        named = zip(starts, marks[1:], strict=True)
        leaves = [marks[0], *[marked_leaf(job, at, emitted[at : at + CHUNK_TOKENS], mark) for at, mark in named]]
    else:
        leaves = [chunk_leaf(job, at, emitted[at : at + CHUNK_TOKENS]) for at in starts]
    root = merkle_root(leaves)
    return resumed(root, roll(rolling_start(job), emitted[:first])) if first else root


def resumed(root: bytes, before: bytes) -> Digest:
    """The commitment of an attempt that went on after the rolling hash `before`.

    Without it, somebody could show a court another beginning, after which honest tokens look wrong.
    """
    return sha256(b"\2" + before + root)
