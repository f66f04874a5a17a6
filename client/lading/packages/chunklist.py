"""The chunk hashes of a file, wherever they stand: in the manifest, or for a large file in a blob of their own."""

from lading.errors import BadPackage
from lading.packages.store import BlobStore
from lading.packages.whole import Links, fetch_whole
from lading_protocol.ids import Digest, digest
from lading_protocol.parts import File, chunk_digests
from lading_protocol.transcript import sha256


def held_chunks(store: BlobStore, file: File) -> list[Digest] | None:
    """None when the store lacks the list, or holds one that is not of this file's length."""
    if file.index is None:
        return chunk_digests(file)
    index = digest(file.index)
    if not store.has(index) or store.size(index) != 32 * file.chunk_count:
        return None
    data = store.read(index, 0, 32 * file.chunk_count)
    if sha256(data) != index:  # altered on this disk: it would make honest peers look like liars
        store.path(index).unlink(missing_ok=True)
        return None
    return chunk_digests(file, data)


async def chunks_of(store: BlobStore, file: File, links: Links) -> list[Digest]:
    """Fetches the list when the store lacks it. Raises NoSource, BadPackage, StoreFull."""
    found = held_chunks(store, file)
    if found is None and file.index is not None:
        size = 32 * file.chunk_count
        data = await fetch_whole(links, digest(file.index), size)
        if len(data) != size:
            raise BadPackage(f"The chunk list of {file.path} is not of the length that its size needs.")
        store.put(data)
        found = held_chunks(store, file)
    if found is None:
        raise BadPackage(f"The chunk list of {file.path} cannot be read.")
    return found
