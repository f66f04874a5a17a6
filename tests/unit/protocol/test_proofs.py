"""A leaf's way up to the root: every leaf has one, and no other leaf, place or hash goes along with it."""

from hypothesis import given
from hypothesis import strategies as st

from lading_protocol.proofs import path, root_from
from lading_protocol.transcript import merkle_root, sha256

trees = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))


def leaves_of(count: int) -> list[bytes]:
    return [sha256(n.to_bytes(4, "big")) for n in range(count)]


@given(trees)
def test_every_leaf_leads_to_the_root(tree: tuple[int, int]) -> None:
    count, at = tree
    leaves = leaves_of(count)
    assert root_from(leaves[at], at, count, path(leaves, at)) == merkle_root(leaves)


@given(trees, st.binary(min_size=32, max_size=32), st.integers(-1, 41))
def test_nothing_else_does(tree: tuple[int, int], other: bytes, place: int) -> None:
    count, at = tree
    leaves = leaves_of(count)
    root, way = merkle_root(leaves), path(leaves, at)
    assert root_from(other, at, count, way) != root
    if place != at:
        assert root_from(leaves[at], place, count, way) != root
    assert root_from(leaves[at], at, count, [*way, other]) is None
    if way:
        assert root_from(leaves[at], at, count, way[:-1]) is None
        assert root_from(leaves[at], at, count, [other, *way[1:]]) != root
