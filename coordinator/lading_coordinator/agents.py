"""The agents that this coordinator knows: manifests checked against the chain, and the packages it holds for hosts.

A name is only as good as its registration: a manifest counts when the registry's owner of the digest is the publisher
that the manifest names. Bytes are lading.blobs' business.
"""

import asyncio
import logging
from typing import assert_never

import msgspec

from lading.blobs import BlobStore, fetch_package
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainError
from lading_contracts.events import Condemned, Event, TermsSunsetSet
from lading_coordinator.core.catalogue import Catalogue, Entry
from lading_coordinator.releases import Releases
from lading_coordinator.store import Store
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream, Transport
from lading_protocol.calibration import spec_hash
from lading_protocol.errors import BadManifest, LadingError
from lading_protocol.ids import Address, AgentId, TermsId, short
from lading_protocol.manifest import MAX_MANIFEST, Manifest, agent_id, load
from lading_protocol.messages import (
    BLOB,
    BLOB_PART,
    BlobPart,
    FromPublisher,
    FromStore,
    GetBlob,
    Held,
    Kept,
    Move,
    Publish,
    Refuse,
    Withdraw,
)
from lading_protocol.release import check_package

log = logging.getLogger(__name__)
FETCH_SECONDS = 3600.0
MANIFEST_SECONDS = 20.0
_publish = msgspec.msgpack.Decoder(FromPublisher)
_from_store = msgspec.msgpack.Decoder(FromStore)


