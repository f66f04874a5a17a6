"""Signing is fast because it works from a plan per class; here it is held to the slow way and to eth-account."""

import importlib
import pkgutil
from typing import Any, get_args, get_type_hints

import pytest
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak as their_keccak
from hypothesis import given
from hypothesis import strategies as st

import lading_contracts
import lading_protocol
from lading_protocol.eip712 import Domain, Signable, type_string, unpack
from lading_protocol.errors import BadAmount, BadMessage, BadSignature
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey, keccak256, recover

for package in (lading_protocol, lading_contracts):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
KINDS = sorted(
    (
        kind
        for kind in Signable.__subclasses__()
        if kind.__module__.startswith(("lading_protocol.", "lading_contracts."))
    ),
    key=lambda kind: kind.__name__,
)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
addresses = st.binary(min_size=20, max_size=20)
domains = st.builds(Domain, st.integers(0, 2**64), addresses)
keys = st.builds(lambda secret: PrivateKey(secret.to_bytes(32, "big")), st.integers(1, ORDER - 1))


def solidity(kind: type[Signable]) -> list[str]:
    """The fields' types, read from the declarations and not from what eip712 made of them."""
    hints = get_type_hints(kind, include_extras=True)
    return [get_args(hints[name])[1].name for name in kind.__struct_fields__]


def values_of(solidity_type: str) -> st.SearchStrategy[Any]:
    if solidity_type == "address":
        return addresses
    if solidity_type == "bytes32":
        return st.binary(min_size=32, max_size=32)
    return st.integers(0, 2 ** int(solidity_type[4:]) - 1)


@st.composite
def papers(draw: st.DrawFn) -> Signable:
    kind = draw(st.sampled_from(KINDS))
    return kind(*[draw(values_of(one)) for one in solidity(kind)])


def slow_digest(paper: Signable, domain: Domain) -> bytes:
    """EIP-712 as its text says it, by other people's keccak and ABI encoder."""
    domain_type = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    separator = their_keccak(
        their_keccak(domain_type)
        + their_keccak(b"Lading")
        + their_keccak(b"1")
        + abi_encode(("uint256", "address"), (domain.chain_id, domain.contract))
    )
    values = [getattr(paper, name) for name in paper.__struct_fields__]
    struct = their_keccak(their_keccak(type_string(type(paper)).encode()) + abi_encode(solidity(type(paper)), values))
    return their_keccak(b"\x19\x01" + separator + struct)


def their_signature(paper: Signable, domain: Domain, key: PrivateKey) -> bytes:
    fields = [one.split(" ") for one in type_string(type(paper)).partition("(")[2].rstrip(")").split(",")]
    values = [getattr(paper, name) for name in paper.__struct_fields__]
    message = encode_typed_data(
        {
            "name": "Lading",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": to_hex(domain.contract),
        },
        {type(paper).__name__: [{"type": kind, "name": name} for kind, name in fields]},
        {
            name: to_hex(value) if kind == "address" else value
            for (kind, name), value in zip(fields, values, strict=True)
        },
    )
    return bytes(Account.sign_message(message, key.secret).signature)


def test_every_paper_is_tried() -> None:
    assert {"Voucher", "Lock", "Receipt", "Offer", "SessionConsent"} <= {kind.__name__ for kind in KINDS}


@given(st.binary(max_size=600))
def test_keccak_is_that_of_another_implementation(data: bytes) -> None:
    assert keccak256(data) == their_keccak(data)


@given(papers(), domains)
def test_a_digest_is_the_slow_one(paper: Signable, domain: Domain) -> None:
    assert paper.digest(domain) == slow_digest(paper, domain)


@given(papers(), domains, keys)
def test_a_signature_is_eth_account_s_to_the_byte(paper: Signable, domain: Domain, key: PrivateKey) -> None:
    signed = paper.sign(domain, key)
    assert signed.signature == their_signature(paper, domain, key)
    assert signed.signer(domain) == key.address
    signed.check(domain, key.address)


@given(papers())
def test_words_are_the_abi_encoding_and_read_back(paper: Signable) -> None:
    values = [getattr(paper, name) for name in paper.__struct_fields__]
    assert paper.words() == abi_encode(solidity(type(paper)), values)
    assert type(paper).from_words(paper.words()) == paper


@given(papers(), st.data())
def test_a_value_that_does_not_fit_is_refused_in_every_field(paper: Signable, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(paper.__struct_fields__) - 1))
    name, kind = paper.__struct_fields__[at], solidity(type(paper))[at]
    values = {field: getattr(paper, field) for field in paper.__struct_fields__}
    if kind.startswith("uint"):
        limit = 2 ** int(kind[4:])
        outside = st.one_of(st.integers(limit), st.integers(max_value=-1), st.booleans(), st.just(1.0), st.just(b"\1"))
        with pytest.raises(BadAmount, match=f"does not fit in {kind}"):
            type(paper)(**(values | {name: data.draw(outside)})).words()
    else:
        size = len(values[name])
        wrong = data.draw(st.binary(max_size=40).filter(lambda value: len(value) != size))
        with pytest.raises(BadMessage, match=f"A field of type {kind} has {len(wrong)} bytes"):
            type(paper)(**(values | {name: wrong})).words()


@given(papers(), st.data())
def test_words_with_a_changed_bit_are_refused_or_another_paper(paper: Signable, data: st.DataObject) -> None:
    words = bytearray(paper.words())
    bit = data.draw(st.integers(0, 8 * len(words) - 1))
    words[bit // 8] ^= 1 << bit % 8
    try:
        other = type(paper).from_words(bytes(words))
    except BadMessage:
        return
    assert other != paper
    assert other.words() == words


@given(papers(), domains, keys, st.data())
def test_a_signature_with_a_changed_bit_is_not_the_signer_s(
    paper: Signable, domain: Domain, key: PrivateKey, data: st.DataObject
) -> None:
    signed = paper.sign(domain, key)
    changed = bytearray(signed.pack())
    bit = data.draw(st.integers(8 * (len(changed) - 65), 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        unpack(type(paper), bytes(changed)).check(domain, key.address)


@given(st.binary(min_size=32, max_size=32), keys)
def test_the_twin_of_a_signature_is_refused(digest: bytes, key: PrivateKey) -> None:
    good = key.sign_digest(digest)
    assert recover(digest, good) == key.address
    flipped = (ORDER - int.from_bytes(good[32:64], "big")).to_bytes(32, "big")
    with pytest.raises(BadSignature, match="malleable"):
        recover(digest, good[:32] + flipped + bytes([55 - good[64]]))
