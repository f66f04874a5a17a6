"""What gossipsub 1.1 says on a stream, as values: one RPC is a length and a protobuf. Signs and checks messages.

Source: libp2p's specifications pubsub/README.md and pubsub/gossipsub. Knows no peer and no topic of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec
from coincurve import PublicKey
from coincurve.ecdsa import cdata_to_der, der_to_cdata, signature_normalize

from lading_net.errors import BadEndpoint, ProtocolViolation
from lading_net.peer import PeerId, base58_decode, encode_public_key
from lading_net.protobuf import decode_number, encode_count, encode_field, encode_number
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

MESHSUB = "/meshsub/1.1.0"
MAX_GOSSIP_BYTES = 64 * 1024
"""Larger messages are refused when published and dropped when they arrive. An offer is a few hundred bytes."""

LONGEST_RPC = 4 * MAX_GOSSIP_BYTES
MOST_PARTS = 8_192
"""Fields of one RPC, counting those inside; the specification's longest list of ids has 5,000."""

TOLERATED_RPC = 2 * 1024 * 1024
"""Longer ones than ours are passed over up to this: other implementations allow each other 1 MiB, and a neighbour that
passed on what is good with them has done nothing wrong."""

LONGEST_TOPIC = 256
_PREFIX = b"libp2p-pubsub:"
_ID_BYTES = 45
_TEXT_ID = 53
_SEQNO_BYTES = 8


class Message(msgspec.Struct, frozen=True, gc=False):
    """`sender` is the author's raw peer id, `seqno` a number of theirs that they use once."""

    sender: bytes
    data: bytes
    seqno: bytes
    topic: str
    signature: bytes

    @property
    def id(self) -> bytes:
        return self.sender + self.seqno

    @property
    def packed(self) -> bytes:
        return _body(self.sender, self.data, self.seqno, self.topic) + encode_field(5, self.signature)


class Prune(msgspec.Struct, frozen=True):
    """`backoff` in seconds, 0 where the peer named none."""

    topic: str
    backoff: int = 0


class Rpc(msgspec.Struct, frozen=True):
    """`broken` of its messages were none: of another form than anybody's."""

    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    have: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    want: tuple[bytes, ...] = ()
    graft: tuple[str, ...] = ()
    prune: tuple[Prune, ...] = ()
    broken: int = 0


def named(identity: bytes) -> bytes:
    """A message's id as we compare it: js-libp2p puts only the author's public key before the number, all others the
    peer id, of which that is the end. rust-libp2p, unless told otherwise, writes both as text."""
    return identity[-_ID_BYTES:] if len(identity) <= _TEXT_ID else _from_text(identity)


def _from_text(identity: bytes) -> bytes:
    """Base58 of the author, then the number in decimals; what is no such text stays as it is."""
    try:
        sender = _spelled(identity[:_TEXT_ID])
        return sender[-_ID_BYTES + _SEQNO_BYTES :] + int(identity[_TEXT_ID:][:20]).to_bytes(_SEQNO_BYTES, "big")
    except (ValueError, OverflowError):
        return identity[-_ID_BYTES:]


@lru_cache(maxsize=4096)
def _spelled(text: bytes) -> bytes:
    return base58_decode(text.decode())


# -- messages ---------------------------------------------------------------------------------------------------------


def sign(key: PrivateKey, topic: str, data: bytes, seqno: bytes) -> Message:
    sender = PeerId.from_public_key(key.public_key).raw
    digest = hashlib.sha256(_PREFIX + _body(sender, data, seqno, topic)).digest()
    return Message(sender, data, seqno, topic, key.sign_der(digest))


def genuine(message: Message) -> bool:
    """Whether its author signed it; authors are secp256k1 peers only."""
    return proved(message) is not None


