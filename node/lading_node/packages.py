"""Agents on this machine's disk: fetched from all linked peers that hold them, verified, laid out for an engine.

Every byte is checked against the agent's digest each time a node starts. Runs nothing.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from lading.blobs import BlobStore, Hold, fetch_package
from lading_net.ports import Transport
from lading_node.engines.factory import NO_MEANS, Means, lacking
from lading_node.engines.spec import NO_LIMITS, Limits, engine_spec
from lading_node.errors import NoPackage
from lading_node.ports import Package
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId, short
from lading_protocol.manifest import Manifest
from lading_protocol.parts import Runtime

log = logging.getLogger(__name__)


class StoredPackages:
    """Blobs in `store`, agents laid out below `folder`, run with `means` and within `limits`.

    `endpoints` names the model server that the operator gave an agent.
    """

    def __init__(
        self,
        store: BlobStore,
        folder: Path,
        transport: Transport,
        means: Means = NO_MEANS,
        limits: Limits = NO_LIMITS,
        endpoints: Mapping[AgentId, str] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._folder = folder
        self._transport = transport
        self._means = means
        self._limits = limits
        self._endpoints = endpoints
        self._turn = asyncio.Lock()
        self._in_use: dict[AgentId, Hold] = {}

    def has(self, agent: AgentId) -> bool:
        return self._store.has(agent) and not self._store.missing(self._store.manifest(agent))

    async def get(self, agent: AgentId, note: Callable[[str], None]) -> Package:
        async with self._turn:
            if not self.has(agent):
                await self._fetch(agent, note)
            note("The package is being verified.")
            place = self._folder / agent.hex()
            place.parent.mkdir(parents=True, exist_ok=True)
            manifest = await asyncio.to_thread(self._store.materialise, agent, place)
            if agent not in self._in_use:
                self._in_use[agent] = self._store.hold(agent)
        endpoint = self._endpoints.get(agent, "")
        runtime = choose_runtime(manifest, lambda runtime: lacking(runtime, self._means, endpoint))
        spec = engine_spec(manifest, runtime, place, self._limits)
        if runtime.engine == "openai-http":
            spec = msgspec.structs.replace(spec, endpoint=endpoint)
        return Package(agent, manifest, runtime, spec)

    def release(self, agent: AgentId) -> None:
        """The agent is not served any more: what it takes on the disk may go when room is needed."""
        if hold := self._in_use.pop(agent, None):
            hold.release()
            shutil.rmtree(self._folder / agent.hex(), ignore_errors=True)

    async def _fetch(self, agent: AgentId, note: Callable[[str], None]) -> None:
        def progress(done: int, total: int) -> None:
            note(f"Fetching: {done * 100 // max(total, 1)} % of {total:,} bytes.")

        try:
            await fetch_package(self._transport.links, agent, self._store, progress)
        except LadingError as error:
            log.info("agent %s is not to be had: %s", short(agent), error)
            why = error.message
            raise NoPackage(f"The package of agent {short(agent)} is not here and cannot be had: {why}") from error


def choose_runtime(manifest: Manifest, lacks: Callable[[Runtime], str]) -> Runtime:
    """The first that this machine runs: a manifest lists them in order of preference. Raises NoPackage.

    `lacks` says what is missing for one, "" when nothing is.
    """
    reasons = []
    for runtime in manifest.runtimes:
        if not (why := lacks(runtime)):
            return runtime
        reasons.append(f"{runtime.engine}: {why}")
    raise NoPackage(f"This node cannot run {manifest.name!r}: {'; '.join(reasons)}.", hint="")
