"""From a bare connection to a proven, sealed and multiplexed one, without IO: multistream, Noise, multistream again.

The dialler speaks first and names /noise and its key in one message, so that a dial takes two round trips. Decides
whether the peer is the one that was expected; knows nothing of streams.
"""

from __future__ import annotations

from lading_net.direct import multistream, noise, yamux
from lading_net.errors import HandshakeFailed, ProtocolViolation, UnknownProtocol, WrongPeer
from lading_net.peer import PeerId
from lading_protocol.ids import Address

_LONGEST_MESSAGE = 4096


class Upgrade:
    """Send what `start` and `receive` return; once `remote` is set, the link is up and `rest` are its first bytes."""

    def __init__(self, mine: noise.Credentials, dialled: bool, expect: Address | None = None) -> None:
        self._mine, self._dialled, self._expect = mine, dialled, expect
        self._handshake: noise.Handshake | None = None
        self._choice = self._negotiation(noise.PROTOCOL)
        self._step = self._choose_security
        self._held = b""
        self._greeted = dialled
        self._proven: PeerId
        self.sealer: noise.Sealer
        self.opener: noise.Opener
        self.remote: PeerId | None = None
        self.rest = b""

    def start(self) -> bytes:
        """Who was dialled waits: one who only holds a connection open is not worth a packet."""
        if not self._dialled:
            return b""
        self._handshake = noise.Handshake(self._mine, True)
        return multistream.proposal(noise.PROTOCOL) + _framed(self._handshake.start())

    def receive(self, data: bytes) -> bytes:
        """Raises HandshakeFailed, WrongPeer."""
        try:
            return self._step(data)
        except (ProtocolViolation, UnknownProtocol) as error:
            raise HandshakeFailed(f"No agreement with the peer: {error.message}") from None

    def _negotiation(self, protocol: str) -> multistream.Dialler | multistream.Listener:
        return multistream.Dialler(protocol) if self._dialled else multistream.Listener(protocol.__eq__)

    def _replies(self) -> bytes:
        if isinstance(self._choice, multistream.Dialler):
            return b""
        replies, self._choice.replies = self._choice.replies, b""
        if not self._greeted and self._choice.greeted:
            self._greeted, replies = True, multistream.HELLO + replies
        return replies

    def _choose_security(self, data: bytes) -> bytes:
        rest = self._choice.receive(data)
        replies = self._replies()
        if rest is None:
            return replies
        self._step = self._shake_hands
        return replies + (self._shake_hands(rest) if rest else b"")

    def _shake_hands(self, data: bytes) -> bytes:
        self._held += data
        answers = b""
        while len(self._held) >= 2:
            stop = 2 + int.from_bytes(self._held[:2], "big")
            if stop > _LONGEST_MESSAGE:
                raise HandshakeFailed("The peer's handshake message is too long.")
            if len(self._held) < stop:
                break
            message, self._held = self._held[2:stop], self._held[stop:]
            handshake = self._handshake
            if handshake is None:  # keys are made for a caller who got this far, and for nobody else
                handshake = self._handshake = noise.Handshake(self._mine, False)
            answer = handshake.receive(message)
            answers += _framed(answer) if answer else b""
            if handshake.remote is not None:
                return answers + self._secured(handshake, handshake.remote)
        return answers

    def _secured(self, handshake: noise.Handshake, remote: PeerId) -> bytes:
        if self._expect is not None and remote.address != self._expect:
            raise WrongPeer(f"Expected the peer 0x{self._expect.hex()}, found 0x{remote.address.hex()} ({remote}).")
        assert handshake.sealer is not None
        assert handshake.opener is not None
        self.sealer, self.opener = handshake.sealer, handshake.opener
        self._proven = remote
        self._choice = self._negotiation(yamux.PROTOCOL)
        self._step = self._choose_muxer
        hello = multistream.proposal(yamux.PROTOCOL) if self._dialled else multistream.HELLO
        rest, self._held = self._held, b""
        return self._sealed(hello) + (self._choose_muxer(rest) if rest else b"")

    def _choose_muxer(self, data: bytes) -> bytes:
        replies = b""
        for message in self.opener.receive(data):
            if self.remote is not None:
                self.rest += message
                continue
            rest = self._choice.receive(message)
            replies += self._replies()
            if rest is not None:
                self.rest, self.remote = rest, self._proven
        return self._sealed(replies) if replies else b""

    def _sealed(self, plaintext: bytes) -> bytes:
        return b"".join(self.sealer.seal(plaintext))


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
