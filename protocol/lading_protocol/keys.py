"""secp256k1 keys: one key is a node's libp2p identity and its Ethereum address.

Signs digests only; what a digest means is eip712's business. Never prints a secret.
"""

import hashlib

from coincurve import PrivateKey as _Secret
from coincurve import PublicKey as _Public
from tiny_keccak import keccak256 as _keccak

from lading_protocol.errors import BadKey, BadSignature
from lading_protocol.ids import Address, Digest, Signature, from_hex

_HALF_ORDER = bytes.fromhex("7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0")


def keccak256(data: bytes) -> Digest:
    return Digest(_keccak(data))


def address_of(public_key: bytes) -> Address:
    """The Ethereum address of a public key given in any SEC1 encoding."""
    return _address(_Public(public_key).format(compressed=False))


def _address(point: bytes) -> Address:
    return Address(keccak256(point[1:])[12:])


class PrivateKey:
    """A secp256k1 secret. `secret` is 32 bytes; raises BadKey otherwise."""

    __slots__ = ("_key", "address", "public_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise BadKey(f"A private key has 32 bytes, this one has {len(secret)}.")
        try:
            self._key = _Secret(secret)
        except ValueError as error:
            raise BadKey("The private key is out of range.") from error
        self.public_key: bytes = self._key.public_key.format(compressed=True)
        self.address: Address = address_of(self.public_key)

    @classmethod
    def from_hex(cls, text: str) -> "PrivateKey":
        try:
            return cls(from_hex(text.strip(), 32))
        except ValueError:
            raise BadKey("The private key is not 64 hexadecimal digits.") from None

    @property
    def secret(self) -> bytes:
        return self._key.secret

    def sign_digest(self, digest: bytes) -> Signature:
        """Sign a 32-byte digest: r || s || v, s low, v 27 or 28."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return Signature(raw[:64] + bytes([raw[64] + 27]))

    def sign_der(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest in DER, as libp2p identities do."""
        return self._key.sign(digest, hasher=None)

    def child(self, label: str) -> "PrivateKey":
        """A key derived for one purpose, so that tests and dev networks need a single seed."""
        return PrivateKey(hashlib.sha256(self.secret + label.encode()).digest())

    def __repr__(self) -> str:
        return f"PrivateKey(address=0x{self.address.hex()})"


def recover(digest: bytes, signature: bytes) -> Address:
    """The address that signed `digest`. Raises BadSignature for anything a contract would refuse too."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise BadSignature("A signature has 65 bytes and ends in 27 or 28.")
    if signature[32:64] > _HALF_ORDER:
        raise BadSignature("The signature is malleable (its s is in the upper half).")
    try:
        public = _Public.from_signature_and_message(signature[:64] + bytes([signature[64] - 27]), digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception and ValueError for bad points
        raise BadSignature("The signature is not a point on the curve.") from error
    return _address(public.format(compressed=False))
