"""A package from the peers that hold it: manifest, then by the cheapest way what the store lacks of its files.

In this order: what an earlier fetch left, chunks that other files of the store hold, deltas against files of the store,
and the rest chunk by chunk from all peers at once. Whatever stops a fetch, what arrived and was proved stays.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from lading.core.swarm import Rules
from lading.errors import BadPackage, NoSource, StoreFull
from lading.packages.chunklist import chunks_of
from lading.packages.delta import apply_delta
from lading.packages.haul import Haul
from lading.packages.partial import Partial
from lading.packages.reuse import reuse
from lading.packages.store import BlobStore
from lading.packages.whole import Links, fetch_whole
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, digest
from lading_protocol.manifest import MAX_MANIFEST, Manifest, load
from lading_protocol.parts import File

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


async def fetch_package(
    links: Links,
    agent: AgentId,
    store: BlobStore,
    progress: Progress = lambda done, total: None,
    *,
    deltas: bool = False,
    rules: Rules | None = None,
) -> Manifest:
    """Fetch what the store lacks of an agent. Raises BadManifest, BadPackage (NoSource among them), StoreFull.

    `links` is asked again and again for the peers that may hold it, so that those who come later help too. `progress`
    hears (bytes held, bytes of the package). With `deltas` these are kept too, as whoever spreads a package wants it.
    """
    if not store.has(agent):
        store.put(await _manifest(links, agent))
    manifest = store.manifest(agent)
    store.touch(agent)
    await _Fetch(links, store, manifest, progress, deltas, rules).run()
    return manifest


async def _manifest(links: Links, agent: AgentId) -> bytes:
    try:
        data = await fetch_whole(links, agent, MAX_MANIFEST)
    except NoSource as error:
        raise BadManifest(f"The manifest of agent {error.message}", hint=error.hint) from None
    load(data)
    return data


class _Fetch:
    def __init__(
        self,
        links: Links,
        store: BlobStore,
        manifest: Manifest,
        progress: Progress,
        deltas: bool,
        rules: Rules | None,
    ) -> None:
        self._links = links
        self._store = store
        self._manifest = manifest
        self._progress = progress
        self._files = [file for file in manifest.files if deltas or file.role != "delta"]
        self._total = sum(file.size for file in self._files)
        self._held = self._total - sum(file.size for file in self._missing())
        self._keep_deltas = deltas
        self._rules = rules

    async def run(self) -> None:
        self._progress(self._held, self._total)
        missing = self._missing()
        needed = sum(file.size for file in missing if not self._store.partial(digest(file.digest)).exists())
        await asyncio.to_thread(self._store.make_room, needed)
        for file in self._files:
            await chunks_of(self._store, file, self._links)
        for file in missing:
            await self._by_delta(file)
        await self._bring(self._missing(), self._advance)

    def _missing(self) -> list[File]:
        """Each blob once, though several paths may name it."""
        lacking = {file.digest: file for file in self._files if not self._store.has(digest(file.digest))}
        return list(lacking.values())

    def _advance(self, size: int) -> None:
        self._held = min(self._held + size, self._total)
        self._progress(self._held, self._total)

    async def _by_delta(self, file: File) -> None:
        """Makes a missing file out of one that the store holds, where the package has a shorter way between them.

        When that fails, for whatever reason, the file is fetched as any other.
        """
        delta = self._delta_for(file)
        if delta is None:
            return
        try:
            await self._bring([delta], self._advance if self._keep_deltas else lambda size: None)
            await asyncio.to_thread(apply_delta, self._store, delta, file)
            self._advance(file.size)
        except (BadPackage, StoreFull) as error:
            log.info("The delta for %s is of no use: %s", file.path, error)
        finally:
            if not self._keep_deltas:
                self._store.path(digest(delta.digest)).unlink(missing_ok=True)

    def _delta_for(self, file: File) -> File | None:
        """The smallest that saves something, counting what an earlier fetch of the whole file has left."""
        part = self._store.partial(digest(file.digest))
        lacking = file.size - (part.stat().st_blocks * 512 if part.exists() else 0)
        useful = [
            delta
            for delta in self._manifest.files
            if delta.role == "delta"
            and delta.target == file.digest
            and delta.base is not None
            and delta.size < lacking
            and self._store.has(digest(delta.base))
        ]
        return min(useful, key=lambda delta: delta.size, default=None)

    async def _bring(self, files: Sequence[File], landed: Callable[[int], None]) -> None:
        with ExitStack() as stack:
            partials = []
            for file in files:
                chunks = await chunks_of(self._store, file, self._links)
                partial = await asyncio.to_thread(Partial, self._store, file, chunks)
                stack.callback(partial.close)
                partials.append(partial)
                landed(await asyncio.to_thread(partial.recover))
            landed(await asyncio.to_thread(reuse, self._store, partials))
            await Haul(partials, self._links, landed, self._rules).run()
            # All at once: what they write to the disk's journal goes there together.
            await asyncio.gather(*(asyncio.to_thread(partial.finish) for partial in partials))
