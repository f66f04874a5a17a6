"""From one version of a file to the next in few bytes: old and new XORed, bytes of equal significance together, zstd.

A delta is the magic, then one zstd frame of steps: copy a stretch of the old file, XOR one with what follows, or take
what follows as it is. Whoever applies it holds the size and the digest of the result beforehand: the size is a hard
stop, what a frame may unfold to is bounded by the delta's own size, and only the right digest makes a file of it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import IO, Any

from lading.errors import BadDelta
from lading.packages.locks import share
from lading.packages.store import BlobStore, room
from lading.packages.tensors import align
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, Digest, digest
from lading_protocol.parts import CHUNK_SIZE, File, file_entry
from lading_protocol.transcript import sha256

MAGIC = b"LDELTA1\n"
MOST_RATIO = 100
LEAST_SIZE = 64 * 1024  # of a file that is worth a delta
_WEIGHTS = frozenset({"model", "weights", "adapter"})
_BLOCK = 256 * 1024
_WINDOW_LOG = 22
_LEVEL = 9
_STEP = Struct("<BBQQ")  # kind, width, length, place in the old file
_COPY, _XOR, _TAKE = 1, 2, 3
_WIDTHS = frozenset({1, 2, 4, 8})
Write = Callable[[bytes], object]


def make_delta(old: Path, new: Path, out: IO[bytes]) -> int:
    """Writes the way from `old` to `new`; returns its size. Memory does not grow with the files."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=_WINDOW_LOG)
    unfolded = 0
    out.write(MAGIC)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(out, closefd=False) as writer:
        for data in _steps(old, new):
            unfolded += len(data)
            writer.write(data)
    size = out.tell()
    # What says very little in many bytes would look like a bomb to those who apply it: make up the difference.
    padding = max(-(-unfolded // MOST_RATIO) - size, 0)
    while padding:
        padding -= out.write(bytes(min(padding, CHUNK_SIZE)))
    return out.tell()


def delta_entry(store: BlobStore, base: File, target: File, path: str) -> File | None:
    """Makes a delta between two files that the store holds, keeps it there, and returns its entry for a manifest.

    None when it would not save at least a tenth. Raises StoreFull.
    """
    store.make_room(target.size)
    with room(store.folder), tempfile.NamedTemporaryFile(dir=store.folder, suffix=".new") as out:
        share(out.fileno())
        size = make_delta(store.path(digest(base.digest)), store.path(digest(target.digest)), out)
        if size * 10 > target.size * 9:
            return None
        out.flush()
        out.seek(0)
        whole, chunks = hashlib.sha256(), list[Digest]()
        while data := out.read(CHUNK_SIZE):
            whole.update(data)
            chunks.append(sha256(data))
        store.add_file(Path(out.name), whole.digest())
    entry = file_entry(path, "delta", Digest(whole.digest()), size, chunks)
    if entry.index is not None:
        store.put(b"".join(chunks))
    return File(path, "delta", entry.digest, size, entry.chunks, entry.index, base=base.digest, target=target.digest)


def update_deltas(store: BlobStore, before: AgentId, files: Sequence[File]) -> tuple[File, ...]:
    """For each large file of weights that has another content in the release `before`, the delta, where it saves.

    None when the store does not hold that release any more. Raises StoreFull.
    """
    try:
        old = {file.path: file for file in store.manifest(before).files}
    except BadManifest:
        return ()
    made = []
    for file in files:
        base = old.get(file.path)
        if base is None or base.digest == file.digest or file.role not in _WEIGHTS or file.size < LEAST_SIZE:
            continue
        path = f"deltas/{digest(base.digest).hex()[:16]}-{digest(file.digest).hex()[:16]}"
        if store.has(digest(base.digest)) and (entry := delta_entry(store, base, file, path)):
            made.append(entry)
    return tuple(made)


def apply_delta(store: BlobStore, delta: File, target: File) -> None:
    """Makes the blob `target` of the blobs `delta` and `delta.base`. Raises BadDelta, StoreFull."""
    seen = hashlib.sha256()
    with store.incoming(digest(target.digest), target.size) as writer:
        if writer is None:
            return

        def write(data: bytes) -> None:
            seen.update(data)
            writer.write(data)

        try:
            patch(store.path(digest(delta.base or "")), store.path(digest(delta.digest)), target.size, write)
        except FileNotFoundError as error:
            raise BadDelta(f"The file that {delta.path} starts from is not in the store.") from error
        if seen.digest() != digest(target.digest):
            raise BadDelta(f"{delta.path} makes another file than {target.path}.")


def patch(old: Path, delta: Path, size: int, write: Write) -> None:
    """Writes the new file of exactly `size` bytes. Raises BadDelta."""
    import zstandard

    with old.open("rb") as before, delta.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BadDelta("This is no delta.")
        most = MOST_RATIO * os.fstat(file.fileno()).st_size
        unfolder = zstandard.ZstdDecompressor(max_window_size=1 << (_WINDOW_LOG + 1))
        with unfolder.stream_reader(file, read_across_frames=False, closefd=False) as reader:
            try:
                _Patch(before, _Unfolded(reader, most), size, write).run()
            except zstandard.ZstdError as error:
                raise BadDelta(f"The delta does not unpack: {error}.") from error


class _Unfolded:
    """Reads exactly what is asked, and no more than `most` bytes in all."""

    def __init__(self, reader: Any, most: int) -> None:
        self._reader = reader
        self._left = most

    def read(self, size: int) -> bytes:
        """Raises BadDelta when the stream ends before, or has unfolded to too much."""
        if size > self._left:
            raise BadDelta(f"The delta unfolds to over {MOST_RATIO} times its size.")
        self._left -= size
        pieces = []
        while size:
            data = self._reader.read(size)
            if not data:
                raise BadDelta("The delta ends too early.")
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)


class _Patch:
    def __init__(self, old: IO[bytes], steps: _Unfolded, size: int, write: Write) -> None:
        self._old, self._steps, self._left, self._write = old, steps, size, write

    def run(self) -> None:
        while self._left:
            kind, width, length, place = _STEP.unpack(self._steps.read(_STEP.size))
            if not 0 < length <= self._left:
                raise BadDelta("The delta makes a file of another size than the manifest says.")
            self._left -= length
            self._step(kind, width, length, place)

    def _step(self, kind: int, width: int, length: int, place: int) -> None:
        if kind == _COPY:
            for at in range(0, length, CHUNK_SIZE):
                self._write(self._before(place + at, min(CHUNK_SIZE, length - at)))
        elif length > _BLOCK:
            raise BadDelta("A step of the delta is too long.")
        elif kind == _TAKE:
            self._write(self._steps.read(length))
        elif kind == _XOR and width in _WIDTHS and length % width == 0:
            self._write(_xor(_joined(self._steps.read(length), width), self._before(place, length)))
        else:
            raise BadDelta("The delta has a step that this program does not know.")

    def _before(self, place: int, length: int) -> bytes:
        data = os.pread(self._old.fileno(), length, place) if place < 2**62 else b""
        if len(data) != length:
            raise BadDelta("The delta takes from beyond the end of the old file.")
        return data


def _steps(old: Path, new: Path) -> Iterator[bytes]:
    """The steps and their data, in order. Stretches that are equal cost one step, however long."""
    copied: tuple[int, int] | None = None  # place and length of a copy that may still grow
    with old.open("rb") as before, new.open("rb") as after:
        for length, place, width in _blocks(old, new):
            data = after.read(length)
            other = os.pread(before.fileno(), length, place) if place is not None else None
            if place is not None and data == other:
                if copied is not None and sum(copied) == place:
                    copied = copied[0], copied[1] + length
                    continue
                if copied is not None:
                    yield _STEP.pack(_COPY, 0, copied[1], copied[0])
                copied = place, length
                continue
            if copied is not None:
                yield _STEP.pack(_COPY, 0, copied[1], copied[0])
                copied = None
            if place is not None and other is not None and len(other) == length:
                yield _STEP.pack(_XOR, width, length, place) + _split(_xor(data, other), width)
            else:
                yield _STEP.pack(_TAKE, 1, length, 0) + data
    if copied is not None:
        yield _STEP.pack(_COPY, 0, copied[1], copied[0])


def _blocks(old: Path, new: Path) -> Iterator[tuple[int, int | None, int]]:
    for stretch in align(old, new):
        for at in range(0, stretch.length, _BLOCK):
            length = min(_BLOCK, stretch.length - at)
            width = stretch.width if length % stretch.width == 0 else 1
            yield length, None if stretch.old is None else stretch.old + at, width


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")


def _split(data: bytes, width: int) -> bytes:
    """All lowest bytes of the numbers, then all next ones, and so on."""
    return b"".join(data[at::width] for at in range(width)) if width > 1 else data


def _joined(planes: bytes, width: int) -> bytes:
    if width == 1:
        return planes
    data, each = bytearray(len(planes)), len(planes) // width
    for at in range(width):
        data[at::width] = planes[at * each : (at + 1) * each]
    return bytes(data)
