"""Tensors in JSON: they come back to the bit, and what a graph did not declare is refused in words."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_node.engines.errors import EngineError
from lading_node.engines.json_tensors import TYPES, Slot, read_tensors, write_tensors

KINDS = st.sampled_from(sorted(TYPES.values()))
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(dtype=KINDS, shape=SHAPES, seed=st.integers(0, 99), packed=st.booleans())
def test_what_is_written_reads_back_to_the_bit(dtype: str, shape: tuple[int, ...], seed: int, packed: bool) -> None:
    made = (np.random.default_rng(seed).normal(size=shape) * 50).clip(0, 120).astype(dtype)
    slots = [Slot("x", dtype, ("",) * len(shape))]
    if not packed and 0 in shape:
        return  # nested lists do not tell how wide nothing is
    data = write_tensors({"x": made}, packed)
    found, was_packed = read_tensors(data, slots)
    assert was_packed is packed
    assert (found["x"].dtype, found["x"].shape, found["x"].tobytes()) == (made.dtype, made.shape, made.tobytes())
    assert write_tensors(found, packed) == data


def packed(data: bytes, shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data": base64.b64encode(data).decode()}


SLOTS = [Slot("a", "float32", ("batch", 2)), Slot("b", "int64", ("batch",))]
GOOD: dict[str, Any] = {"a": [[1, 2.5], [3, 4]], "b": [1, 2]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a name more": ({"c": 1}, "must have the inputs a, b"),
    "another size": ({"a": [[1, 2, 3]] * 2}, "must have (batch, 2)"),
    "another rank": ({"a": 1.0}, "must have (batch, 2)"),
    "one word, two sizes": ({"b": [1]}, "has the shape (1,)"),
    "uneven": ({"a": [[1], [2, 3]]}, "no even nesting"),
    "words": ({"a": [["1", "2"]] * 2}, "must hold float32"),
    "nothing": ({"a": [[None, 1]] * 2}, "must hold float32"),
    "fractions for whole numbers": ({"b": [1.5, 2]}, "must hold int64"),
    "truths for numbers": ({"b": [True, False]}, "must hold int64"),
    "beyond 64 bits": ({"b": [1, 2**64]}, "must hold int64"),
    "another type": ({"b": packed(bytes(8), [2], "int32")}, "must be int64"),
    "too few bytes": ({"b": packed(bytes(8), [2], "int64")}, "has 8 bytes"),
    "a size beyond memory": ({"b": packed(b"", [2**40], "int64")}, "does not read"),
    "a negative size": ({"b": packed(b"", [-1], "int64")}, "does not read"),
    "no base64": ({"b": {"dtype": "int64", "shape": [1], "data": "é"}}, "does not read"),
    "a field more": ({"b": packed(bytes(16), [2], "int64") | {"path": "/etc"}}, "does not read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_graph_does_not_declare_is_refused(name: str) -> None:
    changes, words = BAD[name]
    with pytest.raises(EngineError) as caught:
        read_tensors(json.dumps(GOOD | changes).encode(), SLOTS)
    assert caught.value.failure == "invalid_request"
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"{", b"[" * 100_000, b'{"a": NaN, "b": 1}', b"\xff", b'{"a": "\\ud800"}']
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        read_tensors(data, SLOTS)
    assert caught.value.failure == "invalid_request"


def test_numbers_that_json_lacks_need_the_packed_form() -> None:
    made = {"x": np.array([np.inf, 1], np.float32)}
    with pytest.raises(EngineError, match="JSON does not have"):
        write_tensors(made, packed=False)
    assert b"float32" in write_tensors(made, packed=True)
