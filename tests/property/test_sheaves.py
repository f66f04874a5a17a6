"""Receipts that were signed many at once: each holds with its own path, and nothing else does."""

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_protocol import sheaves
from lading_protocol.eip712 import Domain, Signed, check_packed, unpack
from lading_protocol.errors import BadMessage, BadSignature
from lading_protocol.ids import Address, Digest, Signature
from lading_protocol.keys import PrivateKey, keccak256, recover
from lading_protocol.messages import Done, decode, encode
from lading_protocol.proofs import path, root_from
from lading_protocol.receipts import Receipt, Voucher
from lading_protocol.sheaves import MOST, Sheaf, bind, fits, place, signer, spread
from lading_protocol.transcript import merkle_root

HOST = PrivateKey(keccak256(b"host of sheaves"))
COURT = Domain(31337, Address(b"c" * 20))
sizes = st.integers(1, 64)


def receipt(n: int) -> Receipt:
    names = (b"r" * 32, b"a" * 32, b"t" * 32, HOST.address, Address(b"s" * 20))
    return Receipt(keccak256(b"job %d" % n), 0, *names, 0, 0, 5, 9, b"p" * 32, b"c" * 32, 1, 2, 23, 1, 1_800_000_000)


def leaves(count: int, first: int = 0) -> list[Digest]:
    return [receipt(first + n).digest(COURT) for n in range(count)]


def holds(digest: bytes, signature: bytes, domain: Domain = COURT) -> bool:
    try:
        return signer(Digest(digest), Signature(signature), domain) == HOST.address
    except BadSignature:
        return False


def test_every_receipt_of_every_size_holds_alone_and_as_a_packed_paper() -> None:
    for count in range(1, 65):
        digests = leaves(count)
        signatures = bind(digests, COURT, HOST)
        assert spread(digests, Signature(signatures[0][:65])) == signatures
        for n, signature in enumerate(signatures):
            paper = Signed(receipt(n), signature)
            paper.check(COURT, HOST.address)
            assert unpack(Receipt, paper.pack()) == paper
            check_packed(type(paper.value), paper.pack(), COURT, HOST.address)
            assert place(signature) == ((n, count) if count > 1 else (0, 1))
            assert fits(len(signature))


def test_it_is_the_tree_of_the_anchors() -> None:
    """So one proof, one library and one page serve both."""
    for count in (2, 3, 7, 64, 100):
        digests = leaves(count)
        for n, signature in enumerate(bind(digests, COURT, HOST)):
            beside = [signature[at : at + 32] for at in range(69, len(signature), 32)]
            assert beside == path(digests, n)
            assert root_from(digests[n], n, count, beside) == merkle_root(digests)
            assert recover(Sheaf(merkle_root(digests), count).digest(COURT), signature[:65]) == HOST.address


@given(sizes, st.data())
def test_no_flipped_bit_is_let_pass(count: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, count - 1))
    signature = bytearray(bind(leaves(count), COURT, HOST)[n])
    assert holds(leaves(count)[n], bytes(signature))
    bit = data.draw(st.integers(0, 8 * len(signature) - 1))
    signature[bit // 8] ^= 1 << bit % 8
    assert not holds(leaves(count)[n], bytes(signature))
    packed = receipt(n).words() + bytes(signature)
    with pytest.raises(BadSignature):
        unpack(Receipt, packed).check(COURT, HOST.address)


@given(sizes, sizes, st.data())
def test_nothing_of_another_sheaf_or_place_fits(count: int, other: int, data: st.DataObject) -> None:
    n, m = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, other - 1))
    mine, theirs = bind(leaves(count), COURT, HOST), bind(leaves(other, 1000), COURT, HOST)
    digest = leaves(count)[n]
    assert not holds(digest, theirs[m])
    assert not holds(digest, mine[n][:65] + theirs[m][65:]) or count == other == 1
    assert not holds(digest, theirs[m][:65] + mine[n][65:])
    for at in {(n + 1) % count, n ^ 1, 0} - {n}:
        if at < count:
            assert not holds(digest, mine[at])
        assert not holds(digest, mine[n][:65] + struct.pack(">HH", at, count) + mine[n][69:])
    for said in {count - 1, count + 1, 2 * count} - {1}:
        assert not holds(digest, mine[n][:65] + struct.pack(">HH", n, said) + mine[n][69:])