class Agents:
    """Fills `catalogue`; `blobs` holds the published packages."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        contracts: Contracts,
        catalogue: Catalogue,
        transport: Transport,
        releases: Releases,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._registry = contracts.registry
        self._domain = contracts.deployment.registry_domain
        self._catalogue = catalogue
        self._transport = transport
        self._looking: set[AgentId] = set()
        self._agreed: dict[tuple[AgentId, TermsId], int] = {}
        self._fetching = asyncio.Semaphore(2)
        for agent, manifest, registered_at in store.rows("select agent, manifest, registered_at from agents"):
            catalogue.add(entry_of(AgentId(agent), load(manifest), registered_at))
        self._releases = releases

    async def serve_publish(self, stream: Stream) -> None:
        """The handler of PUBLISH: fetches a package over the publisher's own link, or keeps a pointer or a yank."""
        messages: MessageStream[Publish | Move | Withdraw] = MessageStream(stream, _publish)
        while (ask := await messages.recv()) is not None:
            try:
                messages.send(await self._do(ask, stream))
            except NetError:
                raise
            except LadingError as error:
                log.info("A %s of %s is refused: %s", type(ask).__name__, short(stream.peer), error)
                messages.send(Refuse(error.code[:64], str(error)[:2000]))
            except TimeoutError:
                late = "The package did not arrive in time. What arrived is kept: publish again."
                messages.send(Refuse("timeout", late))
            await messages.drain()

    async def _do(self, ask: Publish | Move | Withdraw, stream: Stream) -> Held | Kept:
        match ask:
            case Publish():
                async with self._fetching, asyncio.timeout(FETCH_SECONDS):
                    manifest = await self._hold(ask, self._link(stream.peer))
                log.info("Agent %s@%s (%s) is held now", manifest.name, manifest.version, short(ask.agent))
                return Held(ask.agent)
            case Move():
                return await self._releases.move(ask, self.holds)
            case Withdraw():
                return await self._releases.withdraw(ask)
            case _:
                assert_never(ask)

    def knows(self, agent: AgentId) -> bool:
        """Whether its manifest is in the catalogue."""
        return self._catalogue.get(agent) is not None

    def holds(self, agent: AgentId) -> bool:
        """Whether hosts can have the whole package from here."""
        return self._blobs.has(agent) and not self._blobs.missing(self._blobs.manifest(agent))

    async def _hold(self, ask: Publish, link: Link) -> Manifest:
        agent = AgentId(ask.agent)
        terms = await self._registry.terms(ask.terms)
        if terms is None or not terms.belongs_to(agent):
            raise BadManifest("These terms were not agreed for this agent.", hint="Register the agent and its terms.")

        def links() -> list[Link]:
            return [link, *(other for other in self._transport.links() if other is not link)]

        manifest = await fetch_package(links, agent, self._blobs, deltas=True)
        if ask.paper:
            check_package(ask.paper, agent, self._domain, manifest.publisher_address)
        await self._adopt(agent, manifest, self._blobs.read(agent, 0, MAX_MANIFEST))
        return manifest

    async def sold_under(self, agent: AgentId, terms: TermsId) -> bool:
        """Whether the agent's owner agreed these terms: a host that names a table of its own would keep the parties'
        shares. True also while the chain is away; ask again.
        """
        if (agent, terms) not in self._agreed:
            try:
                found = await self._registry.terms(terms)
            except ChainError:
                return True
            if found is None or not found.belongs_to(agent):
                return False
            self._agreed[agent, terms] = found.sunset_at
        return True

    def sunset_of(self, agent: AgentId, terms: TermsId) -> int:
        """From which second on nothing is locked under the terms, as `sold_under` found it; 0: none is announced."""
        return self._agreed.get((agent, terms), 0)

    def notice(self, event: Event) -> None:
        """A sunset was announced, moved or called off: the terms are looked up again when next a host names them."""
        if isinstance(event, TermsSunsetSet | Condemned):
            for known in [known for known in self._agreed if known[1] == event.id]:
                del self._agreed[known]

    async def learn(self, agent: AgentId, host: Address, link: Link | None = None) -> None:
        """Get the manifest of an agent that nobody published here from a linked host that offers it, or over the `link`
        to a coordinator that has such hosts. Failures are logged.
        """
        if self._catalogue.get(agent) is not None or agent in self._looking:
            return
        self._looking.add(agent)
        try:
            async with asyncio.timeout(MANIFEST_SECONDS):
                data = await self._manifest(agent, host, link)
                await self._adopt(agent, load(data), data)
                self._blobs.put(data)  # other coordinators ask here
        except (LadingError, TimeoutError) as error:
            log.info("The manifest of agent %s is not to be had from %s: %s", short(agent), short(host), error)
        finally:
            self._looking.discard(agent)

    async def _manifest(self, agent: AgentId, host: Address, link: Link | None) -> bytes:
        if self._blobs.has(agent):
            return self._blobs.read(agent, 0, MAX_MANIFEST)
        messages: MessageStream[FromStore] = MessageStream(await (link or self._link(host)).open(BLOB), _from_store)
        data = b""
        while True:
            messages.send(GetBlob(agent, len(data), BLOB_PART))
            part = await messages.recv()
            if not isinstance(part, BlobPart) or not 0 < part.size <= MAX_MANIFEST or not part.data:
                raise BadManifest("The host does not give it.")
            data += part.data
            if len(data) >= part.size:
                break
        await messages.close()
        if agent_id(data) != agent:
            raise BadManifest("What the host gave has another digest.")
        return data

    async def _adopt(self, agent: AgentId, manifest: Manifest, data: bytes) -> None:
        """Raises BadManifest, ChainError."""
        registered = await self._registry.agent(agent)
        if registered is None:
            raise BadManifest("The agent is not registered on the chain.", hint="Register it first.")
        if registered.owner != manifest.publisher_address:
            raise BadManifest("The agent is registered by somebody else than its manifest names.")
        self._store.write([("insert or ignore into agents values (?,?,?)", (agent, data, registered.registered_at))])
        self._catalogue.add(entry_of(agent, manifest, registered.registered_at))

    def _link(self, peer: Address) -> Link:
        for link in self._transport.links():
            if link.peer == peer and not link.closed.is_set():
                return link
        raise BadManifest("The link to the peer is gone.", hint="Try again.")


def entry_of(agent: AgentId, manifest: Manifest, registered_at: int) -> Entry:
    return Entry(
        agent=agent,
        name=manifest.name,
        version=manifest.version,
        publisher=manifest.publisher_address,
        operations=manifest.operations,
        context=manifest.context,
        registered_at=registered_at,
        summary=manifest.summary,
        licence=manifest.licence,
        width=manifest.width,
        spec=spec_hash(manifest),
    )
