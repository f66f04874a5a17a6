"""How two files of weights lie against each other: which stretch of the new one to compare with which of the old one.

Reads the header of safetensors files (8 bytes of length, JSON, then tensors end to end) and nothing of the tensors. A
header that lies only makes a poor plan, never a wrong file.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lading_protocol.manifest import MAX_DEPTH
from lading_protocol.nesting import deeper

MOST_HEADER = 64 << 20
_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


class Stretch(NamedTuple):
    """`length` bytes of the new file, in order. `old` is where their counterpart begins, None where there is none.

    `width` is the size of one number, so that bytes of equal significance can be put side by side.
    """

    length: int
    old: int | None = None
    width: int = 1


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def align(old: Path, new: Path) -> list[Stretch]:
    """Stretches that cover the new file. Files that are no safetensors match byte by byte when equally long."""
    size, old_size = new.stat().st_size, old.stat().st_size
    tensors, before = _tensors(new, size), _tensors(old, old_size)
    if tensors is None or before is None:
        return [Stretch(size, 0 if size == old_size else None)]
    plan, at = list[Stretch](), 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start < at or tensor.end == tensor.start:
            continue
        if tensor.start > at:
            plan.append(Stretch(tensor.start - at))
        other = before.get(name)
        same = other is not None and (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        start = other.start if other is not None and same else None
        plan.append(Stretch(tensor.end - tensor.start, start, _WIDTHS.get(tensor.dtype, 1)))
        at = tensor.end
    if at < size:
        plan.append(Stretch(size - at))
    return plan


def _tensors(path: Path, size: int) -> dict[str, _Tensor] | None:
    """By name, with places in the file; None for a file that is no safetensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_HEADER):
            return None
        try:
            text = file.read(length)
            if deeper(text, MAX_DEPTH):
                return None
            header: Any = json.loads(text)
            found = {name: _tensor(entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
    if any(not 8 + length <= tensor.start <= tensor.end <= size for tensor in found.values()):
        return None
    return found


def _tensor(entry: Any, base: int) -> _Tensor:
    start, end = entry["data_offsets"]
    return _Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"])), base + int(start), base + int(end))
