"""Chunks that the store holds already inside other files: copied instead of fetched, and proved like any other."""

from collections.abc import Iterator, Sequence

from lading.packages.chunklist import held_chunks
from lading.packages.partial import Partial
from lading.packages.store import BlobStore
from lading_protocol.ids import Digest, digest
from lading_protocol.parts import CHUNK_SIZE, File
from lading_protocol.transcript import sha256


def reuse(store: BlobStore, partials: Sequence[Partial]) -> int:
    """Bytes found. Blocks: call it from a thread. Raises StoreFull."""
    wanted: dict[Digest, list[tuple[Partial, int]]] = {}
    for partial in partials:
        for index in partial.lacking():
            wanted.setdefault(partial.chunks[index], []).append((partial, index))
    found = 0
    for file, number, chunk in _held(store):
        if not wanted:
            break
        places = wanted.get(chunk)
        if places is None:
            continue
        data = store.read(digest(file.digest), number * CHUNK_SIZE, CHUNK_SIZE)
        if sha256(data) == chunk:
            for partial, index in places:
                partial.write(index, [data])
            found += len(data) * len(places)
            del wanted[chunk]
    return found


def _held(store: BlobStore) -> Iterator[tuple[File, int, Digest]]:
    """Every chunk of every file that packages of the store hold."""
    seen: set[str] = set()
    for package in store.packages():
        for file in package.manifest.files:
            if file.digest in seen or not store.has(digest(file.digest)):
                continue
            seen.add(file.digest)
            for number, chunk in enumerate(held_chunks(store, file) or ()):
                yield file, number, chunk
