"""Packs files into a container image: the same bytes for the same files, with no daemon, no registry and no clock.

A layer is a tar sorted by path, with no times and no owners. The archive is an OCI layout and, in the same file, what
`docker load` reads; the digest of its config is the id that an engine gives to the image.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a layer: its bytes, or where they lie; or the target of a symbolic link. A folder has neither."""

    path: str
    data: bytes | Path | None = None
    link: str = ""
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    file: Path
    digest: str
    size: int


class _Hashed:
    """Writes on, and hashes what it wrote."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._target.write(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def write_layer(entries: Iterable[Entry], target: Path) -> Layer:
    """Folders that are not named are made."""
    found = {entry.path: entry for entry in entries}
    for path in list(found):
        for parent in list(Path(path).parents)[:-1]:
            found.setdefault(str(parent), Entry(str(parent)))
    with target.open("wb") as file:
        hashed = _Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
            for path in sorted(found):
                _add(tar, found[path])
    return Layer(target, hashed.digest, hashed.size)


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = 0o755
    if entry.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
    elif entry.data is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.mode = 0o755 if entry.executable else 0o644
        data = entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def write_image(layers: Iterable[Layer], settings: Mapping[str, Any], target: Path, name: str = "") -> str:
    """Write the archive; returns the image's id. `settings` are the config's own: Entrypoint, Env and the like.
    `docker load` calls it `name`."""
    layers = list(layers)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, hashlib.sha256(config).hexdigest(), len(config)),
            "layers": [_descriptor(OCI_LAYER, layer.digest, layer.size) for layer in layers],
        }
    )
    id = hashlib.sha256(config).hexdigest()
    top = hashlib.sha256(manifest).hexdigest()
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(OCI_MANIFEST, top, len(manifest))],
    }
    loaded = [
        {"Config": _blob(id), "RepoTags": [name] if name else None, "Layers": [_blob(layer.digest) for layer in layers]}
    ]
    entries = [
        Entry("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
        Entry("index.json", _json(index)),
        Entry("manifest.json", _json(loaded)),
        Entry(_blob(id), config),
        Entry(_blob(top), manifest),
        *(Entry(_blob(layer.digest), layer.file) for layer in layers),
    ]
    write_layer(entries, target)
    return f"sha256:{id}"


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