@given(st.binary(max_size=420), st.integers(0, 500))
def test_nothing_else_is_a_signature(junk: bytes, size: int) -> None:
    alone = HOST.sign_digest(leaves(1)[0])
    assert not holds(leaves(1)[0], junk)
    assert holds(leaves(1)[0], (alone + bytes(500))[:size]) == (size == 65)
    packed = receipt(0).words() + (alone + bytes(500))[:size]
    if not fits(size):
        with pytest.raises(BadMessage):
            unpack(Receipt, packed)
    elif size != 65:
        with pytest.raises(BadSignature):
            unpack(Receipt, packed).check(COURT, HOST.address)


def test_a_node_is_no_receipt_and_a_receipt_no_node() -> None:
    """Not even where the host signs a wrong number of receipts itself."""
    digests = leaves(4)
    root = merkle_root(digests)
    right = hashlib.sha256(b"\1" + digests[2] + digests[3]).digest()
    left = hashlib.sha256(b"\1" + digests[0] + digests[1]).digest()
    as_two = HOST.sign_digest(Sheaf(root, 2).digest(COURT))
    assert holds(left, as_two + struct.pack(">HH", 0, 2) + right), "for whoever takes any hash for a receipt's digest"
    assert not any(holds(digest, as_two + struct.pack(">HH", n, 2) + right) for digest in digests for n in (0, 1))
    as_eight = HOST.sign_digest(Sheaf(root, 8).digest(COURT))
    own = bind(digests, COURT, HOST)[0][69:]
    for beside in (own, own + right, own + bytes(32)):
        assert not holds(digests[0], as_eight + struct.pack(">HH", 0, 8) + beside)


def test_a_sheaf_counts_for_receipts_of_its_own_court_only() -> None:
    digests = leaves(3)
    signatures = bind(digests, COURT, HOST)
    for elsewhere in (Domain(1, COURT.contract), Domain(COURT.chain_id, Address(b"d" * 20))):
        assert not holds(digests[0], signatures[0], elsewhere)
    voucher = Voucher(HOST.address, b"t" * 32, 0, 7)
    bound = bind([voucher.digest(COURT), digests[0]], COURT, HOST)[0]
    with pytest.raises(BadMessage):
        unpack(Voucher, voucher.words() + bound)
    with pytest.raises(BadSignature):
        Signed(voucher, bound).check(COURT, HOST.address)
    over_root = HOST.sign_digest(merkle_root(digests))
    assert not holds(digests[0], over_root + signatures[0][65:]), "the root itself is never signed"
    one = HOST.sign_digest(Sheaf(digests[0], 1).digest(COURT))
    assert not holds(digests[0], one + struct.pack(">HH", 0, 1)), "one receipt has one form"
    assert not holds(digests[0], one)


def test_the_largest_fits_in_a_message_and_a_larger_one_is_none() -> None:
    digests = [keccak256(b"%d" % n) for n in range(MOST)]
    signatures = bind(digests, COURT, HOST)
    assert all(holds(digests[n], signatures[n]) for n in (0, 1, 511, 512, MOST - 1))
    packed = Signed(receipt(0), max(signatures, key=len)).pack()
    assert decode(Done, encode(Done(packed))) == Done(packed)
    for count in (0, MOST + 1):
        with pytest.raises(ValueError, match="1 to 1024"):
            bind(digests[:1] * count, COURT, HOST)


def test_one_recovery_serves_a_sheaf() -> None:
    sheaves._binder.cache_clear()
    digests = leaves(32, 5000)
    for digest, signature in zip(digests, bind(digests, COURT, HOST), strict=True):
        assert holds(digest, signature)
    assert sheaves._binder.cache_info().misses == 1
    forged = msgspec.structs.replace(receipt(5000), amount=24).digest(COURT)
    assert not holds(forged, bind(digests, COURT, HOST)[0]), "what is remembered is the root, and no receipt"
