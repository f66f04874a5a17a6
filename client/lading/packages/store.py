"""Blobs on disk by digest, whatever they are for: taken in whole or in part, within a quota, shared by programs.

A manifest is a blob too; its digest is the agent's id. A file appears under its digest only when all of it was checked
and is on the disk, so a kill or a power cut at any moment leaves either the blob or none.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lading.errors import BadPackage, StoreFull
from lading.packages import layout, shelf
from lading.packages.locks import Hold, share, turn
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, Digest, digest, short
from lading_protocol.manifest import MAX_MANIFEST, Manifest, load
from lading_protocol.parts import CHUNK_SIZE, File

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Raises StoreFull for a disk, a quota or a limit that takes no more, however much was free a moment ago."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreFull(f"Nothing more can be written to {folder}: {os.strerror(error.errno).lower()}.") from error


class BlobStore:
    """Blobs below `folder`, named by digest; partial downloads beside them. `quota` bounds all of it, in bytes.

    With `evict`, room is made by removing packages that nobody pinned, those unused longest first.
    """

    def __init__(
        self, folder: Path, quota: int = 1 << 40, *, evict: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.quota = quota
        self.evict = evict
        self.clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    # -- blobs

    def path(self, blob: bytes) -> Path:
        return self.folder / blob.hex()

    def has(self, blob: bytes) -> bool:
        return self.path(blob).is_file()

    def size(self, blob: bytes) -> int:
        return self.path(blob).stat().st_size

    def read(self, blob: bytes, offset: int, length: int) -> bytes:
        with self.path(blob).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def put(self, data: bytes) -> Digest:
        """Store a small blob given whole."""
        blob = Digest(hashlib.sha256(data).digest())
        with self.incoming(blob, len(data)) as writer:
            if writer is not None:
                writer.write(data)
        return blob

    def add_file(self, source: Path, blob: bytes) -> None:
        """Take a file in, checking that its bytes have this digest. Raises BadPackage, StoreFull."""
        seen = hashlib.sha256()
        with source.open("rb") as reader, self.incoming(blob, source.stat().st_size) as writer:
            if writer is None:
                return
            while data := reader.read(CHUNK_SIZE):
                seen.update(data)
                writer.write(data)
            if seen.digest() != blob:
                raise BadPackage(f"{source.name} does not have the digest that the manifest names.")

    @contextmanager
    def incoming(self, blob: bytes, size: int) -> Iterator[IO[bytes] | None]:
        """Where to write a blob of `size` bytes, checked by the caller, in one go; None when it is held already.

        It takes its place when the block ends, and nothing is left when the block fails. Raises StoreFull.
        """
        if self.has(blob):
            self.touch(blob)
            yield None
            return
        self.make_room(size)
        with room(self.folder):
            with turn(self.folder):
                number, name = tempfile.mkstemp(".new", f"{blob.hex()}.", self.folder)
                share(number)
            part = Path(name)
            try:
                with os.fdopen(number, "wb") as writer:
                    yield writer
                    writer.flush()
                    os.fdatasync(number)
                    self.admit(part, blob, number)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def admit(self, part: Path, blob: bytes, file: int) -> None:
        """The checked file `file`, which lies at `part`, becomes the blob. Another program may have been first."""
        with turn(self.folder):
            if part.exists() and os.path.samestat(part.stat(), os.fstat(file)):
                part.replace(self.path(blob))
            elif not self.has(blob):  # what lies there now is another program's, and perhaps not whole
                raise BadPackage(f"The file of blob {short(blob)} was removed while it was made.", hint="Try again.")
            self.touch(blob)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def touch(self, blob: bytes) -> None:
        """The blob is used now: of what may go, what was used last goes last."""
        now = self.clock()
        try:
            os.utime(self.path(blob), (now, now))
        except FileNotFoundError:
            pass

    def partial(self, blob: bytes) -> Path:
        return self.folder / f"{blob.hex()}.part"

    # -- room

    def used(self) -> int:
        """Bytes held, and those that partial files have promised to become."""
        return sum(found.st_size for _, found in shelf.entries(self.folder))

    def free(self) -> int:
        """Bytes that can still be taken in, by the quota and by the disk."""
        promised = 0
        for path, found in shelf.entries(self.folder):
            if path.suffix == ".part":
                promised += max(found.st_size - found.st_blocks * 512, 0)
        return max(min(self.quota - self.used(), shutil.disk_usage(self.folder).free - promised), 0)

    def reserve(self, more: int) -> None:
        """Raises StoreFull when `more` bytes would pass the quota or the disk."""
        free = self.free()
        if more > free:
            raise StoreFull(f"{more:,} bytes are needed in {self.folder}, {free:,} are free.")

    def make_room(self, more: int) -> None:
        """Collects what may go when there is too little room. Raises StoreFull."""
        lacking = more - self.free()
        if lacking > 0 and self.evict:
            shelf.collect(self, lacking)
        self.reserve(more)

    def collect(self, need: int) -> int:
        """Bytes freed by removing what nobody needs, and packages if that is not enough; see shelf.collect."""
        return shelf.collect(self, need)

    # -- packages

    def manifest(self, agent: AgentId) -> Manifest:
        """Raises BadManifest when it is not held or was altered."""
        if not self.has(agent) or self.size(agent) > MAX_MANIFEST:
            raise BadManifest(f"The manifest of agent {short(agent)} is not in the store.")
        data = self.path(agent).read_bytes()
        if hashlib.sha256(data).digest() != agent:
            raise BadManifest(f"The stored manifest of agent {short(agent)} was altered.")
        return load(data)

    def missing(self, manifest: Manifest) -> list[File]:
        """The files that an engine needs and the store lacks. Deltas are only a way to get others."""
        return [file for file in manifest.files if file.role != "delta" and not self.has(digest(file.digest))]

    def packages(self) -> list[shelf.Stored]:
        """What is held, the package used last first."""
        return shelf.packages(self)

    def hold(self, agent: AgentId) -> Hold:
        """The package stays until this is released or the program ends."""
        return Hold(self.path(agent))

    def pin(self, agent: AgentId) -> None:
        """The package stays until it is unpinned, also while it is still being fetched."""
        self._pin_path(agent).touch(mode=0o600)

    def unpin(self, agent: AgentId) -> None:
        self._pin_path(agent).unlink(missing_ok=True)

    def pinned(self, agent: AgentId) -> bool:
        return self._pin_path(agent).exists()

    def _pin_path(self, agent: AgentId) -> Path:
        return self.folder / f"{agent.hex()}.pin"

    def materialise(self, agent: AgentId, folder: Path) -> Manifest:
        """Lay the package's files out below `folder`, every byte checked again. Raises BadManifest, BadPackage."""
        manifest = self.manifest(agent)
        self.touch(agent)
        with room(folder.parent):
            layout.lay_out(manifest, self.path, folder)
        return manifest
