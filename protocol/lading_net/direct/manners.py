"""What every libp2p peer may ask of another, whatever else they speak: who are you, and are you there.

Answers only; nothing here relies on a peer's answers. See the libp2p specifications "identify" and "ping".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from lading_net import protobuf
from lading_net.peer import Endpoint, PeerId, encode_public_key
from lading_net.ports import Stream

IDENTIFY = "/ipfs/id/1.0.0"
PING = "/ipfs/ping/1.0.0"
_FAMILY = "lading/1"
_TCP = 6
_HOSTS = {"ip4": 4, "ip6": 41, "dns": 53, "dns4": 54, "dns6": 55}


def packed(where: Endpoint) -> bytes:
    """The address in multiaddr's binary form, without the peer."""
    if where.kind in ("ip4", "ip6"):
        host = ipaddress.ip_address(where.host.partition("%")[0]).packed
    else:
        name = where.host.encode()
        host = protobuf.encode_number(len(name)) + name
    return (
        protobuf.encode_number(_HOSTS[where.kind]) + host + protobuf.encode_number(_TCP) + where.port.to_bytes(2, "big")
    )


def introduction(
    peer: PeerId, listening: Iterable[Endpoint], protocols: Iterable[str], caller: tuple[str, int] | None, program: str
) -> bytes:
    """The identify message with its length. `caller` is where we see the one who asks."""
    fields = [(1, encode_public_key(peer.public_key))]
    fields += [(2, packed(where)) for where in listening]
    fields += [(3, protocol.encode()) for protocol in protocols]
    if caller is not None:
        fields.append((4, packed(Endpoint("ip6" if ":" in caller[0] else "ip4", *caller))))
    fields += [(5, _FAMILY.encode()), (6, program.encode())]
    body = b"".join(protobuf.encode_field(number, value) for number, value in fields)
    return protobuf.encode_number(len(body)) + body


async def echo(stream: Stream) -> None:
    """The handler of PING: whatever comes goes back."""
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
