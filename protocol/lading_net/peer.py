"""Who a peer is and where it listens: public key, libp2p peer id and address as one identity, and multiaddr text.

Only secp256k1 identities, because a peer without an address cannot be paid. Opens no socket and resolves no name.
See the libp2p specifications "peer-ids" and "addressing".
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import msgspec

from lading_net.errors import BadEndpoint, HandshakeFailed
from lading_protocol.ids import Address
from lading_protocol.keys import address_of

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
_KEY_TYPES = {0: "RSA", 1: "Ed25519", 2: "secp256k1", 3: "ECDSA"}
_KEY_HEAD = b"\x08\x02\x12\x21"  # protobuf: field 1 (type) = 2, field 2 (data) of 33 bytes
_ID_HEAD = b"\x00\x25"  # multihash: identity, 37 bytes
_HOST_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")


def base58_encode(data: bytes) -> str:
    number, letters = int.from_bytes(data, "big"), []
    while number:
        number, digit = divmod(number, 58)
        letters.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(letters))


def base58_decode(text: str) -> bytes:
    """Raises ValueError for a letter outside the alphabet; bounded to 128 letters, for its cost is quadratic."""
    if len(text) > 128:
        raise ValueError("too long")
    number = 0
    try:
        for at in range(0, len(text), 10):  # what fits a machine word first
            part = 0
            for letter in text[at : at + 10]:
                part = part * 58 + _DIGITS[letter]
            number = number * 58 ** min(10, len(text) - at) + part
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is not a base58 letter") from None
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def encode_public_key(public_key: bytes) -> bytes:
    """libp2p's protobuf of a 33-byte compressed secp256k1 key."""
    return _KEY_HEAD + public_key


def decode_public_key(encoded: bytes) -> bytes:
    """The 33 bytes in libp2p's protobuf of a public key. Raises HandshakeFailed for any other kind of key."""
    if len(encoded) == 37 and encoded.startswith(_KEY_HEAD):
        return encoded[4:]
    if len(encoded) > 2 and encoded[0] == 8 and encoded[1] != 2:
        kind = _KEY_TYPES.get(encoded[1], "unknown")
        raise HandshakeFailed(f"The peer's identity is a key of type {kind}; Lading peers have secp256k1 keys.")
    raise HandshakeFailed("The peer's identity key is malformed.")


class PeerId(msgspec.Struct, frozen=True):
    """The multihash that names a libp2p peer. For secp256k1 it holds the public key itself."""

    raw: bytes

    @classmethod
    def from_public_key(cls, public_key: bytes) -> PeerId:
        return cls(_ID_HEAD + encode_public_key(public_key))

    @classmethod
    def from_text(cls, text: str) -> PeerId:
        """Raises BadEndpoint unless text is the base58 id of a secp256k1 peer."""
        try:
            raw = base58_decode(text)
        except ValueError as error:
            raise BadEndpoint(f"The peer id {text[:80]!r} is not base58: {error}.") from None
        return cls.from_raw(raw)

    @classmethod
    def from_raw(cls, raw: bytes) -> PeerId:
        """Raises BadEndpoint unless raw is the id of a secp256k1 peer."""
        if len(raw) != 39 or not raw.startswith(_ID_HEAD + _KEY_HEAD) or not _is_point(raw[6:]):
            shown = base58_encode(raw[:64])
            raise BadEndpoint(f"The peer id {shown!r} does not name a secp256k1 key, so it has no address.")
        return cls(raw)

    @property
    def public_key(self) -> bytes:
        return self.raw[6:]

    @property
    def address(self) -> Address:
        return _address_of(self.public_key)

    def __str__(self) -> str:
        return base58_encode(self.raw)


@lru_cache(maxsize=2048)
def _address_of(public_key: bytes) -> Address:
    """The same few hundred peers are named again and again. Raises ValueError unless it is a point."""
    return address_of(public_key)


def _is_point(public_key: bytes) -> bool:
    try:
        _address_of(public_key)
    except ValueError:
        return False
    return True


class Endpoint(msgspec.Struct, frozen=True):
    """Where a peer listens, as /ip4/203.0.113.7/tcp/4101/p2p/16Uiu2...: a TCP address and, if known, whose it is.

    Where `via` is set the address is a relay's of that id: /ip4/.../p2p/RELAY/p2p-circuit/p2p/16Uiu2...
    """

    kind: str
    host: str
    port: int
    peer: PeerId | None = None
    via: PeerId | None = None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises BadEndpoint for anything but /(ip4|ip6|dns|dns4|dns6)/HOST/tcp/PORT with an optional /p2p/ID, or
        with /p2p/ID/p2p-circuit/p2p/ID."""
        parts = text.split("/")
        if len(text) > 512 or len(parts) < 5 or parts[0] or parts[1] not in _HOST_KINDS or parts[3] != "tcp":
            raise BadEndpoint(f"{text[:120]!r} is not a TCP multiaddr.")
        kind, host, port = parts[1], parts[2], parts[4]
        if not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise BadEndpoint(f"{port[:20]!r} is not a TCP port.")
        if not _is_host(kind, host):
            raise BadEndpoint(f"{host[:80]!r} is not an {kind} host.")
        if len(parts) == 10 and parts[7] == "p2p-circuit":
            return cls(kind, host, int(port), _owner(text, parts[8:]), _owner(text, parts[5:7]))
        return cls(kind, host, int(port), _owner(text, parts[5:]) if len(parts) > 5 else None)

    @property
    def relay(self) -> Endpoint:
        """The relay's own endpoint, where the peer is behind one."""
        return Endpoint(self.kind, self.host, self.port, self.via)

    def __str__(self) -> str:
        owner = f"/p2p/{self.peer}" if self.peer else ""
        relay = f"/p2p/{self.via}/p2p-circuit" if self.via else ""
        return f"/{self.kind}/{self.host}/tcp/{self.port}{relay}{owner}"


def _owner(text: str, parts: list[str]) -> PeerId:
    if len(parts) != 2 or parts[0] not in ("p2p", "ipfs"):
        raise BadEndpoint(f"{text[:120]!r} goes on with /{parts[0][:20]}, which the direct link does not speak.")
    return PeerId.from_text(parts[1])


def _is_host(kind: str, host: str) -> bool:
    try:
        if kind == "ip4":
            ipaddress.IPv4Address(host)
        elif kind == "ip6":
            ipaddress.IPv6Address(host)
        else:
            return 0 < len(host) < 254 and all(letter.isalnum() or letter in "-_." for letter in host)
    except ValueError:
        return False
    return True