def proved(message: Message) -> Message | None:
    """The message with its signature in the one of its two forms that everybody takes; None where that is not its
    author's. Who passed on the other form, which some take too, did nothing wrong."""
    try:
        key, _ = _author(message.sender)
        said = _PREFIX + _body(message.sender, message.data, message.seqno, message.topic)
        other, signature = signature_normalize(der_to_cdata(message.signature))
        if other:
            message = msgspec.structs.replace(message, signature=cdata_to_der(signature))
        return message if key.verify(message.signature, said) else None
    except (BadEndpoint, ValueError):
        return None


def author(message: Message) -> Address:
    """Raises BadEndpoint for an author without an address."""
    return _author(message.sender)[1]


@lru_cache(maxsize=4096)
def _author(sender: bytes) -> tuple[PublicKey, Address]:
    peer = PeerId.from_raw(sender)
    return PublicKey(peer.public_key), peer.address


def _body(sender: bytes, data: bytes, seqno: bytes, topic: str) -> bytes:
    return encode_field(1, sender) + encode_field(2, data) + encode_field(3, seqno) + encode_field(4, topic.encode())


# -- to the wire ------------------------------------------------------------------------------------------------------


def encode_rpc(rpc: Rpc) -> bytes:
    subscriptions = [(1, topic) for topic in rpc.joined] + [(0, topic) for topic in rpc.left]
    out = [encode_field(1, encode_count(1, yes) + encode_field(2, topic.encode())) for yes, topic in subscriptions]
    out += [encode_field(2, message.packed) for message in rpc.messages]
    control = [encode_field(1, encode_field(1, topic.encode()) + _ids(2, ids)) for topic, ids in rpc.have]
    if rpc.want:
        control.append(encode_field(2, _ids(1, rpc.want)))
    control += [encode_field(3, encode_field(1, topic.encode())) for topic in rpc.graft]
    for prune in rpc.prune:
        backoff = encode_count(3, prune.backoff) if prune.backoff else b""
        control.append(encode_field(4, encode_field(1, prune.topic.encode()) + backoff))
    if control:
        out.append(encode_field(3, b"".join(control)))
    body = b"".join(out)
    return encode_number(len(body)) + body


def _ids(number: int, ids: Iterable[bytes]) -> bytes:
    return b"".join(encode_field(number, each) for each in ids)


# -- from the wire ----------------------------------------------------------------------------------------------------


