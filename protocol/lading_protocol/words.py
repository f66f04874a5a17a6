"""The words of Solidity's ABI: values of its plain types as 32 bytes each, and back."""

from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import Any, NamedTuple

from lading_protocol.errors import BadAmount, BadMessage

_SIZES = {"address": 20, "bytes32": 32}
# How the module struct writes a value of a type in its word; integers of other sizes are written as bytes.
_WORDS = {"address": "12x20s", "bytes32": "32s", "uint8": "31xB", "uint32": "28xI", "uint64": "24xQ"}


class Codec(NamedTuple):
    """A Solidity type as functions from a value to its 32-byte word and back."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Layout:
    """All words of a struct packed at once, where every field is of the plainest kind."""

    __slots__ = ("_pack", "_plain", "_sized", "_wide")

    def __init__(self, kinds: Sequence[str]) -> None:
        self._sized = [(at, _SIZES[kind]) for at, kind in enumerate(kinds) if kind in _SIZES]
        self._wide = [(at, int(kind[4:]) // 8) for at, kind in enumerate(kinds) if kind not in _WORDS]
        self._plain = [at for at, kind in enumerate(kinds) if kind.startswith("uint")]
        wide = {kinds[at]: f"{32 - size}x{size}s" for at, size in self._wide}
        self._pack = Struct(">" + "".join([(_WORDS | wide)[kind] for kind in kinds])).pack

    def pack(self, given: tuple[Any, ...]) -> bytes | None:
        """None for what has to be looked at field by field: it is refused there, or is right in a rarer way."""
        values = list(given)
        for at, size in self._sized:
            if len(values[at]) != size:
                return None
        for at in self._plain:
            if type(values[at]) is not int:
                return None
        try:
            for at, size in self._wide:
                values[at] = values[at].to_bytes(size, "big")
            return self._pack(*values)
        except (OverflowError, error):
            return None


def codec(kind: str) -> Codec:
    return _uint(kind) if kind.startswith("uint") else _fixed(kind)


def _uint(kind: str) -> Codec:
    size = int(kind[4:]) // 8
    zeros = bytes(32 - size)

    def encode(value: Any) -> bytes:
        if isinstance(value, int) and value is not True and value is not False:
            try:
                return zeros + value.to_bytes(size, "big")
            except OverflowError:
                pass
        raise BadAmount(f"{value!r} does not fit in {kind}.")

    def decode(word: bytes) -> int:
        return int.from_bytes(_value(kind, word, zeros), "big")

    return Codec(encode, decode)


def _fixed(kind: str) -> Codec:
    size = 20 if kind == "address" else 32
    zeros = bytes(32 - size)

    def encode(value: Any) -> bytes:
        if len(value) != size:
            raise BadMessage(f"A field of type {kind} has {len(value)} bytes.")
        return zeros + bytes(value)

    def decode(word: bytes) -> bytes:
        return _value(kind, word, zeros)

    return Codec(encode, decode)


def _value(kind: str, word: bytes, zeros: bytes) -> bytes:
    """The part of a word that carries the value. The rest must be zero, or two words would mean the same."""
    if not word.startswith(zeros):
        raise BadMessage(f"A field of type {kind} is out of range.")
    return word[len(zeros) :]
