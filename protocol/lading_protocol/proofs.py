"""That one leaf lies under a Merkle root (transcript.merkle_root), shown by the hashes beside its way up. Pure."""

import hashlib
from collections.abc import Sequence

from lading_protocol.ids import Digest


def path(leaves: Sequence[bytes], index: int) -> list[Digest]:
    """The siblings of leaf `index`, from the leaf up; a node that is carried up has none at its level."""
    found, row, at = [], list(leaves), index
    while len(row) > 1:
        beside = at ^ 1
        if beside < len(row):
            found.append(Digest(row[beside]))
        paired = [hashlib.sha256(b"\1" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        row, at = paired + row[len(row) & ~1 :], at // 2
    return found


def root_from(leaf: bytes, index: int, count: int, siblings: Sequence[bytes]) -> Digest | None:
    """The root to which a leaf, its place among `count` and its siblings lead; None when they do not fit together."""
    if not 0 <= index < count:
        return None
    node, at, left, rest = leaf, index, count, list(siblings)
    while left > 1:
        if at ^ 1 < left:
            if not rest:
                return None
            beside = rest.pop(0)
            pair = beside + node if at & 1 else node + beside
            node = hashlib.sha256(b"\1" + pair).digest()
        at, left = at // 2, (left + 1) // 2
    return Digest(node) if not rest else None
