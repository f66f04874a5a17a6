"""Agent packages on disk and on the wire: blobs by digest, fetched in parts, each chunk checked, resumed after a kill.

A manifest is a blob too; its digest is the agent's id. Nothing is ever extracted, and no path from a package is used
unless the manifest's rules passed it.
"""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lading.errors import BadPackage, StoreFull
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, Digest, digest, short
from lading_protocol.manifest import MAX_MANIFEST, Manifest, load
from lading_protocol.messages import BLOB_PART, BlobPart, FromStore, GetBlob, NoBlob
from lading_protocol.parts import CHUNK_SIZE, File, chunk_digests

_from_store = msgspec.msgpack.Decoder(FromStore)
_get_blob = msgspec.msgpack.Decoder(GetBlob)

Progress = Callable[[int, int], None]
OpenStream = Callable[[], Awaitable[Stream]]
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raises StoreFull for a disk, a quota or a limit that takes no more, however much was free a moment ago."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreFull(f"Nothing more can be written to {folder}: {os.strerror(error.errno).lower()}.") from error


class BlobStore:
    """Blobs below `folder`, named by digest; partial downloads beside them. `quota` bounds all of it, in bytes."""

    def __init__(self, folder: Path, quota: int = 1 << 40) -> None:
        self.folder = folder
        self.quota = quota
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, blob: bytes) -> Path:
        return self.folder / blob.hex()

    def has(self, blob: bytes) -> bool:
        return self.path(blob).is_file()

    def size(self, blob: bytes) -> int:
        return self.path(blob).stat().st_size

    def used(self) -> int:
        return sum(entry.stat().st_size for entry in os.scandir(self.folder) if entry.is_file())

    def read(self, blob: bytes, offset: int, length: int) -> bytes:
        with self.path(blob).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def put(self, data: bytes) -> Digest:
        """Store a small blob given whole."""
        blob = Digest(hashlib.sha256(data).digest())
        if not self.has(blob):
            self.reserve(len(data))
            part = self.partial(blob)
            with _room(self.folder), self._dropped(part):
                part.write_bytes(data)
                part.replace(self.path(blob))
        return blob

    def add_file(self, source: Path, blob: bytes) -> None:
        """Take a file in, checking that its bytes have this digest. Raises BadPackage, StoreFull."""
        if self.has(blob):
            return
        self.reserve(source.stat().st_size)
        part, seen = self.partial(blob), hashlib.sha256()
        with _room(self.folder), self._dropped(part):
            with source.open("rb") as reader, part.open("wb") as writer:
                while data := reader.read(CHUNK_SIZE):
                    seen.update(data)
                    writer.write(data)
            if seen.digest() != blob:
                raise BadPackage(f"{source.name} does not have the digest that the manifest names.")
            part.replace(self.path(blob))

    @contextmanager
    def _dropped(self, part: Path) -> Iterator[None]:
        """What is written here in one go leaves no half behind."""
        try:
            yield
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def partial(self, blob: bytes) -> Path:
        return self.folder / f"{blob.hex()}.part"

    def reserve(self, more: int) -> None:
        """Raises StoreFull when `more` bytes would pass the quota or the disk."""
        free = min(self.quota - self.used(), shutil.disk_usage(self.folder).free)
        if more > free:
            raise StoreFull(f"{more:,} bytes are needed in {self.folder}, {max(free, 0):,} are free.")

    def manifest(self, agent: AgentId) -> Manifest:
        """Raises BadManifest when it is not held or was altered."""
        if not self.has(agent) or self.size(agent) > MAX_MANIFEST:
            raise BadManifest(f"The manifest of agent {short(agent)} is not in the store.")
        data = self.path(agent).read_bytes()
        if hashlib.sha256(data).digest() != agent:
            raise BadManifest(f"The stored manifest of agent {short(agent)} was altered.")
        return load(data)

    def missing(self, manifest: Manifest) -> list[File]:
        return [file for file in manifest.files if not self.has(digest(file.digest))]

    def materialise(self, agent: AgentId, folder: Path) -> Manifest:
        """Lay the package's files out below a new `folder`, every byte checked again. Raises BadPackage."""
        manifest = self.manifest(agent)
        staging = folder.with_name(folder.name + ".new")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with _room(folder.parent):
                self._lay_out(manifest, staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
        return manifest

    def _lay_out(self, manifest: Manifest, staging: Path) -> None:
        for file in manifest.files:
            target = staging / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            seen = hashlib.sha256()
            with self.path(digest(file.digest)).open("rb") as reader, target.open("xb") as writer:
                while data := reader.read(CHUNK_SIZE):
                    seen.update(data)
                    writer.write(data)
            if seen.digest() != digest(file.digest):
                raise BadPackage(f"The stored copy of {file.path} was altered.", hint="Remove it and fetch it again.")
            target.chmod(0o444)


def serve_blobs(store: BlobStore, sent: Progress = lambda done, total: None) -> Callable[[Stream], Awaitable[None]]:
    """The handler of the blob protocol. `sent` hears of every part: (bytes sent of the blob, its size)."""

    async def handler(stream: Stream) -> None:
        messages: MessageStream[GetBlob] = MessageStream(stream, _get_blob)
        while (ask := await messages.recv()) is not None:
            if store.has(ask.digest):
                size = store.size(ask.digest)
                data = store.read(ask.digest, ask.offset, ask.length) if ask.offset < size else b""
                messages.send(BlobPart(size, data))
                sent(ask.offset + len(data), size)
            else:
                messages.send(NoBlob(ask.digest))
            await messages.drain()

    return handler


async def fetch_package(
    open_stream: OpenStream, agent: AgentId, store: BlobStore, progress: Progress = lambda done, total: None
) -> Manifest:
    """Fetch what the store lacks of an agent. Raises BadManifest, BadPackage, StoreFull, NetError.

    `progress` hears (bytes held, bytes of the package). What was fetched before a failure is kept for the next try.
    """
    messages: MessageStream[FromStore] = MessageStream(await open_stream(), _from_store)
    if not store.has(agent):
        await _fetch_manifest(messages, agent, store)
    manifest = store.manifest(agent)
    missing = store.missing(manifest)
    store.reserve(sum(file.size for file in missing))
    held = manifest.size - sum(file.size for file in missing)
    progress(held, manifest.size)
    for file in missing:
        before = held

        def advance(done: int, before: int = before) -> None:
            progress(before + done, manifest.size)

        await _fetch_file(messages, file, store, advance)
        held += file.size
    await messages.stream.close()
    return manifest


async def _fetch_manifest(messages: MessageStream[FromStore], agent: AgentId, store: BlobStore) -> None:
    data = b""
    while True:
        part = await _part(messages, agent, len(data), BLOB_PART)
        data += part.data
        if len(data) >= min(part.size, MAX_MANIFEST) or not part.data:
            break
    if hashlib.sha256(data).digest() != agent:
        raise BadManifest(f"The peer's manifest of agent {short(agent)} has another digest.")
    load(data)
    store.put(data)


async def _part(messages: MessageStream[FromStore], blob: bytes, offset: int, length: int) -> BlobPart:
    messages.send(GetBlob(blob, offset, length))
    await messages.drain()
    return await _answer(messages, blob)


async def _answer(messages: MessageStream[FromStore], blob: bytes) -> BlobPart:
    answer = await messages.recv()
    if not isinstance(answer, BlobPart):
        raise BadPackage(f"The peer does not hold blob {short(blob)}.", hint="Ask another peer.")
    return answer


async def _fetch_file(
    messages: MessageStream[FromStore], file: File, store: BlobStore, advance: Callable[[int], None]
) -> None:
    """Chunk after chunk, each checked before it is written; a partial file goes on from its last whole chunk."""
    blob, part_path = digest(file.digest), store.partial(digest(file.digest))
    chunks = chunk_digests(file)
    done = part_path.stat().st_size // CHUNK_SIZE if part_path.exists() else 0
    with _room(store.folder), part_path.open("r+b" if part_path.exists() else "w+b") as writer:
        writer.truncate(done * CHUNK_SIZE)
        writer.seek(done * CHUNK_SIZE)
        for index in range(done, len(chunks)):
            data = await _fetch_chunk(messages, file, index)
            if hashlib.sha256(data).digest() != chunks[index]:
                raise BadPackage(f"Chunk {index} of {file.path} does not match the manifest.")
            await asyncio.to_thread(writer.write, data)
            advance(min((index + 1) * CHUNK_SIZE, file.size))
    seen = await asyncio.to_thread(_hash_file, part_path)
    if seen != blob:
        part_path.unlink()
        raise BadPackage(f"{file.path} does not have the digest that the manifest names.")
    part_path.replace(store.path(blob))


async def _fetch_chunk(messages: MessageStream[FromStore], file: File, index: int) -> bytes:
    """One chunk as a burst of parts, asked together so that a round trip is paid once."""
    start = index * CHUNK_SIZE
    end = min(start + CHUNK_SIZE, file.size)
    for offset in range(start, end, BLOB_PART):
        messages.send(GetBlob(digest(file.digest), offset, min(BLOB_PART, end - offset)))
    await messages.drain()
    data = bytearray()
    for _ in range(start, end, BLOB_PART):
        data += (await _answer(messages, digest(file.digest))).data
    return bytes(data)


def _hash_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
