"""libp2p's /noise without IO: the XX handshake that proves who both peers are, then sealed messages.

Noise_XX_25519_ChaChaPoly_SHA256 with libp2p's signed payload; the prologue is empty. Frames are a 2-byte length and at
most 65,535 bytes. Knows nothing of sockets or of what is carried. Sources: the Noise Protocol Framework revision 34
(section 5), libp2p specification "noise".
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct
from typing import Protocol

from coincurve import PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lading_net import protobuf
from lading_net.errors import HandshakeFailed, ProtocolViolation
from lading_net.peer import PeerId, decode_public_key, encode_public_key

PROTOCOL = "/noise"
MAX_MESSAGE = 65_535
MAX_PLAINTEXT = MAX_MESSAGE - 16
_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED_PREFIX = b"noise-libp2p-static-key:"
_MAX_NONCE = 2**64 - 2
_nonce = Struct("<4xQ").pack
_length = Struct(">H")


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


class _Symmetric:
    """The handshake's running hash and key (Noise section 5.2)."""

    __slots__ = ("_chain", "_cipher", "_count", "hash")

    def __init__(self) -> None:
        self.hash = self._chain = _NAME  # 32 bytes: used as it is
        self._cipher: ChaCha20Poly1305 | None = None
        self._count = 0
        self.mix_hash(b"")

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chain, key = self._derive(secret)
        self._cipher, self._count = ChaCha20Poly1305(key), 0

    def encrypt(self, plaintext: bytes) -> bytes:
        assert self._cipher is not None
        sealed = self._cipher.encrypt(_nonce(self._count), plaintext, self.hash)
        self._count += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        assert self._cipher is not None
        try:
            plaintext = self._cipher.decrypt(_nonce(self._count), sealed, self.hash)
        except (InvalidTag, ValueError):
            raise HandshakeFailed("The peer's handshake failed its integrity check.") from None
        self._count += 1
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        return self._derive(b"")

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        head = hmac.digest(self._chain, secret, "sha256")
        first = hmac.digest(head, b"\x01", "sha256")
        return first, hmac.digest(head, first + b"\x02", "sha256")


class Handshake:
    """One side of XX: -> e; <- e, ee, s, es + payload; -> s, se + payload.

    `start` yields the initiator's first message, `receive` each answer; when `remote` is set the handshake is done and
    `sealer` and `opener` are ready. An ephemeral key may be given for test vectors only.
    """

    def __init__(self, mine: Credentials, initiator: bool, ephemeral: X25519PrivateKey | None = None) -> None:
        self._mine, self._initiator = mine, initiator
        self._ephemeral = ephemeral or X25519PrivateKey.generate()
        self._state = _Symmetric()
        self._step = 0
        self._their_ephemeral = b""
        self._their_static = b""
        self.remote: PeerId | None = None
        self.sealer: Sealer | None = None
        self.opener: Opener | None = None

    @property
    def hash(self) -> bytes:
        """The channel binding; equal on both sides once done."""
        return self._state.hash

    def start(self) -> bytes:
        self._step = 1
        message = self._public()
        self._state.mix_hash(b"")
        return message

    def receive(self, message: bytes) -> bytes:
        """The answer to send, or b"" when none is due. Raises HandshakeFailed."""
        if self._initiator and self._step == 1:
            answer = self._second_arrived(message)
        elif not self._initiator and self._step == 0:
            answer = self._first_arrived(message)
        elif not self._initiator and self._step == 2:
            answer = self._third_arrived(message)
        else:
            raise HandshakeFailed("The peer sent a handshake message out of turn.")
        self._step += 2
        return answer

    def _first_arrived(self, message: bytes) -> bytes:
        self._read_ephemeral(message)
        self._state.mix_hash(message[32:])
        answer = self._public()
        self._mix(self._ephemeral, self._their_ephemeral)
        answer += self._state.encrypt(self._mine.static_public)
        self._mix(self._mine.static, self._their_ephemeral)
        return answer + self._state.encrypt(self._mine.payload)

    def _second_arrived(self, message: bytes) -> bytes:
        self._read_ephemeral(message)
        self._mix(self._ephemeral, self._their_ephemeral)
        self._their_static = self._state.decrypt(message[32:80])
        self._mix(self._ephemeral, self._their_static)
        remote = check_payload(self._state.decrypt(message[80:]), self._their_static)
        answer = self._state.encrypt(self._mine.static_public)
        self._mix(self._mine.static, self._their_ephemeral)
        answer += self._state.encrypt(self._mine.payload)
        self._finish(remote)
        return answer

    def _third_arrived(self, message: bytes) -> bytes:
        self._their_static = self._state.decrypt(message[:48])
        self._mix(self._ephemeral, self._their_static)
        self._finish(check_payload(self._state.decrypt(message[48:]), self._their_static))
        return b""

    def _public(self) -> bytes:
        public = self._ephemeral.public_key().public_bytes_raw()
        self._state.mix_hash(public)
        return public

    def _read_ephemeral(self, message: bytes) -> None:
        if len(message) < 32:
            raise HandshakeFailed("The peer's handshake message is too short.")
        self._their_ephemeral = message[:32]
        self._state.mix_hash(self._their_ephemeral)

    def _mix(self, mine: X25519PrivateKey, theirs: bytes) -> None:
        try:
            self._state.mix_key(mine.exchange(X25519PublicKey.from_public_bytes(theirs)))
        except ValueError:
            raise HandshakeFailed("The peer's handshake key is degenerate.") from None

    def _finish(self, remote: PeerId) -> None:
        towards_responder, towards_initiator = self._state.split()
        out, into = (
            (towards_responder, towards_initiator) if self._initiator else (towards_initiator, towards_responder)
        )
        self.sealer, self.opener, self.remote = Sealer(out), Opener(into), remote
