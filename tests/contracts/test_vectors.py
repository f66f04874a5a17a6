"""EIP-712 both ways: what forge signs over the contracts' digests, Python hashes, signs and accepts the same.

The other way (what Python signs, the contracts accept) is every road of tests/integration/chain.
"""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lading_contracts import abi
from lading_protocol import receipts
from lading_protocol.eip712 import Domain, Signable, unpack
from lading_protocol.ids import Address, Digest, Signature
from lading_protocol.keys import PrivateKey, keccak256
from lading_protocol.sheaves import Sheaf

CONTRACTS = Path(__file__).parents[2] / "contracts"
KEY = PrivateKey(keccak256(b"lading vectors"))
ROUNDS = 24
TYPES = ("string", "uint256", "address", "bytes", "bytes32", "bytes")
# A coordinator's notice counts among peers alone; no contract knows it.
SIGNED = {
    kind.__name__: kind for kind in vars(receipts).values() if isinstance(kind, type) and issubclass(kind, Signable)
}
del SIGNED["Signable"]
SIGNED[Sheaf.__name__] = Sheaf


class Vector(msgspec.Struct, frozen=True):
    """As the Solidity test emits it."""

    kind: str
    chain_id: int
    verifier: Address
    words: bytes
    digest: Digest
    signature: Signature


@pytest.fixture(scope="module")
def vectors() -> list[Vector]:
    command = [sys.executable, "tools/forge.py", "test", "--match-contract", "VectorsTest", "--json", "-vv"]
    done = subprocess.run(command, cwd=CONTRACTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (suite,) = json.loads(done.stdout[done.stdout.index("{") :]).values()
    topic = "0x" + keccak256(f"Vector({','.join(TYPES)})".encode()).hex()
    logs = [log for log in suite["test_results"]["test_vectors()"]["logs"] if log["topics"] == [topic]]
    return [Vector(*abi.decode(TYPES, bytes.fromhex(log["data"][2:]))) for log in logs]


@pytest.mark.timeout(300)
def test_what_forge_signs_python_accepts_and_signs_the_same(vectors: list[Vector]) -> None:
    for one in vectors:
        kind, domain = SIGNED[one.kind], Domain(one.chain_id, one.verifier)
        value = kind.from_words(one.words)
        assert value.words() == one.words
        assert value.digest(domain) == one.digest, one.kind
        assert unpack(kind, one.words + one.signature).signer(domain) == KEY.address
        # Both draw the nonce from key and digest (RFC 6979), so that even the signatures are equal.
        assert value.sign(domain, KEY).signature == one.signature


def test_no_signed_struct_is_left_out(vectors: list[Vector]) -> None:
    seen = [one.kind for one in vectors]
    assert {kind: seen.count(kind) for kind in SIGNED} == dict.fromkeys(SIGNED, ROUNDS)
