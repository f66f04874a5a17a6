"""A package as an OCI artifact, so that existing registries carry it. The way back is unload.py.

The agent's manifest is the artifact's config blob, so its digest is the agent's id there too; each file is one layer,
uncompressed, under ModelPack's media types where it has one; signatures are referrers. Times and names of machines are
left out: one agent always makes the same artifact. See the OCI image specification 1.1 and the CNCF model-spec.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from lading.errors import BadArtifact
from lading.packages.archive import BLOBS
from lading.packages.chunklist import held_chunks
from lading.packages.oci import (
    AGENT,
    EMPTY,
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    INDEX,
    MEDIA_TYPES,
    PATH,
    REF,
    SIGNATURE,
    TITLE,
    Json,
    descriptor,
    dump_json,
)
from lading.packages.store import BlobStore, room
from lading_protocol.ids import AgentId, digest, short
from lading_protocol.manifest import MAX_MANIFEST, Manifest
from lading_protocol.transcript import sha256


class _Blob(NamedTuple):
    """What the layout holds beside the JSON files: a blob's bytes, or a file of the store."""

    digest: bytes
    size: int
    data: bytes | Path


def export_artifact(store: BlobStore, agent: AgentId, path: Path, signatures: Sequence[bytes] = ()) -> None:
    """Writes an OCI image layout: a tar when the path ends in .tar, else a new folder. Raises BadManifest, BadArtifact.

    Deltas that the store does not hold are left out.
    """
    manifest = store.manifest(agent)
    if lacking := store.missing(manifest):
        raise BadArtifact(f"The store lacks {lacking[0].path} of agent {short(agent)}.", hint="Fetch the agent first.")
    if path.exists():
        raise BadArtifact(f"{path} exists already.", hint="Choose another path.")
    blobs, top = _contents(store, agent, manifest, signatures)
    files: list[tuple[str, int, bytes | Path]] = [
        ("oci-layout", 0, dump_json({"imageLayoutVersion": "1.0.0"})),
        ("index.json", 0, dump_json(top)),
    ]
    files += [(f"{BLOBS}/{blob.digest.hex()}", blob.size, blob.data) for blob in blobs]
    with room(path.parent), _staged(path) as staging:
        (_write_tar if path.suffix == ".tar" else _write_folder)(staging, files)


def _contents(
    store: BlobStore, agent: AgentId, manifest: Manifest, signatures: Sequence[bytes]
) -> tuple[list[_Blob], Json]:
    """The blobs, each once, and the index of the layout."""
    config = store.read(agent, 0, MAX_MANIFEST)
    blobs: dict[bytes, _Blob] = {agent: _Blob(agent, len(config), config)}
    layers = []
    for file in manifest.files:
        blob = digest(file.digest)
        if not store.has(blob):
            continue
        blobs[blob] = _Blob(blob, file.size, store.path(blob))
        layers.append(descriptor(MEDIA_TYPES[file.role], blob, file.size, {PATH: file.path, TITLE: file.path}))
        if file.index is not None and held_chunks(store, file) is not None:
            index = digest(file.index)
            blobs[index] = _Blob(index, store.size(index), store.path(index))
            layers.append(descriptor(INDEX, index, store.size(index), {TITLE: f"{file.path}.chunks"}))
    whole = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": AGENT,
        "config": descriptor(AGENT, agent, len(config)),
        "layers": layers,
    }
    name = {REF: manifest.version, TITLE: manifest.name}
    entries = [_add(blobs, whole) | {"artifactType": AGENT, "annotations": name}]
    subject = {key: entries[0][key] for key in ("mediaType", "digest", "size")}
    for signature in signatures:
        entries.append(_add(blobs, _referrer(blobs, signature, subject)) | {"artifactType": SIGNATURE})
    return list(blobs.values()), {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}


def _referrer(blobs: dict[bytes, _Blob], signature: bytes, subject: Json) -> Json:
    nothing, body = b"{}", sha256(signature)
    blobs[sha256(nothing)] = _Blob(sha256(nothing), len(nothing), nothing)
    blobs[body] = _Blob(body, len(signature), signature)
    return {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": SIGNATURE,
        "config": descriptor(EMPTY, sha256(nothing), len(nothing)),
        "layers": [descriptor(SIGNATURE, body, len(signature))],
        "subject": subject,
    }


def _add(blobs: dict[bytes, _Blob], manifest: Json) -> Json:
    data = dump_json(manifest)
    blobs[sha256(data)] = _Blob(sha256(data), len(data), data)
    return descriptor(IMAGE_MANIFEST, sha256(data), len(data))


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """What is written appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as made:
        yield Path(made) / "layout"
        (Path(made) / "layout").rename(path)


def _write_folder(place: Path, files: Sequence[tuple[str, int, bytes | Path]]) -> None:
    for name, _, data in files:
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Path):
            shutil.copyfile(data, target)
        else:
            target.write_bytes(data)


def _write_tar(place: Path, files: Sequence[tuple[str, int, bytes | Path]]) -> None:
    import tarfile  # for who exports; hosts and coordinators do without

    with tarfile.open(place, "x", format=tarfile.GNU_FORMAT) as tar:
        for name, size, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = size if isinstance(data, Path) else len(data)
            entry.mode = 0o644
            with data.open("rb") if isinstance(data, Path) else BytesIO(data) as reader:
                tar.addfile(entry, reader)
