"""A package out of an OCI artifact. Its maker may be an enemy: nothing is believed but what the agent's digest proves.

No path of the artifact is used but `blobs/sha256/<digest>`; what a file is called stands in the agent's own manifest.
"""

import hashlib
import json
from pathlib import Path

from lading.errors import BadArtifact
from lading.packages import archive
from lading.packages.archive import BLOBS, Source
from lading.packages.oci import AGENT, IMAGE_MANIFEST, MOST_JSON, MOST_SIGNATURE, MOST_SIGNATURES, SIGNATURE, Json
from lading.packages.store import BlobStore
from lading_protocol.ids import AgentId, digest
from lading_protocol.manifest import MAX_DEPTH, MAX_MANIFEST, load
from lading_protocol.nesting import deeper
from lading_protocol.parts import CHUNK_SIZE, File, chunk_digests
from lading_protocol.transcript import sha256


def import_artifact(path: Path, store: BlobStore) -> AgentId:
    """Takes the package of an OCI layout (folder or tar) in. Raises BadArtifact, BadManifest, StoreFull.

    Every file is checked against the agent's own manifest, chunk by chunk and whole. A failure leaves no package.
    """
    with archive.opened(path) as source:
        whole = _agent_manifest(source)
        data = _blob(source, whole.get("config"), MAX_MANIFEST)
        manifest, layers = load(data), _layers(whole)
        files = [file for file in manifest.files if file.digest in layers or file.role != "delta"]
        store.make_room(sum(file.size for file in files if not store.has(digest(file.digest))))
        for file in files:
            _take(source, store, file, layers)
        return AgentId(store.put(data))


def artifact_signatures(path: Path) -> tuple[bytes, ...]:
    """The signatures that came with a package, unchecked. Raises BadArtifact."""
    found = []
    with archive.opened(path) as source:
        for entry in _entries(source, SIGNATURE)[:MOST_SIGNATURES]:
            referrer = _parse(_blob(source, entry, MOST_JSON))
            for layer in _list(referrer, "layers")[:1]:
                found.append(_blob(source, layer, MOST_SIGNATURE))
    return tuple(found)


def _agent_manifest(source: Source) -> Json:
    if _parse(_small(source, "oci-layout", 1024)).get("imageLayoutVersion") != "1.0.0":
        raise BadArtifact("This is no OCI layout of version 1.0.0.")
    entries = _entries(source, AGENT)
    if len(entries) != 1:
        raise BadArtifact(f"The layout holds {len(entries)} agents; it must be one.")
    return _parse(_blob(source, entries[0], MOST_JSON))


def _entries(source: Source, artifact_type: str) -> list[Json]:
    """Those of the index with this type. Registries' tools drop the type from the index, so the manifests are asked."""
    index = _parse(_small(source, "index.json", MOST_JSON))
    entries = [entry for entry in _list(index, "manifests") if entry.get("mediaType") == IMAGE_MANIFEST]
    if len(entries) > 2 * MOST_SIGNATURES:
        raise BadArtifact("The layout's index has too many entries.")
    return [entry for entry in entries if _kind(_parse(_blob(source, entry, MOST_JSON))) == artifact_type]


def _kind(manifest: Json) -> object:
    config = manifest.get("config")
    return manifest.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)


def _layers(manifest: Json) -> dict[str, int]:
    """The sizes that the layers claim, by digest as our manifests write it."""
    found: dict[str, int] = {}
    for layer in _list(manifest, "layers"):
        name, size = _digest_of(layer)
        if found.setdefault(f"0x{name}", size) != size:
            raise BadArtifact(f"Two layers say different sizes of sha256:{name}.")
    return found


def _take(source: Source, store: BlobStore, file: File, layers: dict[str, int]) -> None:
    if file.digest not in layers:
        raise BadArtifact(f"The artifact has no layer for {file.path}.")
    name = f"{BLOBS}/{file.digest[2:]}"
    if layers[file.digest] != file.size or source.size(name) != file.size:
        raise BadArtifact(f"The layer of {file.path} is not of the size that the agent's manifest says.")
    chunks = chunk_digests(file)
    if file.index is not None:
        index = _small(source, f"{BLOBS}/{file.index[2:]}", 32 * file.chunk_count)
        if sha256(index) != digest(file.index) or len(index) != 32 * file.chunk_count:
            raise BadArtifact(f"The chunk list of {file.path} is not the one that the manifest names.")
        store.put(index)
        chunks = chunk_digests(file, index)
    seen = hashlib.sha256()
    with store.incoming(digest(file.digest), file.size) as writer:
        for number, chunk in enumerate(chunks):
            data = source.read(name, number * CHUNK_SIZE, CHUNK_SIZE)
            if sha256(data) != chunk:
                raise BadArtifact(f"Chunk {number} of {file.path} does not match the manifest.")
            seen.update(data)
            if writer is not None:
                writer.write(data)
        if seen.digest() != digest(file.digest):
            raise BadArtifact(f"{file.path} does not have the digest that the manifest names.")


def _blob(source: Source, descriptor: object, most: int) -> bytes:
    """A small blob, checked against its descriptor."""
    name, size = _digest_of(descriptor)
    data = _small(source, f"{BLOBS}/{name}", most)
    if len(data) != size or sha256(data).hex() != name:
        raise BadArtifact(f"The blob sha256:{name} is not what its descriptor says.")
    return data


def _small(source: Source, name: str, most: int) -> bytes:
    size = source.size(name)
    if size > most:
        raise BadArtifact(f"{name} has {size:,} bytes, over the limit of {most:,}.")
    return source.read(name, 0, size)


def _digest_of(descriptor: object) -> tuple[str, int]:
    if isinstance(descriptor, dict):
        name, size = descriptor.get("digest"), descriptor.get("size")
        if isinstance(name, str) and isinstance(size, int) and 0 <= size <= 2**53 and len(name) == 71:
            try:
                bytes.fromhex(name.removeprefix("sha256:"))
            except ValueError:
                pass
            else:
                return name.removeprefix("sha256:").lower(), size
    raise BadArtifact("The layout has a descriptor that names no sha256 and size.")


def _parse(data: bytes) -> Json:
    if deeper(data, MAX_DEPTH):
        raise BadArtifact("The layout has a JSON file that does not read: it is nested too deep.")
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise BadArtifact(f"The layout has a JSON file that does not read: {error}.") from error
    if not isinstance(tree, dict):
        raise BadArtifact("The layout has a JSON file that is no object.")
    return tree


def _list(tree: Json, name: str) -> list[Json]:
    found = tree.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadArtifact(f"The layout has a JSON file without a list of {name}.")
    return found
