"""What a store holds, package by package, and what may go when room is needed.

Order of going: files that a program left when it died, downloads nobody continued for a week, blobs that no manifest
names, then whole packages, unused longest first. Never: what a kept manifest names, a package that is pinned, held by a
program or used in the last minutes, a file that some program has open to write.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lading.packages.locks import turn, unused
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, digest, short
from lading_protocol.manifest import MAX_MANIFEST, SCHEMA, Manifest

if TYPE_CHECKING:
    from lading.packages.store import BlobStore

PARTIAL_SECONDS = 7 * 86_400.0  # a download that nobody continued
ORPHAN_SECONDS = 3_600.0  # time between a blob and the manifest that names it
RECENT_SECONDS = 600.0  # time between a manifest and the files that it names
_NAME = re.compile("[0-9a-f]{64}")
_MARK = f'"schema":"{SCHEMA}"'.encode()


class Stored(NamedTuple):
    """A package. `size` is what its files take together, `held` how many of these bytes are here, `used` a time."""

    agent: AgentId
    manifest: Manifest
    size: int
    held: int
    used: float
    pinned: bool

    @property
    def whole(self) -> bool:
        return self.held == self.size


def packages(store: "BlobStore") -> list[Stored]:
    """What is held, the package used last first."""
    found = []
    for path, about in _blobs(store):
        manifest = _read(store, path) if about.st_size <= MAX_MANIFEST else None
        if manifest is None:
            continue
        agent = AgentId(bytes.fromhex(path.name))
        needed = [file for file in manifest.files if file.role != "delta"]
        size = sum(file.size for file in needed)
        held = sum(file.size for file in needed if store.has(digest(file.digest)))
        found.append(Stored(agent, manifest, size, held, about.st_mtime, store.pinned(agent)))
    return sorted(found, key=lambda one: -one.used)


def collect(store: "BlobStore", need: int) -> int:
    """Bytes freed: all that nobody needs, then as many packages as `need` asks for."""
    with turn(store.folder):
        freed = _leftovers(store)
        found = packages(store)
        freed += _orphans(store, found)
        while freed < need and (victim := _victim(store, found)) is not None:
            found.remove(victim)
            freed += _remove(store, victim, found)
    return freed


def remove(store: "BlobStore", agent: AgentId) -> int:
    """Bytes freed by removing one package, pinned or not; what others name stays. Raises BadManifest."""
    with turn(store.folder):
        found = packages(store)
        for one in found:
            if one.agent == agent:
                store.unpin(agent)
                return _remove(store, one, [other for other in found if other is not one])
    raise BadManifest(f"Agent {short(agent)} is not in the store.")


def named(manifest: Manifest) -> Iterator[bytes]:
    """The blobs that a manifest needs kept."""
    for file in manifest.files:
        yield digest(file.digest)
        if file.index is not None:
            yield digest(file.index)


def entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder; those that go away meanwhile are passed over."""
    for entry in os.scandir(folder):
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield Path(entry.path), found


def _leftovers(store: "BlobStore") -> int:
    freed, now = 0, store.clock()
    for path, found in entries(store.folder):
        old = path.suffix == ".part" and now - found.st_mtime > PARTIAL_SECONDS
        if (old or path.suffix == ".new") and unused(path):
            freed += _unlink(path)
    return freed


def _orphans(store: "BlobStore", kept: Iterable[Stored]) -> int:
    needed = {blob for one in kept for blob in (one.agent, *named(one.manifest))}
    freed, now = 0, store.clock()
    for path, about in _blobs(store):
        if bytes.fromhex(path.name) not in needed and now - about.st_mtime > ORPHAN_SECONDS:
            freed += _unlink(path)
    return freed


def _victim(store: "BlobStore", found: list[Stored]) -> Stored | None:
    """The package unused longest of those that may go; `found` has the one used last first."""
    now = store.clock()
    for one in reversed(found):
        if not one.pinned and now - one.used > RECENT_SECONDS and not _in_use(store, one):
            return one
    return None


def _in_use(store: "BlobStore", one: Stored) -> bool:
    """Whether some program holds the package, or is fetching it."""
    parts = [store.partial(blob) for blob in named(one.manifest)]
    return any(path.exists() and not unused(path) for path in (store.path(one.agent), *parts))


def _remove(store: "BlobStore", victim: Stored, kept: list[Stored]) -> int:
    needed = {blob for one in kept for blob in (one.agent, *named(one.manifest))}
    freed = 0
    # The manifest goes first: without it, what a kill leaves of the rest is nobody's and goes next time.
    for blob in (victim.agent, *named(victim.manifest)):
        if blob not in needed:
            freed += _unlink(store.path(blob))
            if unused(store.partial(blob)):
                freed += _unlink(store.partial(blob))
    return freed


def _unlink(path: Path) -> int:
    """Bytes that a file took."""
    try:
        found = path.stat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return found.st_size


def _blobs(store: "BlobStore") -> Iterator[tuple[Path, os.stat_result]]:
    return (found for found in entries(store.folder) if _NAME.fullmatch(found[0].name))


def _read(store: "BlobStore", path: Path) -> Manifest | None:
    """The manifest in a blob, None when it is something else."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"{" or _MARK not in file.read():
                return None
        return store.manifest(AgentId(bytes.fromhex(path.name)))
    except (BadManifest, FileNotFoundError):
        return None
