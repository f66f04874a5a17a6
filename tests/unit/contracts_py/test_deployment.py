"""The deployment record: what it refuses, and where the pieces of a chain and a record must agree."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import network
from lading_contracts import abi, deployment
from lading_contracts.contract import Contract
from lading_contracts.errors import BadDeployment
from lading_contracts.fake import FakeChain
from lading_protocol.ids import to_hex

RECORD = msgspec.structs.replace(network(31_337), block=7)
# What an older Lading wrote.
OLD = {
    "chain_id": 31_337,
    "block": 7,
    **{
        name: "0x" + f"{n:02x}" * 20 for n, name in enumerate(("coin", "registry", "settlement", "staking", "court"), 1)
    },
    "decimals": 18,
    "symbol": "LADE",
}


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deployment.json"
    RECORD.save(path)
    assert deployment.load(path) == RECORD
    assert json.loads(path.read_text())["settlement"] == to_hex(RECORD.settlement)
    assert [entry.name for entry in path.parent.iterdir()] == ["deployment.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"coin": "0x01"},
        {"coin": "zz"},
        {"coin": 5},
        {"coin": None},
        {"chain_id": 0},
        {"chain_id": "1"},
        {"block": -1},
        {"symbol": ""},
        {"surprise": 1},
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any]) -> None:
    document = json.loads(RECORD.encode()) | change
    with pytest.raises(BadDeployment, match="not a deployment record"):
        deployment.decode(json.dumps(document).encode())


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"\xff"])
def test_other_documents_are_refused(document: bytes) -> None:
    with pytest.raises(BadDeployment, match="not a deployment record"):
        deployment.decode(document)


def test_a_record_of_an_older_lading_says_what_to_do() -> None:
    with pytest.raises(BadDeployment, match="of an older Lading") as caught:
        deployment.decode(json.dumps(OLD).encode(), "deployment.json")
    assert "lading chain deploy" in str(caught.value)


def test_every_contract_has_an_address_of_its_own_and_a_class() -> None:
    names = RECORD.names()
    assert list(names.values()) == list(abi.CONTRACTS)
    contracts = deployment.Contracts(FakeChain(lambda: 0.0, chain_id=31_337), RECORD)
    held = {part.address: part.NAME for part in vars(contracts).values() if isinstance(part, Contract)}
    assert held == names


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDeployment, match=r"no deployment record .*none\.json"):
        deployment.load(tmp_path / "none.json")


def test_a_record_of_another_chain_is_refused() -> None:
    with pytest.raises(BadDeployment, match="is for chain 31337, the settings name chain 5"):
        deployment.Contracts(FakeChain(lambda: 0.0, chain_id=5), RECORD)


def test_opening_a_chain_imports_nothing_heavy() -> None:
    """A consumer's start-up must not pay for web3, py-evm or eth-account."""
    code = (
        "import sys, lading_contracts.rpc, lading_contracts.follower, lading_contracts.commands\n"
        "lading_contracts.rpc.open_chain('http://127.0.0.1:1', 1)\n"
        "print(sorted({'web3', 'eth', 'eth_account', 'eth_abi', 'eth_keyfile', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
