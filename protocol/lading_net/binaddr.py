"""Endpoints as libp2p's messages carry them: multiaddrs in binary.

See the multiaddr specification and its table of protocols. Resolves no name.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from lading_net.errors import BadEndpoint
from lading_net.peer import Endpoint, PeerId
from lading_net.protobuf import decode_number, encode_number

_CODES = {"ip4": 4, "ip6": 41, "dns": 53, "dns4": 54, "dns6": 55}
_KINDS = {code: kind for kind, code in _CODES.items()}
_SIZES = {"ip4": 4, "ip6": 16}
_TCP, _P2P, _CIRCUIT = 6, 421, 290


@lru_cache(maxsize=1024)
def encode_endpoint(endpoint: Endpoint) -> bytes:
    kind = endpoint.kind
    if kind in _SIZES:
        host = ipaddress.ip_address(endpoint.host).packed
    else:
        name = endpoint.host.encode()
        host = encode_number(len(name)) + name
    out = encode_number(_CODES[kind]) + host + encode_number(_TCP) + endpoint.port.to_bytes(2, "big")
    if endpoint.via is not None:
        out += _encode_peer(endpoint.via) + encode_number(_CIRCUIT)
    return out + (_encode_peer(endpoint.peer) if endpoint.peer is not None else b"")


@lru_cache(maxsize=1024)
def decode_endpoint(data: bytes, owner: PeerId | None = None) -> Endpoint:
    """Raises BadEndpoint for what is no TCP address of a peer, or of one behind a relay. `owner` is meant where an
    address ends with the relay's circuit, as libp2p's Kademlia writes it."""
    try:
        text = _text(data)
        if owner is not None and text.endswith("/p2p-circuit"):
            text += f"/p2p/{owner}"
        return Endpoint.parse(text)
    except (ValueError, TypeError):
        raise BadEndpoint("The peer names an address of another kind than TCP.") from None


def _encode_peer(peer: PeerId) -> bytes:
    return encode_number(_P2P) + encode_number(len(peer.raw)) + peer.raw


def _shown(kind: str, value: bytes) -> str:
    if kind in _SIZES:
        return str(ipaddress.ip_address(value))
    return str(PeerId(value)) if kind == "p2p" else value.decode()


def _text(data: bytes) -> str:
    """Raises ValueError, and TypeError where a number is cut off."""
    words, at = "", 0
    while at < len(data):
        code, at = decode_number(data, at)  # type: ignore[misc]
        if code == _TCP:
            words += f"/tcp/{int.from_bytes(data[at : at + 2], 'big')}"
            at += 2
        elif code == _CIRCUIT:
            words += "/p2p-circuit"
        elif code in _KINDS or code == _P2P:
            kind = _KINDS.get(code, "p2p")
            size, at = (_SIZES[kind], at) if kind in _SIZES else decode_number(data, at, 3)  # type: ignore[misc]
            words += f"/{kind}/{_shown(kind, data[at : at + size])}"
            at += size
        else:
            raise ValueError(f"the address has a part of the unknown kind {code}")
    return words
