"""A file that is arriving: chunks land at their places in any order, each proved first, and survive a kill.

There is no record beside it of what has landed: such a record can outlive the bytes it speaks of. Whoever goes on
hashes what is there again (holes of the sparse file are skipped). The file's own digest is made along the way from the
front, from chunks still in memory where they come in order: the chunk list proves only what this manifest says, another
manifest may name the same digest, and a list that does not belong to it must not pass.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lading.errors import BadPackage
from lading.packages.locks import share, turn
from lading.packages.store import BlobStore, room
from lading_protocol.ids import Digest, digest
from lading_protocol.parts import CHUNK_SIZE, File

Pieces = Sequence[bytes | memoryview]
_A_STEP = 8  # chunks of the whole digest made before other work gets its turn


class Partial:
    """Opens what an earlier fetch left, or begins. Its methods block: call them from threads, several at once."""

    def __init__(self, store: BlobStore, file: File, chunks: Sequence[Digest]) -> None:
        self.file = file
        self.chunks = chunks
        self._store = store
        self._blob = digest(file.digest)
        self._path = store.partial(self._blob)
        self._landed = bytearray(len(chunks))
        self._whole = hashlib.sha256()
        self._hashed = 0
        self._following = threading.Lock()
        self._counting = threading.Lock()
        self._users = 0
        self._over = False
        if not self._path.exists():
            store.make_room(file.size)
        with room(store.folder), turn(store.folder):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            share(self._file)
            os.ftruncate(self._file, file.size)  # its whole size counts against the quota from now on

    def length(self, index: int) -> int:
        return min(CHUNK_SIZE, self.file.size - index * CHUNK_SIZE)

    def lacking(self) -> list[int]:
        return [index for index, landed in enumerate(self._landed) if not landed]

    def recover(self) -> int:
        """Bytes of what an earlier fetch left and is right."""
        found = 0
        with self._in_use():
            for index in self._filled():
                if not self._landed[index] and self._proved(index, [self._read(index)]):
                    self._landed[index] = 1
                    found += self.length(index)
            self._follow_all()
        return found

    def write(self, index: int, pieces: Pieces) -> bool:
        """False for a chunk that is not the one listed; it is not written then. Raises StoreFull."""
        if not self._proved(index, pieces):
            return False
        with self._in_use():
            with room(self._store.folder):
                _write_all(self._file, pieces, index * CHUNK_SIZE)
            self._landed[index] = 1
            self._follow(index, pieces)
        return True

    def finish(self) -> None:
        """The file becomes a blob of the store. Raises BadPackage when its digest is not the one listed."""
        with self._in_use():
            self._follow_all()
            if self._hashed != len(self.chunks):
                raise AssertionError("finished before every chunk had landed")
            if self._whole.digest() != self._blob:
                self._path.unlink(missing_ok=True)
                raise BadPackage(
                    f"{self.file.path} does not have the digest that the manifest names.",
                    hint="The manifest contradicts itself: only its publisher can correct it.",
                )
            with room(self._store.folder):
                os.fdatasync(self._file)
            self._store.admit(self._path, self._blob, self._file)

    def close(self) -> None:
        """Safe while threads of a fetch that was given up are still at work: the last of them closes the file."""
        with self._counting:
            self._over = True
            if not self._users:
                os.close(self._file)

    # -- inside

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._counting:
            if self._over:
                raise BadPackage(f"The fetch of {self.file.path} is over.")
            self._users += 1
        try:
            yield
        finally:
            self._left()

    def _left(self) -> None:
        with self._counting:
            self._users -= 1
            if self._over and not self._users:
                os.close(self._file)

    def _proved(self, index: int, pieces: Pieces) -> bool:
        seen = hashlib.sha256()
        for piece in pieces:
            seen.update(piece)
        return seen.digest() == self.chunks[index]

    def _read(self, index: int) -> bytes:
        return os.pread(self._file, self.length(index), index * CHUNK_SIZE)

    def _follow_all(self) -> None:
        with self._following:
            self._advance(len(self.chunks))

    def _follow(self, index: int, pieces: Pieces) -> None:
        """Takes the whole digest on over what has landed, unless another thread is at it."""
        if self._following.acquire(blocking=False):
            try:
                self._advance(_A_STEP, index, pieces)
            finally:
                self._following.release()

    def _advance(self, most: int, index: int = -1, pieces: Pieces = ()) -> None:
        while most and self._hashed < len(self.chunks) and self._landed[self._hashed]:
            for piece in pieces if index == self._hashed else [self._read(self._hashed)]:
                self._whole.update(piece)
            self._hashed += 1
            most -= 1

    def _filled(self) -> Iterator[int]:
        """The chunks of which something is on the disk."""
        at = 0
        while at < self.file.size:
            try:
                start = os.lseek(self._file, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return
            stop = min(os.lseek(self._file, start, os.SEEK_HOLE), self.file.size)
            last = -(-stop // CHUNK_SIZE)
            yield from range(start // CHUNK_SIZE, last)
            at = last * CHUNK_SIZE


def _write_all(file: int, pieces: Pieces, offset: int) -> None:
    views = [memoryview(piece) for piece in pieces]
    while views:
        written = os.pwritev(file, views[:512], offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
