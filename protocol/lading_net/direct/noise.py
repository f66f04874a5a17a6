"""libp2p's /noise without IO: the XX handshake that proves who both peers are, then sealed messages.

Noise_XX_25519_ChaChaPoly_SHA256 with libp2p's signed payload; the prologue is empty. Frames are a 2-byte length and at
most 65,535 bytes. Knows nothing of sockets or of what is carried. Source: the libp2p specification "noise".
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Final, Protocol

from coincurve import PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lading_net import protobuf
from lading_net.direct.xx import Exchange
from lading_net.direct.xx import nonce as _nonce
from lading_net.errors import HandshakeFailed, ProtocolViolation
from lading_net.peer import PeerId, decode_public_key, encode_public_key

PROTOCOL: Final = "/noise"
MAX_MESSAGE: Final = 65_535
MAX_PLAINTEXT: Final = MAX_MESSAGE - 16
_SIGNED_PREFIX: Final = b"noise-libp2p-static-key:"
_length: Final = Struct(">H")


class Identity(Protocol):
    """What a peer's long-lived key must offer."""

    @property
    def public_key(self) -> bytes:
        """33 bytes, compressed secp256k1."""
        ...

    def sign_der(self, digest: bytes) -> bytes: ...


class Credentials:
    """A Noise static key and the identity's signature over it; made once, used for every handshake."""

    __slots__ = ("payload", "peer_id", "static", "static_public")

    def __init__(self, identity: Identity, static: X25519PrivateKey | None = None) -> None:
        self.static = static or X25519PrivateKey.generate()
        self.static_public = self.static.public_key().public_bytes_raw()
        self.peer_id = PeerId.from_public_key(identity.public_key)
        signature = identity.sign_der(hashlib.sha256(_SIGNED_PREFIX + self.static_public).digest())
        self.payload = protobuf.encode_field(1, encode_public_key(identity.public_key)) + protobuf.encode_field(
            2, signature
        )


def check_payload(payload: bytes, static_public: bytes) -> PeerId:
    """Whom the payload proves its sender to be. Raises HandshakeFailed."""
    try:
        fields = protobuf.decode_fields(payload)
    except ValueError as error:
        raise HandshakeFailed(f"The peer's proof of identity is malformed: {error}.") from None
    public_key = decode_public_key(fields.get(1, [b""])[-1])
    try:
        genuine = PublicKey(public_key).verify(fields.get(2, [b""])[-1], _SIGNED_PREFIX + static_public)
    except ValueError:
        genuine = False
    if not genuine:
        raise HandshakeFailed("The peer could not prove that it owns its identity key.")
    return PeerId.from_public_key(public_key)


class Sealer:
    """One direction's cipher, sending: bytes of any length up to MAX_PLAINTEXT become one frame."""

    __slots__ = ("_count", "_encrypt")

    def __init__(self, key: bytes) -> None:
        self._encrypt = ChaCha20Poly1305(key).encrypt
        self._count = 0

    def seal(self, plaintext: bytes | memoryview) -> tuple[bytes, bytes]:
        """The frame in two pieces (length, ciphertext), so that nothing is copied to join them."""
        sealed = self._encrypt(_nonce(self._count), plaintext, None)
        self._count += 1
        return _length.pack(len(sealed)), sealed


class Opener:
    """One direction's cipher, receiving: feed what arrives, get whole messages back."""

    __slots__ = ("_count", "_decrypt", "_held", "_wanted")

    def __init__(self, key: bytes) -> None:
        self._decrypt = ChaCha20Poly1305(key).decrypt
        self._count = 0
        self._held = bytearray()
        self._wanted = 2

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """Holds at most one unfinished frame. Raises ProtocolViolation when one was altered; the link is lost then."""
        messages: list[bytes] = []
        at, end = self._complete(data, messages) if self._held else 0, len(data)
        view = memoryview(data)
        stop = at + 2
        while stop <= end:
            stop = at + 2 + (data[at] << 8 | data[at + 1])
            if stop > end:
                break
            messages.append(self._open(view[at + 2 : stop]))
            at = stop
            stop = at + 2
        if at < end:
            self._held = bytearray(view[at:])
            self._wanted = stop - at
        return messages

    def _complete(self, data: bytes | memoryview, messages: list[bytes]) -> int:
        """Adds to the unfinished frame only what it lacks, so that the rest of data need not be copied."""
        held, at = self._held, 0
        while True:
            missing = self._wanted - len(held)
            held += data[at : at + missing]
            at += missing
            if len(held) < self._wanted:
                return len(data)
            if self._wanted > 2 or held == b"\0\0":
                messages.append(self._open(memoryview(held)[2:]))
                self._held = bytearray()
                return at
            self._wanted = 2 + (held[0] << 8 | held[1])

    def _open(self, sealed: memoryview) -> bytes:
        try:
            message = self._decrypt(_nonce(self._count), sealed, None)
        except (InvalidTag, ValueError):
            raise ProtocolViolation("A message from the peer failed its integrity check.") from None
        self._count += 1
        return message


class Handshake:
    """One side of XX with libp2p's proofs of identity, the responder's in the second message, the other's in the third.

    `start` yields the initiator's first message, `receive` each answer; when `remote` is set the handshake is done and
    `sealer` and `opener` are ready. An ephemeral key may be given for test vectors only.
    """

    def __init__(self, mine: Credentials, initiator: bool, ephemeral: X25519PrivateKey | None = None) -> None:
        self._mine, self._initiator = mine, initiator
        self._exchange = Exchange(mine.static, initiator, ephemeral)
        self.remote: PeerId | None = None
        self.sealer: Sealer | None = None
        self.opener: Opener | None = None

    @property
    def hash(self) -> bytes:
        """The channel binding; equal on both sides once done."""
        return self._exchange.hash

    def start(self) -> bytes:
        return self._exchange.write(b"")

    def receive(self, message: bytes) -> bytes:
        """The answer to send, or b"" when none is due. Raises HandshakeFailed."""
        exchange = self._exchange
        payload = exchange.read(message)
        if not exchange.their_static:
            return exchange.write(self._mine.payload)
        remote = check_payload(payload, exchange.their_static)
        answer = exchange.write(self._mine.payload) if self._initiator else b""
        out, into = exchange.keys()
        self.sealer, self.opener, self.remote = Sealer(out), Opener(into), remote
        return answer
