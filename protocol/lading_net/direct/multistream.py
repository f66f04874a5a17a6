"""multistream-select 1.0 without IO: how two ends agree on a protocol, by name, over any byte stream.

The dialler names one protocol and may go on writing at once (lazy negotiation): its bytes wait behind the name. Knows
nothing of what is negotiated. See https://github.com/multiformats/multistream-select.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from lading_net import protobuf
from lading_net.errors import ProtocolViolation, UnknownProtocol

HEADER: Final = "/multistream/1.0.0"
LONGEST: Final = 256
MOST_PROPOSALS: Final = 8


@lru_cache(maxsize=256)
def token(name: str) -> bytes:
    line = name.encode() + b"\n"
    if len(line) > LONGEST:
        raise ValueError(f"a protocol name has at most {LONGEST - 1} bytes")
    return protobuf.encode_number(len(line)) + line


HELLO: Final = token(HEADER)
NOT_AVAILABLE: Final = token("na")


@lru_cache(maxsize=256)
def proposal(name: str) -> bytes:
    """What a dialler sends, and what a willing peer answers, byte for byte."""
    return HELLO + token(name)


class _Lines:
    """Cuts bytes into tokens; refuses long ones before it holds them."""

    __slots__ = ("greeted", "held")

    def __init__(self) -> None:
        self.held = b""
        self.greeted = False

    def next(self) -> str | None:
        if not self.greeted:
            return self._greeting()
        try:
            head = protobuf.decode_number(self.held, 0, 2)
        except ValueError:
            raise ProtocolViolation("The peer's protocol name is too long.") from None
        if head is None:
            return None
        size, at = head
        if not 0 < size <= LONGEST:
            raise ProtocolViolation("The peer's protocol name is empty or too long.")
        if len(self.held) < at + size:
            return None
        line, self.held = self.held[at : at + size], self.held[at + size :]
        if line[-1:] != b"\n":
            raise ProtocolViolation("The peer does not speak multistream.")
        try:
            return line[:-1].decode()
        except UnicodeDecodeError:
            raise ProtocolViolation("The peer's protocol name is not text.") from None

    def _greeting(self) -> str | None:
        """Compares from the first byte on, so that one who speaks something else is not waited for."""
        if not HELLO.startswith(self.held[: len(HELLO)]):
            raise ProtocolViolation("The peer does not speak multistream 1.0.")
        if len(self.held) < len(HELLO):
            return None
        self.greeted = True
        self.held = self.held[len(HELLO) :]
        return self.next()


class Dialler:
    """Awaits the answer to `proposal(name)`."""

    __slots__ = ("_lines", "_name")

    def __init__(self, name: str) -> None:
        self._name, self._lines = name, _Lines()

    def receive(self, data: bytes) -> bytes | None:
        """The bytes after the agreement (perhaps none) once agreed, None until then.

        Raises UnknownProtocol when the peer declines, ProtocolViolation when it answers anything else.
        """
        lines, willing = self._lines, proposal(self._name)
        lines.held += data
        if not lines.greeted and lines.held.startswith(willing):
            return lines.held[len(willing) :]
        while (line := lines.next()) is not None:
            if line == self._name:
                return lines.held
            if line == "na":
                raise UnknownProtocol(f"The peer does not serve {self._name}.")
            raise ProtocolViolation(f"The peer answered {line[:40]!r} to the proposal of {self._name}.")
        return None


class Listener:
    """Answers proposals. Send `HELLO`, at the latest when the peer has `greeted`, then whatever `receive` appends to
    `replies`."""

    __slots__ = ("_knows", "_lines", "_tries", "agreed", "replies")

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._tries, self._lines = 0, _Lines()
        self.agreed = ""
        self.replies = b""

    @property
    def greeted(self) -> bool:
        """Whether the peer speaks multistream."""
        return self._lines.greeted

    def receive(self, data: bytes) -> bytes | None:
        """The bytes after the agreement once `agreed` is set, None until then. Raises ProtocolViolation."""
        self._lines.held += data
        while (line := self._lines.next()) is not None:
            if self._knows(line):
                self.agreed = line
                self.replies += token(line)
                return self._lines.held
            self.replies += NOT_AVAILABLE
            self._tries += 1
            if self._tries >= MOST_PROPOSALS:
                raise ProtocolViolation("The peer proposed too many protocols that are unknown here.")
        return None
