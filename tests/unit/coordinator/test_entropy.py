"""Random bytes: as many as were asked for, and none of them twice."""

from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.entropy import AT_ONCE, Entropy


@given(st.lists(st.integers(8, 200) | st.integers(AT_ONCE - 1, AT_ONCE + 1), max_size=60))
def test_no_bytes_are_given_twice(sizes: list[int]) -> None:
    entropy = Entropy()
    given_out = [entropy(size) for size in sizes]
    assert [len(one) for one in given_out] == sizes
    joined = b"".join(given_out)
    pieces = [joined[at : at + 8] for at in range(0, len(joined) - 7, 8)]
    assert len(set(pieces)) == len(pieces)
