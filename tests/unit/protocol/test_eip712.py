"""Our EIP-712 against eth-account's, an independent implementation."""

from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from factories import contract, key, network
from lading_protocol.eip712 import Domain, Signable, type_string, unpack
from lading_protocol.errors import BadAmount, BadKey, BadMessage, BadSignature
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey, recover
from lading_protocol.offers import CoordinatorAd
from lading_protocol.receipts import (
    Lock,
    Offer,
    Receipt,
    Served,
    SessionConsent,
    SessionGrant,
    StakeConsent,
    TermsConsent,
    Voucher,
    pack_row,
    unpack_row,
)

HOST = key("host")
SAMPLES: list[Signable] = [
    Voucher(HOST.address, b"\x01" * 32, 3, 2**95),
    Lock(HOST.address, b"\x01" * 32, 3, 5),
    SessionConsent(HOST.address),
    SessionGrant(HOST.address, key("session").address, 5, 2**40 - 1, 2**64 - 1),
    TermsConsent(b"\x01" * 32, 2**40 - 1),
    StakeConsent(HOST.address),
    Served(b"\x01" * 32, 2**32 - 1),
    Offer(HOST.address, b"\x01" * 32, b"\x02" * 32, 5, 6, 7, 8, 9, b"\x03" * 32),
    CoordinatorAd(HOST.address, 1, 2, b"\x04" * 32),
    Receipt(
        *(b"\x01" * 32, 1, b"\x02" * 32, b"\x03" * 32, b"\x04" * 32, HOST.address, key("payer").address, 0, 5, 6, 7),
        *(b"\x05" * 32, b"\x06" * 32, 8, 9, 10, 1, 1_800_000_000, 3),
    ),
]


def typed_fields(struct: type[Signable]) -> list[dict[str, str]]:
    inner = type_string(struct).partition("(")[2].rstrip(")")
    return [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in inner.split(",")]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_signature_equals_eth_account(sample: Signable) -> None:
    domain = network().settlement_domain
    fields = typed_fields(type(sample))
    values = [getattr(sample, name) for name in sample.__struct_fields__]
    message = encode_typed_data(
        {
            "name": "Lading",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": to_hex(domain.contract),
        },
        {type(sample).__name__: fields},
        {
            field["name"]: to_hex(value) if field["type"] == "address" else value
            for field, value in zip(fields, values, strict=True)
        },
    )
    theirs = Account.sign_message(message, HOST.secret).signature
    signed = sample.sign(domain, HOST)
    assert signed.signature == theirs
    signed.check(domain, HOST.address)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_the_protocol_page_says_the_same_type_string(sample: Signable) -> None:
    page = (Path(__file__).parents[3] / "docs/protocol.md").read_text()
    assert f"`{type_string(type(sample))}`" in page


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_packed_form_round_trips_and_refuses_other_shapes(sample: Signable) -> None:
    signed = sample.sign(network().settlement_domain, HOST)
    packed = signed.pack()
    assert unpack(type(sample), packed) == signed
    for bad in (packed[:-1], packed + b"\0", packed[:10], b""):
        with pytest.raises(BadMessage):
            unpack(type(sample), bad)


def test_a_signature_counts_for_one_chain_and_one_contract() -> None:
    voucher = Voucher(HOST.address, b"\x01" * 32, 0, 5)
    here = Domain(1, contract("settlement"))
    signed = voucher.sign(here, HOST)
    for elsewhere in (Domain(2, contract("settlement")), Domain(1, contract("other"))):
        with pytest.raises(BadSignature):
            signed.check(elsewhere, HOST.address)


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadAmount):
        Voucher(HOST.address, b"\x01" * 32, 0, 2**96).words()
    with pytest.raises(BadAmount):
        Voucher(HOST.address, b"\x01" * 32, -1, 5).words()
    dirty = bytearray(Voucher(HOST.address, b"\x01" * 32, 0, 5).words())
    dirty[0] = 1
    with pytest.raises(BadMessage):
        Voucher.from_words(bytes(dirty))


def test_malleable_and_malformed_signatures_are_refused() -> None:
    digest = bytes(range(32))
    good = HOST.sign_digest(digest)
    assert recover(digest, good) == HOST.address
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    flipped = good[:32] + (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
    for bad in (flipped, good[:64], good[:64] + b"\0", bytes(65), b"\xff" * 64 + b"\x1b"):
        with pytest.raises(BadSignature):
            recover(digest, bad)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"short"])
def test_bad_keys_are_refused(secret: bytes) -> None:
    with pytest.raises(BadKey):
        PrivateKey(secret)


def test_a_key_never_shows_its_secret() -> None:
    assert HOST.secret.hex() not in repr(HOST)


def test_rows_round_trip() -> None:
    for label in range(20):
        signed = Voucher(HOST.address, b"\x01" * 32, 0, label).sign(network().settlement_domain, key(str(label)))
        row = pack_row(label, signed.signature)
        assert len(row) == 76
        assert unpack_row(row) == (label, signed.signature)
