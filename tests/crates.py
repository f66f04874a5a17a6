"""Small packages for tests of what carries and keeps them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from lading.blobs import BlobStore
from lading_protocol.ids import AgentId, Digest
from lading_protocol.manifest import SCHEMA, Manifest, dump
from lading_protocol.parts import CHUNK_SIZE, File, Operation, Runtime, file_entry, index_blob

Contents = Mapping[str, tuple[str, bytes]]


def store_file(store: BlobStore, path: str, role: str, data: bytes) -> File:
    chunks = [Digest(hashlib.sha256(data[at : at + CHUNK_SIZE]).digest()) for at in range(0, len(data), CHUNK_SIZE)]
    file = file_entry(path, role, store.put(data), len(data), chunks)
    if file.index is not None:
        store.put(index_blob(chunks))
    return file


def store_large(store: BlobStore, path: str, source: Path) -> File:
    """A file that is too large to be held in memory."""
    whole, chunks = hashlib.sha256(), list[Digest]()
    with source.open("rb") as reader:
        while data := reader.read(CHUNK_SIZE):
            whole.update(data)
            chunks.append(Digest(hashlib.sha256(data).digest()))
    store.add_file(source, whole.digest())
    file = file_entry(path, "weights", Digest(whole.digest()), source.stat().st_size, chunks)
    if file.index is not None:
        store.put(index_blob(chunks))
    return file


def manifest_of(files: tuple[File, ...], version: str = "1") -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name="crate",
        version=version,
        publisher="0x" + "11" * 20,
        summary="x",
        licence="Apache-2.0",
        api=(Operation("chat"),),
        context=64,
        runtimes=(Runtime("memory", files[0].path, "f32", "memory"),),
        files=files,
    )


def package(store: BlobStore, contents: Contents, version: str = "1") -> AgentId:
    files = tuple(store_file(store, path, role, data) for path, (role, data) in contents.items())
    return AgentId(store.put(dump(manifest_of(files, version))))
