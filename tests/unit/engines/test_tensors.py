"""The safetensors reader: what the format's own library writes comes back to the bit, and anything else is refused."""

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from lading_node.engines import tensors
from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile
from lading_node.engines.tensors import Tensor, headers, stream

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


def file(folder: Path, data: bytes, digest: bytes | None = None) -> AgentFile:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return AgentFile("weights", str(path), digest or hashlib.sha256(data).digest())


def read(source: AgentFile) -> dict[str, bytes]:
    found: dict[str, bytearray] = {tensor.name: bytearray() for tensor in headers(source)}

    def take(tensor: Tensor, first: int, piece: memoryview) -> None:
        assert first * tensors.ITEM_BYTES[tensor.dtype] == len(found[tensor.name])
        found[tensor.name] += piece

    stream(source, take)
    return {name: bytes(data) for name, data in found.items()}


@given(
    shapes=st.dictionaries(st.text(min_size=1, max_size=8), SHAPES, max_size=5), piece=st.sampled_from([4, 12, 1000])
)
def test_every_file_of_the_library_comes_back_in_pieces(
    folder: Path, shapes: dict[str, tuple[int, ...]], piece: int
) -> None:
    rng = np.random.default_rng(0)
    made = {
        name: rng.normal(size=shape).astype(np.float16 if len(shape) % 2 else np.float32)
        for name, shape in shapes.items()
    }
    before, tensors.PIECE = tensors.PIECE, piece
    try:
        source = file(folder, save(made))
        assert read(source) == {name: value.tobytes() for name, value in made.items()}
        assert {tensor.name: tensor.shape for tensor in headers(source)} == shapes
    finally:
        tensors.PIECE = before


def test_one_changed_byte_is_found(folder: Path) -> None:
    data = save({"a": np.ones((3, 5), np.float32)})
    true = hashlib.sha256(data).digest()
    for at in (len(data) - 1, len(data) - 30):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(EngineError, match="not the file that the manifest names"):
            read(file(folder, bytes(changed), true))


def written(header: Any, numbers: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def entry(begin: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "is a pickle"),
    "a zip of pickles": (b"PK\x03\x04" + bytes(60), "is a pickle"),
    "nothing": (b"", "its header would have"),
    "a header longer than all": (struct.pack("<Q", 1 << 62) + b"{}", "its header would have"),
    "a header cut off": (struct.pack("<Q", 100) + b"{}", "within its header"),
    "no JSON": (written(b"{'a': 1}", b""), "does not read"),
    "a deep header": (written(b"[" * 100_000, b""), "does not read"),
    "a gap": (written({"a": entry(4, 12)}, bytes(12)), "does not fit"),
    "an overlap": (written({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "does not fit"),
    "a shape of other size": (written({"a": entry(0, 8, (3,))}, bytes(8)), "does not fit"),
    "a shape beyond all memory": (written({"a": entry(0, 8, (2**40, 2**40))}, bytes(8)), "does not fit"),
    "negative places": (written({"a": entry(-8, 0)}, bytes(8)), "does not read"),
    "more than it says": (written({"a": entry(0, 8)}, bytes(9)), "should end after 8"),
    "less than it says": (written({"a": entry(0, 8)}, bytes(7)), "should end after 8"),
    "another type": (written({"a": entry(0, 2, (2,), "F8_E4M3")}, bytes(2)), "F8_E4M3"),
    "an unknown field": (written({"a": entry(0, 8) | {"code": "x"}}, bytes(8)), "does not read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_safetensors_file_is_refused(folder: Path, name: str) -> None:
    data, words = BAD[name]
    source = file(folder, data)
    for use in (read, headers):
        with pytest.raises(EngineError) as caught:
            use(source)
        assert caught.value.failure == "invalid_package"
        assert "model.safetensors" in caught.value.message
        assert words in caught.value.message


@given(at=st.integers(0, 150), value=st.integers(0, 255))
def test_no_changed_header_gives_anything_but_a_refusal(folder: Path, at: int, value: int) -> None:
    data = bytearray(save({"a": np.ones((3, 5), np.float32), "b": np.zeros(2, np.float16)}))
    data[at] = value
    with suppress(EngineError):
        read(file(folder, bytes(data)))
