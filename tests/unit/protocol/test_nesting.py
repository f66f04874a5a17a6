"""The depth of JSON, also of text that is none."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_protocol.nesting import deeper, depth

TREES = st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def height(tree: object) -> int:
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return 0 if inner is None else 1 + max(map(height, inner), default=0)


@given(TREES, st.booleans())
def test_the_depth_of_a_text_is_that_of_its_tree(tree: object, ascii_only: bool) -> None:
    assert depth(json.dumps(tree, ensure_ascii=ascii_only).encode()) == height(tree)


@given(TREES, st.integers(0, 8))
def test_deeper_is_what_the_depth_says(tree: object, most: int) -> None:
    data = json.dumps(tree).encode()
    assert deeper(data, most) == (depth(data) > most)
    assert not deeper(data, depth(data))


@pytest.mark.parametrize("piece", [b'\\"', b'"', b'"[', b"[", b"\\", b'"\\'])
def test_a_million_of_anything_takes_no_time(piece: bytes) -> None:
    """Quadratic time would be minutes here."""
    began = time.process_time()
    depth(b'"' + piece * 500_000)
    assert time.process_time() - began < 10
