"""What every libp2p peer may ask of another, whatever else they speak: who are you, and are you there.

Answers only; nothing here relies on a peer's answers. See the libp2p specifications "identify" and "ping".
"""

from __future__ import annotations

from collections.abc import Iterable

from lading_net import protobuf
from lading_net.binaddr import encode_endpoint
from lading_net.peer import Endpoint, PeerId, encode_public_key
from lading_net.ports import Stream

IDENTIFY = "/ipfs/id/1.0.0"
PUSH = "/ipfs/id/push/1.0.0"
PING = "/ipfs/ping/1.0.0"
_MOST_PUSHED = 64 * 1024
_FAMILY = "lading/1"


def introduction(
    peer: PeerId, listening: Iterable[Endpoint], protocols: Iterable[str], caller: tuple[str, int] | None, program: str
) -> bytes:
    """The identify message with its length. `caller` is where we see the one who asks."""
    fields = [(1, encode_public_key(peer.public_key))]
    fields += [(2, encode_endpoint(where)) for where in listening]
    fields += [(3, protocol.encode()) for protocol in protocols]
    if caller is not None:
        fields.append((4, encode_endpoint(Endpoint("ip6" if ":" in caller[0] else "ip4", *caller))))
    fields += [(5, _FAMILY.encode()), (6, program.encode())]
    body = b"".join(protobuf.encode_field(number, value) for number, value in fields)
    return protobuf.encode_number(len(body)) + body


async def pass_over(stream: Stream) -> None:
    """The handler of PUSH: what a peer says of itself unasked is read and dropped, as we ask when we want to know.

    It is served since rust-libp2p, when its first push is refused, does not ask who we are for five minutes.
    """
    size = 0
    while size < _MOST_PUSHED and (data := await stream.read()):
        size += len(data)


async def echo(stream: Stream) -> None:
    """The handler of PING: whatever comes goes back."""
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
