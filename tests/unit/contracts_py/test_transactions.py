"""Hand-built transactions and key files against eth-account, which everybody else uses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lading_contracts import keystore
from lading_contracts.errors import BadKeystore
from lading_contracts.transactions import Fees, Unsigned, created_address, read, rlp, sign
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

KEY = PrivateKey(b"\x07" * 32)


@pytest.mark.parametrize("to", [Address(b"\x00" * 19 + b"\x09"), None])
@pytest.mark.parametrize("data", [b"", b"\x01", b"\x80", b"x" * 55, b"x" * 56, b"x" * 70_000])
@pytest.mark.parametrize(("nonce", "value"), [(0, 0), (127, 1), (128, 10**20)])
def test_the_signed_bytes_are_those_of_eth_account(to: Address | None, data: bytes, nonce: int, value: int) -> None:
    from eth_account import Account

    ours = sign(Unsigned(31_337, nonce, Fees(10**10, 10**9), 21_000, to, value, data), KEY)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": 31_337,
        "nonce": nonce,
        "gas": 21_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9,
        "value": value,
        "data": data,
    }
    theirs = Account.sign_transaction(fields | ({} if to is None else {"to": to}), KEY.secret)
    assert (ours.raw, ours.hash) == (bytes(theirs.raw_transaction), bytes(theirs.hash))
    said, sender = read(ours.raw)
    assert (said.nonce, said.to, said.value, said.data, sender) == (nonce, to, value, data, KEY.address)
    assert (said.chain_id, said.gas, said.fees) == (31_337, 21_000, Fees(10**10, 10**9))


def test_bytes_that_are_no_transaction_of_ours_are_refused() -> None:
    whole = sign(Unsigned(1, 0, Fees(1, 1), 21_000, None, 0, b"x" * 60), KEY).raw
    for broken in (b"", b"\x01" + whole[1:], *(whole[:size] for size in range(1, len(whole))), whole + b"\x00"):
        with pytest.raises(ValueError):
            read(broken)


def test_rlp_of_the_yellow_paper() -> None:
    assert rlp([]) == b"\xc0"
    assert rlp([b"cat", b"dog"]) == b"\xc8\x83cat\x83dog"
    assert rlp([[], [[]], [[], [[]]]]) == bytes.fromhex("c7c0c1c0c3c0c1c0")


def test_where_a_contract_will_live() -> None:
    """The well-known first contracts of 0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0."""
    sender = Address(bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"))
    assert created_address(sender, 0).hex() == "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    assert created_address(sender, 1).hex() == "343c43a37d37dff08ae8c4a11544c718abb4fcf8"


def test_a_key_file_is_one_that_eth_account_opens(tmp_path: Path) -> None:
    from eth_account import Account

    path = tmp_path / "keys" / "owner.json"
    keystore.save(path, KEY, "open sesame", rounds=2)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert bytes(Account.decrypt(json.loads(path.read_text()), "open sesame")) == KEY.secret
    assert keystore.load(path, "open sesame").address == KEY.address
    with pytest.raises(BadKeystore, match="password does not open"):
        keystore.load(path, "open barley")
    with pytest.raises(BadKeystore, match="exists already"):
        keystore.save(path, KEY, "open sesame", rounds=2)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1}', "[]", '{"version": 3, "crypto": {}}'])
def test_other_files_are_refused_in_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(BadKeystore, match="is not a"):
        keystore.load(path, "x")


def test_a_missing_file_and_an_empty_password(tmp_path: Path) -> None:
    with pytest.raises(BadKeystore, match="cannot be read"):
        keystore.load(tmp_path / "none.json", "x")
    with pytest.raises(BadKeystore, match="needs a password"):
        keystore.save(tmp_path / "none.json", KEY, "")


def test_the_key_variable() -> None:
    assert keystore.from_environment(environment={}) is None
    found = keystore.from_environment(environment={"LADING_KEY": "0x" + KEY.secret.hex()})
    assert found is not None
    assert found.address == KEY.address
    with pytest.raises(BadKeystore, match="LADING_KEY does not hold") as caught:
        keystore.from_environment(environment={"LADING_KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)
