"""The bytes of JSON's strings, numbers and white space, as tables and small steps. Pure; knows no schema.

Strings are valid UTF-8 without control characters, and their \\u escapes name no half of a surrogate pair. Numbers have
at most 18 digits before the point, 17 after it and 2 in the exponent, so that none goes on for ever.
"""

from typing import Final

DEAD: Final = 255
PLAIN: Final = 0
QUOTE: Final = 0x22
_ESCAPE, _HEX1, _HEX2, _HEX2_LOW, _HEX3, _HEX4 = 1, 2, 3, 4, 5, 6
_TAIL1, _TAIL2, _TAIL3, _E0, _ED, _F0, _F4 = 7, 8, 9, 10, 11, 12, 13
_DIGITS: Final = b"0123456789"
_HEX: Final = b"0123456789abcdefABCDEF"


def _row(*moves: tuple[bytes | range, int]) -> bytes:
    row = bytearray([DEAD]) * 256
    for members, to in moves:
        for byte in members:
            row[byte] = to
    return bytes(row)


_TAILS = range(0x80, 0xC0)
_LEADS = (
    (range(0xC2, 0xE0), _TAIL1),
    (range(0xE1, 0xF0), _TAIL2),
    (b"\xe0", _E0),
    (b"\xed", _ED),
    (b"\xf0", _F0),
    (range(0xF1, 0xF4), _TAIL3),
    (b"\xf4", _F4),
)
_ASCII = bytes(byte for byte in range(0x20, 0x80) if byte not in b'"\\')
_AFTER = (
    _row((b'"\\/bfnrt', PLAIN), (b"u", _HEX1)),
    _row((_HEX, _HEX2), (b"dD", _HEX2_LOW)),
    _row((_HEX, _HEX3)),
    _row((b"01234567", _HEX3)),
    _row((_HEX, _HEX4)),
    _row((_HEX, PLAIN)),
    _row((_TAILS, PLAIN)),
    _row((_TAILS, _TAIL1)),
    _row((_TAILS, _TAIL2)),
    _row((range(0xA0, 0xC0), _TAIL1)),
    _row((range(0x80, 0xA0), _TAIL1)),
    _row((range(0x90, 0xC0), _TAIL2)),
    _row((range(0x80, 0x90), _TAIL2)),
)
TEXT: Final = (_row((_ASCII, PLAIN), *_LEADS, (b"\\", _ESCAPE)), *_AFTER)
"""Within a string: TEXT[place][byte] is the next place, or DEAD. The quote that ends it is not in the table."""
RAW_TEXT: Final = (_row((_ASCII, PLAIN), *_LEADS), *_AFTER)
"""The same without escapes: each text is written in one way only."""


def _classes() -> tuple[bytes, ...]:
    found: dict[tuple[int, ...], list[int]] = {}
    for byte in range(256):
        column = (byte == QUOTE, *(row[byte] for row in TEXT), *(row[byte] for row in RAW_TEXT))
        found.setdefault(column, []).append(byte)
    members = {byte: bytes(group) for group in found.values() for byte in group}
    return tuple(members[byte] for byte in range(256))


ALIKE: Final = _classes()
"""For each byte all those that do the same at every place of a string."""

MAX_BLANK = 41


def blank(written: int, byte: int) -> int:
    """White space is one space, or one line break and up to 40 spaces and tabs. How far it is, or DEAD."""
    if written == 0:
        return MAX_BLANK if byte == 0x20 else 1 if byte == 0x0A else DEAD
    return written + 1 if written < MAX_BLANK and byte in b" \t" else DEAD


# Places within a number, with the digits that may still come. At those in ENDS it may be over.
_MINUS, _ZERO, _WHOLE, _POINT, _FRACTION, _E, _SIGN, _EXPONENT = range(8)
ENDS: Final = frozenset({_ZERO, _WHOLE, _FRACTION, _EXPONENT})
Place = tuple[int, int]


def number_begin(byte: int) -> Place | None:
    return (_MINUS, 0) if byte == 0x2D else number_step((_MINUS, 0), byte)


def number_step(at: Place, byte: int) -> Place | None:
    place, left = at
    if byte in _DIGITS:
        return _digit(place, left, byte)
    if byte == 0x2E:
        return (_POINT, 17) if place in (_ZERO, _WHOLE) else None
    if byte in b"eE":
        return (_E, 2) if place in (_ZERO, _WHOLE, _FRACTION) else None
    return (_SIGN, 2) if byte in b"+-" and place == _E else None


def _digit(place: int, left: int, byte: int) -> Place | None:
    if place == _MINUS:
        return (_ZERO, 0) if byte == 0x30 else (_WHOLE, 17)
    if left == 0:
        return None
    after = {_WHOLE: _WHOLE, _POINT: _FRACTION, _FRACTION: _FRACTION, _E: _EXPONENT, _SIGN: _EXPONENT}
    return after.get(place, _EXPONENT), left - 1


def can_reach(digits: int, value: int, sign: int, low: int, high: int) -> bool:
    """Whether a whole number that begins with these digits can lie within both bounds."""
    return any(_overlap(value, sign, low, high, 10**more) for more in range(19 - digits if value else 1))


def _overlap(value: int, sign: int, low: int, high: int, scale: int) -> bool:
    near, far = sign * value * scale, sign * (value * scale + scale - 1)
    return min(near, far) <= high and max(near, far) >= low


def always_within(digits: int, value: int, sign: int, low: int, high: int) -> bool:
    """Whether every number that begins with these digits does, so that the digits need not be remembered."""
    near, far = sign * value, sign * (10**18 - 1 if digits < 18 else value)
    return value > 0 and low <= min(near, far) and max(near, far) <= high
