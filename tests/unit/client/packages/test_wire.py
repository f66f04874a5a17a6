"""Blob messages: cut and joined anywhere, the same as msgspec's, and refused when they are nonsense."""

import asyncio
from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.packages.wire import Part, Parts
from lading_net.errors import BadMessage, LinkClosed
from lading_protocol.blobwire import MOST_HEAD, part_head, read_head
from lading_protocol.framing import frame
from lading_protocol.messages import BLOB_PART, BlobPart, NoBlob, encode

sizes = st.one_of(
    st.integers(0, 300), st.integers(0, 2**53), st.sampled_from([127, 128, 255, 256, 2**16, 2**32, 2**53])
)
lengths = st.one_of(st.integers(0, 300), st.sampled_from([255, 256, 65535, 65536, BLOB_PART]))


class Pipe:
    """A stream of which only the reading side is used."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = deque(piece for piece in pieces if piece)
        self.was_reset = False

    async def read(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""

    def reset(self) -> None:
        self.was_reset = True


def read_all(pieces: list[bytes], count: int) -> list[Part | NoBlob]:
    async def story() -> list[Part | NoBlob]:
        parts = Parts(Pipe(pieces))  # type: ignore[arg-type]
        return [await parts.next() for _ in range(count)]

    return asyncio.run(story())


@given(sizes, lengths)
def test_the_head_is_what_msgspec_writes(size: int, length: int) -> None:
    data = bytes(length)
    whole = frame(encode(BlobPart(size, data)))
    assert part_head(size, length) + data == whole
    head = read_head(whole[4:][:MOST_HEAD])
    assert head is not None
    assert (head.size, head.length) == (size, length)
    assert whole[4 + head.at :] == data


@given(st.binary(max_size=40))
def test_nonsense_is_no_head_or_a_head_within_bounds(data: bytes) -> None:
    head = read_head(data)
    if head is not None:
        assert 0 <= head.length <= BLOB_PART
        assert 0 <= head.size <= 2**53


@given(st.lists(st.binary(max_size=900), min_size=1, max_size=6), st.lists(st.integers(1, 700), min_size=1, max_size=9))
def test_parts_survive_any_cutting(datas: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(encode(BlobPart(7, data))) for data in datas) + frame(encode(NoBlob(b"n" * 32)))
    pieces, at, turn = [], 0, 0
    while at < len(stream):
        pieces.append(stream[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    *parts, last = read_all(pieces, len(datas) + 1)
    assert [b"".join(part.pieces) for part in parts] == datas  # type: ignore[union-attr]
    assert isinstance(last, NoBlob)


def test_a_part_that_another_program_packed_differently_is_understood() -> None:
    data = b"\x93\xd9\x04part\xcd\x00\x07\xc6\x00\x00\x00\x02hi"  # a tag and numbers in longer forms
    assert msgspec.msgpack.decode(data, type=BlobPart) == BlobPart(7, b"hi")
    (part,) = read_all([frame(data)], 1)
    assert isinstance(part, Part)
    assert (part.size, b"".join(part.pieces)) == (7, b"hi")


@pytest.mark.parametrize(
    "data",
    [
        frame(b"\xc0"),
        frame(b"\x93\xa4part\x07\xc4\x09hi"),
        (1 << 24).to_bytes(4, "big") + b"\x93\xa4part" + bytes(40),
        (1 << 24).to_bytes(4, "big") + bytes(40),
        (100).to_bytes(4, "big") + part_head(7, 2)[4:] + bytes(94),
    ],
)
def test_what_is_no_answer_ends_the_stream(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read_all([data], 1)


def test_an_end_in_the_middle_is_said() -> None:
    with pytest.raises(LinkClosed):
        read_all([part_head(7, 5) + b"he"], 1)
