"""A private network: whoever lacks its key learns nothing at its ports, not even what listens there.

libp2p's protector ("pnet"): each side first sends a nonce of 24 bytes, and all that it says after that is XORed with
the XSalsa20 stream of the shared key and this nonce. It hides; who a peer is, and that nothing was altered, is proved
by the handshake inside. Knows no socket. Sources: libp2p specification "pnet", Bernstein's "Extending the Salsa20
nonce" (2011).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct

from lading_net.errors import BadNetworkKey, HandshakeFailed

NONCE_SIZE = 24
KEY_SIZE = 32
GREETING = b"\x13/multistream/1.0.0\n"
"""What anyone who has the key says first."""

_HEAD = ("/key/swarm/psk/1.0.0/", "/base16/")
_MOST_HELD = 4096
_words = Struct("<4I")
_SIGMA = _words.unpack(b"expand 32-byte k")


class NetworkKey:
    """The secret that all members of a private network share. Never shown, also not by accident."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_SIZE:
            raise BadNetworkKey(f"A network key has {KEY_SIZE} bytes, this one {len(secret)}.")
        self._secret = secret

    @classmethod
    def from_text(cls, text: str) -> NetworkKey:
        """The swarm key file of libp2p's other implementations. Raises BadNetworkKey, which does not repeat it."""
        lines = [line.strip() for line in text.strip().splitlines()]
        if len(lines) != 3 or (lines[0], lines[1]) != _HEAD:
            raise BadNetworkKey("It does not have the three lines of a swarm key.")
        try:
            return cls(bytes.fromhex(lines[2]))
        except ValueError:
            raise BadNetworkKey("Its third line is not 64 hexadecimal digits.") from None

    @classmethod
    def load(cls, path: Path) -> NetworkKey:
        """Raises BadNetworkKey."""
        try:
            return cls.from_text(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise BadNetworkKey(f"The network key {path} cannot be read: {reason}.") from None
        except BadNetworkKey as error:
            raise BadNetworkKey(f"{path} is no network key: {error.message}") from None

    def text(self) -> str:
        """For the file."""
        return "\n".join((*_HEAD, self._secret.hex())) + "\n"

    def cipher(self, nonce: bytes) -> Callable[[bytes | bytearray | memoryview], bytes]:
        """The XSalsa20 stream from its beginning: call it with what comes next."""
        # Imported here: only a private network needs it.
        from Crypto.Cipher import Salsa20

        return Salsa20.new(key=_hsalsa20(self._secret, nonce[:16]), nonce=nonce[16:]).encrypt

    def __repr__(self) -> str:
        return "NetworkKey(...)"


class Protector:
    """One end of one connection. The end that listens says nothing before the other has shown that it has the key.

    Except for its nonce: some peers (js-libp2p) send theirs alone and wait for the answer, which tells nothing.
    """

    __slots__ = ("_greeted", "_held", "_key", "_nonce", "_open", "_seal", "_theirs")

    def __init__(self, key: NetworkKey, dialled: bool, nonce: bytes | None = None) -> None:
        """A nonce may be given for test vectors only."""
        self._key = key
        self._nonce = nonce or os.urandom(NONCE_SIZE)  # b"" once it was sent
        self._seal = key.cipher(self._nonce)
        self._open: Callable[[bytes | bytearray | memoryview], bytes] | None = None
        self._theirs = b""  # of their nonce, then of their greeting, what has come so far
        self._greeted = dialled
        self._held = b""

    def send(self, data: bytes) -> bytes:
        """What to put on the wire: nothing as long as this end has to keep silent."""
        if not self._greeted:
            self._held += data
            if len(self._held) > _MOST_HELD:
                raise HandshakeFailed("Too much was said before the peer showed the network's key.")
            return b""
        return self._take_nonce() + self._seal(data)

    def receive(self, data: bytes | bytearray | memoryview) -> tuple[bytes, bytes]:
        """What the peer said, and what to put on the wire now. Raises HandshakeFailed for one without the key."""
        if self._open is None:
            missing = NONCE_SIZE - len(self._theirs)
            self._theirs += bytes(data[:missing])
            if len(self._theirs) < NONCE_SIZE:
                return b"", b""
            self._open, self._theirs, data = self._key.cipher(self._theirs), b"", data[missing:]
        if not len(data):
            return b"", self._take_nonce()
        said = self._open(data)
        return said, b"" if self._greeted else self._check(said)

    def _check(self, said: bytes) -> bytes:
        self._theirs += said[: len(GREETING)]
        if not self._theirs.startswith(GREETING[: len(self._theirs)]) and not self._theirs.startswith(GREETING):
            raise HandshakeFailed("Someone without the key of this private network called.")
        if len(self._theirs) < len(GREETING):
            return b""
        self._greeted, held, self._held = True, self._held, b""
        return self.send(held)

    def _take_nonce(self) -> bytes:
        nonce, self._nonce = self._nonce, b""
        return nonce


def network_key(path: str) -> NetworkKey | None:
    """What a program's setting names; None where it is empty: the public network. Raises BadNetworkKey."""
    return NetworkKey.load(Path(path).expanduser()) if path else None


def make_key(path: Path) -> None:
    """Writes a new key for its owner's eyes only; never replaces one. Raises BadNetworkKey."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadNetworkKey(f"The network key {path} cannot be written: {error.strerror}.") from None
    with os.fdopen(handle, "w") as file:
        file.write(NetworkKey(os.urandom(KEY_SIZE)).text())


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The key that XSalsa20 uses for one nonce (section 2 of the paper)."""
    k, n = _words.unpack(key[:16]) + _words.unpack(key[16:]), _words.unpack(nonce)
    x = [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]
    for _ in range(10):
        for start in range(4):  # a column, then below a row, each from the diagonal on
            _quarter(x, *((5 * start + 4 * step) % 16 for step in range(4)))
        for start in range(4):
            _quarter(x, *(4 * start + (start + step) % 4 for step in range(4)))
    return _words.pack(x[0], x[5], x[10], x[15]) + _words.pack(*x[6:10])


def _quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for into, one, other, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (x[one] + x[other]) & 0xFFFFFFFF
        x[into] ^= (total << turn | total >> (32 - turn)) & 0xFFFFFFFF
