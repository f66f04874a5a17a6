"""A BlobPart on the wire as a head and its data, so that neither end copies the data to pack or unpack it.

The bytes are those that msgspec writes for the same message; a test holds the two together.
"""

from typing import NamedTuple

import msgspec

from lading_protocol.messages import BLOB_PART

MOST_HEAD = 20  # array, tag, a 64-bit size, a 32-bit length
_TAG = b"\x93\xa4part"
_SIZES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_pack = msgspec.msgpack.Encoder().encode


class Head(NamedTuple):
    """`size` is the blob's, `length` that of the data, which begins `at` bytes into the frame."""

    size: int
    length: int
    at: int


def part_head(size: int, length: int) -> bytes:
    """What goes before `length` bytes of data: the frame's length and the message up to the data."""
    head = _TAG + _pack(size) + _bin(length)
    return (len(head) + length).to_bytes(4, "big") + head


def read_head(body: bytes | memoryview) -> Head | None:
    """The head of a frame's first MOST_HEAD bytes (or all of a shorter frame); None for what is no part."""
    if bytes(body[: len(_TAG)]) != _TAG:
        return None
    at = len(_TAG)
    size, at = _number(body, at, _SIZES, fixed=True)
    length, at = _number(body, at, _LENGTHS, fixed=False)
    if size < 0 or size > 2**53 or not 0 <= length <= BLOB_PART:
        return None
    return Head(size, length, at)


def _bin(length: int) -> bytes:
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")


def _number(body: bytes | memoryview, at: int, widths: dict[int, int], *, fixed: bool) -> tuple[int, int]:
    """A number and where it ends; -1 for what is none."""
    if at >= len(body):
        return -1, at
    first = body[at]
    if fixed and first < 0x80:
        return first, at + 1
    width = widths.get(first)
    if width is None or at + 1 + width > len(body):
        return -1, at
    return int.from_bytes(body[at + 1 : at + 1 + width], "big"), at + 1 + width
