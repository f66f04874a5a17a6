"""What circuit relay v2 says on its two streams, without IO: one message is a length and a protobuf.

See libp2p's specification relay/circuit-v2.md. The relay's signed voucher, which nobody needs who reaches the relay
himself, is left out, as the specification allows.
"""

from __future__ import annotations

import msgspec

from lading_net.errors import BadMessage
from lading_net.protobuf import decode_message, decode_number, encode_count, encode_field, encode_number

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
LONGEST = 4096

RESERVE, CONNECT, STATUS = 0, 1, 2  # on HOP
STOP_CONNECT, STOP_STATUS = 0, 1

OK = 100
RESERVATION_REFUSED = 200
RESOURCE_LIMIT_EXCEEDED = 201
PERMISSION_DENIED = 202
CONNECTION_FAILED = 203
NO_RESERVATION = 204
MALFORMED_MESSAGE = 400
UNEXPECTED_MESSAGE = 401

WORDS = {
    RESERVATION_REFUSED: "it has no room for another reservation",
    RESOURCE_LIMIT_EXCEEDED: "it carries as many connections as it will",
    PERMISSION_DENIED: "it does not relay for us",
    CONNECTION_FAILED: "it does not reach the peer",
    NO_RESERVATION: "the peer has no reservation there",
    MALFORMED_MESSAGE: "it did not understand us",
    UNEXPECTED_MESSAGE: "it did not expect this",
}


class RelayMessage(msgspec.Struct, frozen=True):
    """Both streams' messages. `peer` is a raw peer id; `expires` is Unix seconds; `duration` (seconds) and `data`
    (bytes each way) are 0 without a limit."""

    type: int
    peer: bytes = b""
    status: int = 0
    expires: int = 0
    addresses: tuple[bytes, ...] = ()
    duration: int = 0
    data: int = 0


def encode_hop(message: RelayMessage) -> bytes:
    out = encode_count(1, message.type)
    if message.peer:
        out += encode_field(2, encode_field(1, message.peer))
    if message.expires:
        addresses = b"".join(encode_field(2, each) for each in message.addresses)
        out += encode_field(3, encode_count(1, message.expires) + addresses)
    return framed(out + _limit(4, message) + _status(5, message))


def encode_stop(message: RelayMessage) -> bytes:
    out = encode_count(1, message.type)
    if message.peer:
        out += encode_field(2, encode_field(1, message.peer))
    return framed(out + _limit(3, message) + _status(4, message))


def decode_hop(data: bytes) -> RelayMessage:
    """Raises BadMessage."""
    return _decode(data, reservation=3, limit=4, status=5)


def decode_stop(data: bytes) -> RelayMessage:
    """Raises BadMessage."""
    return _decode(data, reservation=0, limit=3, status=4)


def framed(message: bytes) -> bytes:
    return encode_number(len(message)) + message


def cut(data: bytes) -> tuple[bytes, bytes] | None:
    """The first message and what follows it; None until it is whole. Raises BadMessage for one that is too long."""
    try:
        head = decode_number(data, 0, 3)
    except ValueError:
        head = (LONGEST + 1, 0)
    if head is None:
        return None
    size, at = head
    if size > LONGEST:
        raise BadMessage("The peer's relay message is too long.")
    return (data[at : at + size], data[at + size :]) if len(data) >= at + size else None


def _limit(number: int, message: RelayMessage) -> bytes:
    if not message.duration and not message.data:
        return b""
    return encode_field(number, encode_count(1, message.duration) + encode_count(2, message.data))


def _status(number: int, message: RelayMessage) -> bytes:
    return encode_count(number, message.status) if message.status else b""


def _decode(data: bytes, *, reservation: int, limit: int, status: int) -> RelayMessage:
    try:
        fields, counts = decode_message(data)
        peer = decode_message(fields[2][-1])[0].get(1, [b""])[-1] if 2 in fields else b""
        addresses, reserved = decode_message(fields[reservation][-1]) if reservation in fields else ({}, {})
        _, limits = decode_message(fields[limit][-1]) if limit in fields else ({}, {})
        kind = counts[1]
    except (ValueError, KeyError):
        raise BadMessage("The peer's relay message is malformed.") from None
    return RelayMessage(
        kind,
        peer,
        counts.get(status, 0),
        reserved.get(1, 0),
        tuple(addresses.get(2, ())),
        limits.get(1, 0),
        limits.get(2, 0),
    )
