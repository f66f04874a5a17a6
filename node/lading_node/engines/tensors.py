"""Reads safetensors files: an eight-byte length, a JSON header, then the numbers. No pickle is ever read.

The file is read once, front to back, hashed on the way, and handed on in pieces: what the model is made of are the
very bytes that were hashed, and memory holds one piece besides the model, however large the file is. The digest is
known at the end only, so nothing that was handed on may be used before `stream` has returned.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec
from msgspec import Meta

from lading_node.engines.errors import EngineError
from lading_node.engines.files import altered, name_of, unreadable
from lading_node.engines.port import AgentFile

MAX_HEADER = 16 << 20
PIECE = 16 << 20
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}

_Size = Annotated[int, Meta(ge=0, le=2**48)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=8)]
    data_offsets: tuple[_Size, _Size]


class Tensor(NamedTuple):
    """A tensor as the header describes it; `dtype` is one of ITEM_BYTES."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return prod(self.shape)


# Takes the numbers of a tensor from number `first` on, little-endian, in order.
Take = Callable[[Tensor, int, memoryview], None]


def headers(file: AgentFile) -> list[Tensor]:
    """What the file says that it holds, in the order of its bytes. Raises EngineError. Nothing is hashed here."""
    try:
        with Path(file.path).open("rb") as reader:
            return _tensors(file, _header(file, reader), os.fstat(reader.fileno()).st_size - reader.tell())
    except OSError as error:
        raise unreadable(file, error) from error


def stream(file: AgentFile, take: Take) -> None:
    """Hand every tensor to `take`. Raises EngineError when the bytes are not those that the manifest names."""
    whole = hashlib.sha256()
    try:
        with Path(file.path).open("rb", buffering=0) as reader:
            header = _header(file, reader)
            whole.update(len(header).to_bytes(8, "little") + header)
            for tensor in _tensors(file, header, os.fstat(reader.fileno()).st_size - 8 - len(header)):
                first, width = 0, ITEM_BYTES[tensor.dtype]
                for piece in _pieces(file, reader, tensor.numbers * width):
                    whole.update(piece)
                    take(tensor, first, piece)
                    first += len(piece) // width
    except OSError as error:
        raise unreadable(file, error) from error
    if whole.digest() != file.digest:
        raise altered(file)


def _header(file: AgentFile, reader: BinaryIO) -> bytes:
    start = reader.read(8)
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise EngineError("invalid_package", f"{name_of(file)} is a pickle: only safetensors are read.")
    size = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= size <= MAX_HEADER:
        raise _bad(file, f"its header would have {size} bytes")
    header = reader.read(size)
    if len(header) != size:
        raise _bad(file, "it ends within its header")
    return header


def _tensors(file: AgentFile, header: bytes, size: int) -> list[Tensor]:
    """Checked as the format demands: known types, no gap, no overlap, nothing after the last."""
    try:
        tree = msgspec.json.decode(header, type=dict[str, Any])
        tree.pop("__metadata__", None)
        entries = msgspec.convert(tree, dict[str, _Entry])
    except (ValueError, RecursionError) as error:
        raise _bad(file, f"its header does not read: {str(error)[:120]}") from error
    at, found = 0, []
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        tensor = Tensor(name, entry.dtype, entry.shape)
        if entry.dtype not in ITEM_BYTES:
            raise _bad(file, f"{name[:80]!r} is of the type {entry.dtype[:20]!r}; F32, F16 and BF16 are read")
        begin, end = entry.data_offsets
        if begin != at or end - begin != tensor.numbers * ITEM_BYTES[entry.dtype]:
            raise _bad(file, f"the place of {name[:80]!r} does not fit its shape and its neighbours")
        at = end
        found.append(tensor)
    if at != size:
        raise _bad(file, f"it should end after {at} bytes of numbers and has {size}")
    return found


def _pieces(file: AgentFile, reader: BinaryIO, size: int) -> Iterator[memoryview]:
    """The next `size` bytes, in views of one buffer: each is good until the next is asked for."""
    buffer = memoryview(bytearray(min(PIECE, size)))
    while size:
        view = buffer[: min(PIECE, size)]
        filled = 0
        while filled < len(view):
            got = reader.readinto(view[filled:])  # type: ignore[attr-defined]
            if not got:
                raise _bad(file, "it became shorter while it was read")
            filled += got
        yield view
        size -= len(view)


def _bad(file: AgentFile, why: str) -> EngineError:
    return EngineError("invalid_package", f"{name_of(file)} is no safetensors file: {why}.")
