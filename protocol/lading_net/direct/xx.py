"""Noise_XX_25519_ChaChaPoly_SHA256 without IO: three messages, each with a payload, that end in two keys.

Knows nothing of who a peer is or of what the payloads say. Source: the Noise Protocol Framework revision 34, section 5.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lading_net.errors import HandshakeFailed

_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_KEY = 32
_SEALED_KEY = 48
MESSAGES = 3
nonce = Struct("<4xQ").pack


class _Symmetric:
    """The running hash and key (section 5.2)."""

    __slots__ = ("_chain", "_cipher", "_count", "hash")

    def __init__(self, prologue: bytes) -> None:
        self.hash = self._chain = _NAME  # 32 bytes: used as it is
        self._cipher: ChaCha20Poly1305 | None = None
        self._count = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chain, key = self._derive(secret)
        self._cipher, self._count = ChaCha20Poly1305(key), 0

    def encrypt(self, plaintext: bytes) -> bytes:
        """Before the first key there is nothing to encrypt with: the plaintext itself, but hashed."""
        sealed = plaintext
        if self._cipher is not None:
            sealed = self._cipher.encrypt(nonce(self._count), plaintext, self.hash)
            self._count += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        plaintext = sealed
        if self._cipher is not None:
            try:
                plaintext = self._cipher.decrypt(nonce(self._count), sealed, self.hash)
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


class Exchange:
    """One side of XX: -> e; <- e, ee, s, es; -> s, se. Write and read in turn, the initiator first.

    An ephemeral key is given for test vectors only; both sides must give the same prologue.
    """

    def __init__(
        self,
        static: X25519PrivateKey,
        initiator: bool,
        ephemeral: X25519PrivateKey | None = None,
        prologue: bytes = b"",
    ) -> None:
        self._static, self._initiator = static, initiator
        self._ephemeral = ephemeral or X25519PrivateKey.generate()
        self._state = _Symmetric(prologue)
        self._their_ephemeral = b""
        self.their_static = b""
        self._next = 0

    @property
    def hash(self) -> bytes:
        """The channel binding; equal on both sides once done."""
        return self._state.hash

    @property
    def done(self) -> bool:
        return self._next == MESSAGES

    def write(self, payload: bytes) -> bytes:
        """Our next message."""
        message = b""
        if self._next < 2:
            message = self._ephemeral.public_key().public_bytes_raw()
            self._state.mix_hash(message)
        if self._next == 1:
            self._mix(self._ephemeral, self._their_ephemeral)
        if self._next > 0:
            message += self._state.encrypt(self._static.public_key().public_bytes_raw())
            self._mix(self._static, self._their_ephemeral)
        self._next += 1
        return message + self._state.encrypt(payload)

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message. Raises HandshakeFailed, also for a message out of turn."""
        if self.done or (self._next % 2 == 0) == self._initiator:
            raise HandshakeFailed("The peer sent a handshake message out of turn.")
        if self._next < 2:
            if len(message) < _KEY:
                raise HandshakeFailed("The peer's handshake message is too short.")
            self._their_ephemeral, message = message[:_KEY], message[_KEY:]
            self._state.mix_hash(self._their_ephemeral)
        if self._next == 1:
            self._mix(self._ephemeral, self._their_ephemeral)
        if self._next > 0:
            self.their_static, message = self._state.decrypt(message[:_SEALED_KEY]), message[_SEALED_KEY:]
            self._mix(self._ephemeral, self.their_static)
        self._next += 1
        return self._state.decrypt(message)

    def keys(self) -> tuple[bytes, bytes]:
        """What we seal with and what the peer seals with."""
        towards_responder, towards_initiator = self._state.split()
        return (towards_responder, towards_initiator) if self._initiator else (towards_initiator, towards_responder)

    def _mix(self, mine: X25519PrivateKey, theirs: bytes) -> None:
        try:
            self._state.mix_key(mine.exchange(X25519PublicKey.from_public_bytes(theirs)))
        except ValueError:
            raise HandshakeFailed("The peer's handshake key is degenerate.") from None
