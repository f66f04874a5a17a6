"""Named tensors as a guest hands them to a model and gets them back: the bytes of a safetensors file.

Little-endian float32 and int64 only. The format is read here by hand: the bytes are a stranger's, and small.
"""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
_KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_MOST_TENSORS = 64
_MOST_HEADER = 64 << 10


def unpack(data: bytes) -> Tensors:
    """Raises ValueError."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MOST_HEADER, len(data) - 8):
        raise ValueError("the header is longer than the message")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if not isinstance(header, dict) or len(header) > _MOST_TENSORS:
        raise ValueError(f"the header is no object of at most {_MOST_TENSORS} tensors")
    return {name: _tensor(name, entry, body) for name, entry in header.items() if name != "__metadata__"}


def _tensor(name: str, entry: Any, body: bytes) -> NDArray[Any]:
    try:
        kind, shape, (start, end) = _KINDS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        whole = [*shape, start, end]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the entry of {name[:64]!r} does not read") from None
    if not all(type(number) is int and number >= 0 for number in whole) or len(shape) > 8:
        raise ValueError(f"the entry of {name[:64]!r} holds what is no length")
    if end > len(body) or end - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{name[:64]!r} does not lie where the header says")
    found: NDArray[Any] = np.frombuffer(body[start:end], kind).reshape(shape)
    return found


def pack(tensors: Tensors) -> bytes:
    """Raises ValueError for a kind of number that the format here does not know."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    for name, tensor in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}.get(str(tensor.dtype))
        if kind is None:
            raise ValueError(f"the model gives {tensor.dtype}")
        part = np.ascontiguousarray(tensor, _KINDS[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
