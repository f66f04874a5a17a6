"""What a compiled build does in C is what anybody else computes; the same tests hold for plain Python."""

import hashlib

import pytest

from lading_protocol import native
from lading_protocol.transcript import roll, sha256


@pytest.mark.parametrize("size", [*range(200), 4095, 4096, 4097, 100_000])
def test_sha256_of_any_length_is_the_standards(size: int) -> None:
    data = bytes(each * 7 % 256 for each in range(size))
    assert native.sha256(data) == sha256(data) == hashlib.sha256(data).digest()


def test_the_rolling_hash_is_a_sha256_a_token() -> None:
    state = bytes(range(32))
    for ids in ([], [0], [1, 2, 3], [2**32 - 1, 7]):
        expected = state
        for each in ids:
            expected = hashlib.sha256(expected + each.to_bytes(4, "big")).digest()
        assert roll(state, ids) == roll(state, tuple(ids)) == roll(state, iter(ids)) == expected


@pytest.mark.parametrize("wrong", [-1, 2**32, 2**70])
def test_what_is_no_token_is_refused(wrong: int) -> None:
    with pytest.raises(OverflowError):
        roll(bytes(32), [5, wrong])