class Cutter:
    """Cuts what arrives into pieces with a length before each; never holds more than one that is not whole.

    Pieces longer than `longest` end the conversation; up to `tolerated` they are passed over, unread and not held.
    `last` is the length of the piece that was taken last.
    """

    def __init__(self, longest: int = LONGEST_RPC, tolerated: int = 0) -> None:
        self._longest, self._tolerated = longest, tolerated
        self._held, self._at, self._passing = bytearray(), 0, 0
        self.last = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Raises ProtocolViolation for a piece that is longer than it may be."""
        self.add(data)
        pieces = []
        while (piece := self.take()) is not None:
            pieces.append(piece)
        return pieces

    def add(self, data: bytes) -> None:
        """What `take` will cut."""
        passed = min(self._passing, len(data))
        self._passing -= passed
        del self._held[: self._at]
        self._at = 0
        self._held += data[passed:] if passed else data

    def take(self) -> bytes | None:
        """The next piece, empty where one was passed over; None until there is a whole one. Raises as `feed` does."""
        head = None if self._passing else self._head(self._at)
        if head is None:
            return None
        size, start = head
        held = len(self._held)
        if size > self._longest:
            self.last = size
            self._at, self._passing = min(held, start + size), max(0, start + size - held)
            return b""
        if held < start + size:
            return None
        self.last, self._at = size, start + size
        return bytes(self._held[start : start + size])

    def _head(self, at: int) -> tuple[int, int] | None:
        try:
            head = decode_number(bytes(self._held[at : at + 5]), 0, 4)
        except ValueError:
            head = max(self._longest, self._tolerated) + 1, at
        if head is None:
            return None
        if head[0] > max(self._longest, self._tolerated):
            raise ProtocolViolation("The peer's message is longer than it may be.")
        return head[0], at + head[1]


def decode_rpc(data: bytes) -> Rpc:
    """Raises ProtocolViolation for what is no RPC, or has more parts than any should."""
    try:
        return _Reader().read(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise ProtocolViolation(f"The peer's gossip is malformed: {error}.") from None


class _Reader:
    def __init__(self) -> None:
        self._parts = 0

    def read(self, data: bytes) -> Rpc:
        joined: list[str] = []
        left: list[str] = []
        messages: list[Message] = []
        broken = 0
        control: list[bytes] = []
        for number, value in self._fields(data):
            if number == 1:
                yes, topic = self._subscription(value)
                (joined if yes else left).append(topic)
            elif number == 2:
                message = self._message(value)
                if message is None:
                    broken += 1
                else:
                    messages.append(message)
            elif number == 3:
                control.append(_whole(value))
        return self._with_control(b"".join(control), Rpc(tuple(joined), tuple(left), tuple(messages), broken=broken))

    def _with_control(self, data: bytes, rpc: Rpc) -> Rpc:
        if not data:
            return rpc
        have: list[tuple[str, tuple[bytes, ...]]] = []
        want: list[bytes] = []
        graft: list[str] = []
        prune: list[Prune] = []
        for number, value in self._fields(data):
            if number > 4:
                continue
            fields = list(self._fields(_whole(value)))
            topic = next((_topic(each) for key, each in fields if key == 1), "") if number != 2 else ""
            if number == 1:
                have.append((topic, tuple(_whole(each) for key, each in fields if key == 2)))
            elif number == 2:
                want += [_whole(each) for key, each in fields if key == 1]
            elif number == 3:
                graft.append(topic)
            else:
                backoff = next((each for key, each in fields if key == 3 and isinstance(each, int)), 0)
                prune.append(Prune(topic, backoff))
        changes = {"have": tuple(have), "want": tuple(want), "graft": tuple(graft), "prune": tuple(prune)}
        return msgspec.structs.replace(rpc, **changes)

    def _subscription(self, data: bytes | int) -> tuple[bool, str]:
        yes, topic = False, ""
        for number, value in self._fields(_whole(data)):
            if number == 1:
                yes = bool(value)
            elif number == 2:
                topic = _topic(value)
        return yes, topic

    def _message(self, data: bytes | int) -> Message | None:
        """None for one that has not exactly a sender, a number, a topic and a signature of the usual sizes."""
        fields: dict[int, bytes] = {}
        for number, value in self._fields(_whole(data)):
            if number in fields or isinstance(value, int):
                return None
            fields[number] = value
        sender, said = fields.get(1, b""), fields.get(2, b"")
        if len(fields.get(3, b"")) != _SEQNO_BYTES or len(said) > MAX_GOSSIP_BYTES or len(fields.get(5, b"")) > 80:
            return None
        if 4 not in fields or len(sender) > 64 or fields.keys() - {1, 2, 3, 4, 5, 6}:
            return None
        if 6 in fields and (len(sender) != 39 or fields[6] != encode_public_key(sender[6:])):
            return None
        return Message(sender, said, fields[3], _topic(fields[4]), fields.get(5, b""))

    def _fields(self, data: bytes) -> Iterator[tuple[int, bytes | int]]:
        at = 0
        while at < len(data):
            self._parts += 1
            if self._parts > MOST_PARTS:
                raise ValueError("it has too many parts")
            key, at = _number(data, at, 5)
            kind = key & 7
            if kind == 0:
                value, at = _number(data, at, 10)
                yield key >> 3, value
                continue
            size, at = _number(data, at, 5) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data) + 1), at)
            if at + size > len(data):
                raise ValueError("a field runs past the end")
            if kind == 2:
                yield key >> 3, data[at : at + size]
            at += size


def _number(data: bytes, at: int, longest: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:  # nearly all are this short
        return data[at], at + 1
    found = decode_number(data, at, longest)
    if found is None:
        raise ValueError("a number is cut off")
    return found


def _whole(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value


def _topic(value: bytes | int) -> str:
    data = _whole(value)
    if len(data) > LONGEST_TOPIC:
        raise ValueError("a topic's name is too long")
    return data.decode()
