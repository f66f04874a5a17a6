"""Reads a stranger's image archive and says what is wrong with it, before a container engine unpacks a byte of it.

An image is taken only when the engine cannot read it differently: one image, plain layers whose digests its config
names, headers of one dialect, no name that an engine would give it on this machine. Nothing is ever extracted here.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from lading_node.engines.errors import EngineError
from lading_node.engines.tarball import BadTar, Member, walk
from lading_protocol.manifest import MAX_DEPTH
from lading_protocol.nesting import deeper

MOST_LAYERS = 64
MOST_MEMBERS = 512
MOST_ENTRIES = 250_000
MOST_JSON = 1 << 20
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """`ids` are what an engine may call the image: by its config, or (engines on containerd) by its OCI manifest."""

    ids: frozenset[str]
    layers: int
    size: int


def check_archive(path: Path, digest: bytes, machine: str) -> ImageArchive:
    """Raises EngineError. `machine` is the architecture that the image must be for, as images call it."""
    try:
        with path.open("rb") as file:
            if _hash(file, 0, size := path.stat().st_size) != digest:
                _refuse("it is not the file that the manifest names")
            return _Archive(file, size).checked(machine)
    except BadTar as error:
        _refuse(str(error))
    except OSError as error:
        raise EngineError("invalid_package", f"The agent's image cannot be read: {error.strerror}.") from error


def _refuse(why: str) -> NoReturn:
    raise EngineError("invalid_package", f"The agent's image is refused: {why}.")


class _Archive:
    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._members: dict[str, Member] = {}
        for member in walk(file, 0, size):
            if len(self._members) >= MOST_MEMBERS:
                _refuse(f"it has more than {MOST_MEMBERS} members")
            if member.kind not in "05":
                _refuse(f"{member.name!r} is neither a file nor a folder")
            if member.name in self._members:
                _refuse(f"{member.name!r} stands twice in it")
            self._members[member.name] = member

    def checked(self, machine: str) -> ImageArchive:
        listed = self._json("manifest.json", list)
        if len(listed) != 1 or not isinstance(listed[0], dict):
            _refuse("it must hold one image")
        (image,) = listed
        if image.get("repotags") or "repositories" in self._members:
            _refuse("it would name itself on this machine; save it by its id, not by its name")
        layers = image.get("layers")
        if not isinstance(layers, list) or not 1 <= len(layers) <= MOST_LAYERS:
            _refuse(f"it must have 1 to {MOST_LAYERS} layers")
        config = self._config(image.get("config"), machine)
        diffs = self._diffs(config, len(layers))
        entries = 0
        for name, diff in zip(layers, diffs, strict=True):
            entries += self._layer(name, diff, MOST_ENTRIES - entries)
        config_id = self._id(image["config"])
        return ImageArchive(frozenset({config_id} | self._oci(config_id, diffs)), len(layers), self._size)

    def _config(self, name: Any, machine: str) -> dict[str, Any]:
        config: dict[str, Any] = self._json(name, dict)
        if (config.get("os"), config.get("architecture")) != ("linux", machine):
            _refuse(f"it is for {config.get('os')}/{config.get('architecture')}, this machine is linux/{machine}")
        inner = config.get("config") or {}
        if not isinstance(inner, dict) or not (inner.get("entrypoint") or inner.get("cmd")):
            _refuse("its config names no command")
        if inner.get("volumes"):
            _refuse("its config asks for volumes, which would be folders of this machine")
        return config

    def _diffs(self, config: dict[str, Any], count: int) -> list[str]:
        roots = config.get("rootfs")
        diffs = roots.get("diff_ids") if isinstance(roots, dict) else None
        if not isinstance(diffs, list) or len(diffs) != count or not all(isinstance(diff, str) for diff in diffs):
            _refuse(f"it has {count} layers and its config names others")
        return diffs

    def _layer(self, name: Any, diff: str, most: int) -> int:
        """The digest of what is unpacked is that of the file: so it is not compressed, and holds what it says."""
        member = self._member(name)
        if _hash(self._file, member.at, member.size).hex() != diff.removeprefix("sha256:"):
            _refuse(f"the layer {name!r} is compressed, or is not the one that its config names")
        count, links = 0, set[str]()
        for entry in walk(self._file, member.at, member.at + member.size):
            if (count := count + 1) > most:
                _refuse(f"its layers have more than {MOST_ENTRIES} entries")
            _check_entry(entry, links)
        return count

    def _oci(self, config_id: str, diffs: list[str]) -> set[str]:
        """The id of the OCI manifest, when the archive is an OCI layout too; it must be of the same image."""
        if "index.json" not in self._members:
            return set()
        named = self._json("index.json", dict).get("manifests")
        if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], dict):
            _refuse("its index must name one image")
        if named[0].get("annotations"):
            _refuse("its index would name it on this machine")
        digest = named[0].get("digest")
        name = f"blobs/sha256/{str(digest).removeprefix('sha256:')}"
        manifest = self._json(name, dict)
        try:
            same = manifest["config"]["digest"] == config_id and [one["digest"] for one in manifest["layers"]] == diffs
        except (KeyError, TypeError):
            same = False
        if not same or self._id(name) != digest:
            _refuse("its two lists of contents name different images")
        return {str(digest)}

    def _id(self, name: str) -> str:
        member = self._member(name)
        return "sha256:" + _hash(self._file, member.at, member.size).hex()

    def _member(self, name: Any) -> Member:
        member = self._members.get(name) if isinstance(name, str) else None
        if member is None or member.kind != "0":
            _refuse(f"it lacks {str(name)[:100]!r}")
        return member

    def _json(self, name: Any, kind: type) -> Any:
        member = self._member(name)
        if member.size > MOST_JSON:
            _refuse(f"{name!r} is larger than {MOST_JSON} bytes")
        self._file.seek(member.at)
        text = self._file.read(member.size)
        if deeper(text, MAX_DEPTH):
            _refuse(f"{name!r} is nested too deep")
        try:
            found = json.loads(text, object_pairs_hook=_folded)
        except ValueError as error:
            _refuse(f"{name!r} does not read: {str(error)[:100]}")
        if not isinstance(found, kind):
            _refuse(f"{name!r} is not what it should be")
        return found


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keys in lower case: the engine's own reader takes `volumes` for `Volumes`, and the last of two that are alike."""
    found = {key.lower(): value for key, value in pairs}
    if len(found) != len(pairs) or not all(key.isascii() for key, _ in pairs):
        raise ValueError("a key stands twice, or is not plain")
    return found


def _check_entry(entry: Member, links: set[str]) -> None:
    """`links` are the symbolic links of this layer so far: nothing may be put through one."""
    _check_path(entry.name, entry.name)
    if entry.kind == "1":
        _check_path(entry.link, entry.name)
    path = entry.name.strip("/")
    if links and any(parent in links for parent in _parents(path)):
        _refuse(f"{entry.name[:100]!r} lies behind a symbolic link of its own layer")
    if entry.kind == "2":
        links.add(path)
    else:
        links.discard(path)


def _parents(path: str) -> Iterator[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def _check_path(path: str, name: str) -> None:
    if not path or path.startswith("/") or ".." in path.split("/"):
        _refuse(f"{name[:100]!r} points out of the image")


def _hash(file: IO[bytes], at: int, size: int) -> bytes:
    seen = hashlib.sha256()
    file.seek(at)
    while size > 0 and (data := file.read(min(size, _READ))):
        seen.update(data)
        size -= len(data)
    return seen.digest()
