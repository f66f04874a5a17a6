"""One signature under many receipts: a sheaf. Their host signs the Merkle root over their digests and their number.

A receipt of a sheaf carries, in place of 65 bytes, those under the root, its place, and the hashes beside its way up.
It is checked like any other, by whoever holds it and nothing else. Who binds receipts, and when, is not known here.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct

from lading_protocol import native
from lading_protocol.eip712 import U32, Bytes32, Domain, Signable
from lading_protocol.errors import BadSignature
from lading_protocol.ids import Address, Digest, Signature
from lading_protocol.keys import PrivateKey, recover

ALONE = 65
# So that a packed receipt of the deepest tree fits in a message's 1,024 bytes.
MOST = 1024
_DEEPEST = 10
_place = Struct(">HH")
_HEAD = ALONE + _place.size
_SIZES = frozenset({ALONE, *range(_HEAD + 32, _HEAD + 32 * _DEEPEST + 1, 32)})
_sha256 = native.sha256


class Sheaf(Signable, frozen=True):
    """What is signed. The tree is transcript.merkle_root's over `count` digests of receipts in this very domain."""

    root: Bytes32
    count: U32


def fits(size: int) -> bool:
    """Whether a receipt's signature can have so many bytes."""
    return size in _SIZES


def bind(digests: Sequence[Digest], domain: Domain, key: PrivateKey) -> list[Signature]:
    """The signatures of receipts with these digests, made with one. Raises ValueError for none or more than MOST."""
    rows = _rows(digests)
    return _spread(rows, key.sign_digest(_signed(rows, domain)))


def spread(digests: Sequence[Digest], signature: Signature) -> list[Signature]:
    """What each of these receipts carries of the one signature, whoever gave it. Raises ValueError as bind does."""
    return _spread(_rows(digests), signature)


def _spread(rows: list[list[bytes]], signature: Signature) -> list[Signature]:
    count = len(rows[0])
    if count == 1:
        return [signature]
    return [Signature(signature + _place.pack(at, count) + _beside(rows, at)) for at in range(count)]


def _signed(rows: list[list[bytes]], domain: Domain) -> bytes:
    """A receipt that is alone is signed itself."""
    count, root = len(rows[0]), rows[-1][0]
    return Sheaf(root, count).digest(domain) if count > 1 else root


def _rows(digests: Sequence[Digest]) -> list[list[bytes]]:
    """The tree, leaves first."""
    if not 1 <= len(digests) <= MOST:
        raise ValueError(f"a sheaf is of 1 to {MOST} receipts, not {len(digests)}")
    rows: list[list[bytes]] = [[*digests]]
    while len(row := rows[-1]) > 1:
        paired = [_sha256(b"\1" + row[i] + row[i + 1]) for i in range(0, len(row) - 1, 2)]
        rows.append(paired + row[len(row) & ~1 :])
    return rows


def _beside(rows: list[list[bytes]], index: int) -> bytes:
    """The siblings on the way up, the leaf's first; a node that is carried up has none."""
    return b"".join([row[at] for level, row in enumerate(rows) if (at := (index >> level) ^ 1) < len(row)])


def place(signature: Signature) -> tuple[int, int]:
    """Which receipt of how many this is in its sheaf, from 0. Says nothing of whether it holds."""
    if len(signature) == ALONE:
        return 0, 1
    index, count = _place.unpack_from(signature, ALONE)
    return index, count


def signer(digest: Digest, signature: bytes, domain: Domain) -> Address:
    """Who signed the receipt with this digest, alone or in a sheaf. Raises BadSignature.

    The first receipt of a sheaf costs a recovery of the key, the others some hashes each.
    """
    if len(signature) == ALONE:
        return recover(digest, signature)
    if len(signature) not in _SIZES:
        raise BadSignature(f"A receipt's signature cannot have {len(signature)} bytes.")
    index, count = _place.unpack_from(signature, ALONE)
    root = _root(digest, index, count, signature) if index < count <= MOST else None
    if root is None:
        raise BadSignature("The receipt's place in its sheaf does not fit the hashes beside it.")
    return _binder(domain, root, count, signature[:ALONE])


def _root(digest: bytes, index: int, count: int, signature: bytes) -> bytes | None:
    """Where the way up ends, if it has just as many hashes as the place among so many asks for."""
    node, at, end = digest, _HEAD, len(signature)
    while count > 1:
        if index ^ 1 < count:
            beside = signature[at : at + 32]
            node = _sha256(b"\1" + beside + node if index & 1 else b"\1" + node + beside)
            at += 32
        index, count = index >> 1, (count + 1) >> 1
    return node if at == end else None


@lru_cache(maxsize=1024)
def _binder(domain: Domain, root: bytes, count: int, signature: bytes) -> Address:
    return recover(Sheaf(root, count).digest(domain), signature)
