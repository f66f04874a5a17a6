"""Named tensors as JSON, checked against what a graph declares. Pure.

A tensor is a number, nested lists of numbers, or an object: `dtype`, `shape`, and `data`, base64 of its numbers in
little-endian order. Answers are canonical JSON: the same bits give the same text.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lading_node.engines.errors import EngineError

Array = NDArray[Any]
MOST_DIM = 1 << 24
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class Slot(NamedTuple):
    """An input or output of a graph. A dimension is a size, or a word (any size, but the same for the same word)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class _Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=MOST_DIM)], ...], Meta(max_length=8)]
    data: str


def read_tensors(data: bytes, slots: Sequence[Slot]) -> tuple[dict[str, Array], bool]:
    """The tensors by name, and whether one of them came packed. Raises EngineError."""
    tree = read_object(data)
    names = {slot.name for slot in slots}
    if tree.keys() != names:
        raise _bad(f"it must have the inputs {', '.join(sorted(names))}")
    found = {slot.name: _tensor(slot, tree[slot.name]) for slot in slots}
    _check_shapes(found, slots)
    return found, any(isinstance(value, dict) for value in tree.values())


def read_object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode errors are ValueErrors
        raise _bad(f"it is no JSON object ({' '.join(str(error).split())[:120]})") from error


def write_tensors(found: dict[str, Array], packed: bool) -> bytes:
    """Raises EngineError for numbers that JSON does not have."""
    return canonical({name: _pack(value) if packed else _listed(name, value) for name, value in found.items()})


def canonical(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _tensor(slot: Slot, value: Any) -> Array:
    dtype = np.dtype(slot.dtype)
    if isinstance(value, dict):
        return _unpacked(slot, value, dtype)
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:
        raise _bad(f"{slot.name} is no even nesting of numbers") from error
    if array.size and (array.dtype.kind not in "iufb" or (array.dtype.kind == "b") != (dtype.kind == "b")):
        raise _bad(f"{slot.name} must hold {slot.dtype}")
    if array.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.dtype.kind == "f" or array.min() < limits.min or array.max() > limits.max:
            raise _bad(f"{slot.name} must hold {slot.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _unpacked(slot: Slot, value: dict[str, Any], dtype: np.dtype[Any]) -> Array:
    try:
        packed = msgspec.convert(value, _Packed)
        data = base64.b64decode(packed.data, validate=True)
    except (msgspec.ValidationError, binascii.Error, ValueError) as error:
        raise _bad(f"{slot.name} does not read ({' '.join(str(error).split())[:120]})") from error
    if packed.dtype != slot.dtype:
        raise _bad(f"{slot.name} must be {slot.dtype}, not {packed.dtype[:20]!r}")
    if prod(packed.shape) * dtype.itemsize != len(data):
        raise _bad(f"{slot.name} has {len(data)} bytes for the shape {packed.shape}")
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise _bad(f"{slot.name} must hold zeros and ones")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(packed.shape)


def _check_shapes(found: dict[str, Array], slots: Sequence[Slot]) -> None:
    words: dict[str, int] = {}
    for slot in slots:
        shape = found[slot.name].shape
        fits = len(shape) == len(slot.shape)
        for wanted, size in zip(slot.shape, shape, strict=False):
            known = words.setdefault(wanted, size) if isinstance(wanted, str) and wanted else wanted
            fits = fits and known in ("", size)
        if not fits:
            raise _bad(f"{slot.name} has the shape {shape} and must have {_shown(slot.shape)}")


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(one) or 'any' for one in shape)})"


def _pack(value: Array) -> dict[str, Any]:
    numbers = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    data = base64.b64encode(numbers.tobytes()).decode()
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": data}


def _listed(name: str, value: Array) -> Any:
    """Floats by the fewest digits that give back their bits at their own width."""
    if value.dtype.kind != "f":
        return value.tolist()
    if not np.isfinite(value).all():
        raise EngineError("agent_error", f"The output {name} holds numbers that JSON does not have.")
    return np.array([float(str(one)) for one in value.ravel()], object).reshape(value.shape).tolist()


def _bad(why: str) -> EngineError:
    return EngineError("invalid_request", f"The input is refused: {why}.")
