"""The papers that the coin knows: permits (ERC-2612) and authorizations (ERC-3009), signed as a wallet would.

Written against the standards, apart from the fake coin, so that neither can hide a mistake of the other.
"""

from typing import Any

from eth_account.messages import encode_typed_data
from eth_utils import to_checksum_address

from lading_contracts.deployment import Deployment
from lading_protocol.keys import PrivateKey, keccak256

_MOVE = "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
_KINDS = {
    "Permit": "address owner,address spender,uint256 value,uint256 nonce,uint256 deadline",
    "TransferWithAuthorization": _MOVE,
    "ReceiveWithAuthorization": _MOVE,
    "CancelAuthorization": "address authorizer,bytes32 nonce",
}
COIN_NAME = "Lading"


def permit(deployment: Deployment, signer: PrivateKey, values: tuple[Any, ...]) -> tuple[int, bytes, bytes]:
    """(v, r, s) over (owner, spender, value, nonce, deadline)."""
    return authorization(deployment, signer, "Permit", values)


def authorization(
    deployment: Deployment, signer: PrivateKey, kind: str, values: tuple[Any, ...]
) -> tuple[int, bytes, bytes]:
    fields = [tuple(field.split(" ")) for field in _KINDS[kind].split(",")]
    domain = {
        "name": COIN_NAME,
        "version": "1",
        "chainId": deployment.chain_id,
        "verifyingContract": to_checksum_address(deployment.coin),
    }
    message = {name: _plain(of, value) for (of, name), value in zip(fields, values, strict=True)}
    types = {kind: [{"name": name, "type": of} for of, name in fields]}
    paper = encode_typed_data(domain, types, message)
    digest = keccak256(b"\x19" + paper.version + paper.header + paper.body)
    signature = signer.sign_digest(digest)
    return signature[64], signature[:32], signature[32:64]


def _plain(kind: str, value: Any) -> Any:
    return to_checksum_address(value) if kind == "address" else value
