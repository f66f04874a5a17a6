"""One peer's Transport in memory: listening, dialling, serving protocols.

What travels over a link is `link`'s, what the weather does to it is `network`'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from lading_net.errors import BadEndpoint, DialFailed, LinkClosed, NetError, NetTimeout, PortInUse, WrongPeer
from lading_net.memory.link import MemoryLink, MemoryStream
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Address, Link, LinkCallback, StreamHandler

if TYPE_CHECKING:
    from lading_net.memory.network import MemoryNetwork

ROUND_TRIPS = 3
"""What a new link costs: TCP, Noise, and the choice of the multiplexer."""

KNOCKS = (1.0, 2.0, 4.0)
"""Seconds between attempts at a peer that does not answer, as TCP does; then NetTimeout."""

log = logging.getLogger(__name__)


class MemoryTransport:
    """Made by MemoryNetwork.transport()."""

    def __init__(self, network: MemoryNetwork, peer_id: PeerId) -> None:
        self._network = network
        self.address = peer_id.address
        self.peer_id = peer_id
        self._links: dict[Address, MemoryLink] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._callbacks: list[LinkCallback] = []
        self._dials: dict[tuple[str, int, Address | None], asyncio.Task[MemoryLink]] = {}
        self._serving: dict[asyncio.Task[None], None] = {}
        self._closed = False

    # The port

    async def listen(self, endpoint: str) -> str:
        self._must_live()
        place = Endpoint.parse(endpoint)
        if place.peer is not None and place.peer != self.peer_id:
            raise BadEndpoint(f"{endpoint} carries the id of another peer.")
        port = place.port or self._network.free_port()
        if not self._network.bind(place.host, port, self):
            raise PortInUse(f"Another program listens on port {port} of {place.host}.")
        return str(Endpoint(place.kind, place.host, port, self.peer_id))

    async def dial(self, endpoint: str, expect: Address | None = None) -> MemoryLink:
        self._must_live()
        place = Endpoint.parse(endpoint)
        named = place.peer.address if place.peer else None
        if expect is not None and named is not None and named != expect:
            raise WrongPeer(f"{endpoint} names another peer than the expected 0x{expect.hex()}.")
        wanted = expect or named
        if wanted == self.address:
            raise BadEndpoint(f"{endpoint} is this program itself.")
        if wanted is not None and (link := self._links.get(wanted)) is not None:
            return link
        key = (place.host, place.port, wanted)
        task = self._dials.get(key)
        if task is None:
            task = self._dials[key] = self._network.loop.create_task(self._connect(*key))
            task.add_done_callback(lambda done: self._dialled(key, done))
        try:
            return await asyncio.shield(task)
        except NetError as error:
            raise type(error)(error.message) from None  # its own traceback for each of those who wait
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if not task.cancelled() or (me is not None and me.cancelling()):
                raise  # the caller itself was cancelled, perhaps at the same moment: that must not get lost
            raise LinkClosed("This peer's network was closed.") from None

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    def on_link(self, callback: LinkCallback) -> None:
        self._callbacks.append(callback)

    def links(self, peer: Address | None = None) -> list[Link]:
        if peer is None:
            return list(self._links.values())
        link = self._links.get(peer)
        return [] if link is None else [link]

    async def close(self) -> None:
        ending = self.kill()
        await asyncio.gather(*ending, return_exceptions=True)

    # For the network and the links

    def kill(self) -> list[asyncio.Task[None]]:
        """Ends everything at once; returns the handlers that are still on their way out."""
        self._closed = True
        self._network.forget(self)
        for dial in list(self._dials.values()):
            dial.cancel()
        for link in list(self._links.values()):
            link.hang_up()
        me = asyncio.current_task()
        ending = [task for task in self._serving if task is not me]
        for task in ending:
            task.cancel()
        return ending

    def link_to(self, peer: Address) -> MemoryLink | None:
        return self._links.get(peer)

    def live_links(self) -> list[MemoryLink]:
        return list(self._links.values())

    def adopt(self, link: MemoryLink) -> None:
        self._links[link.peer] = link
        for callback in self._callbacks:
            callback(link)

    def gone(self, link: MemoryLink) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]

    def serve(self, stream: MemoryStream) -> bool:
        """Starts the handler of a stream the peer opened; False if there is none."""
        handler = self._handlers.get(stream.protocol)
        if handler is None:
            return False
        task = self._network.loop.create_task(_run(handler, stream))
        self._serving[task] = None
        task.add_done_callback(lambda done: self._serving.pop(done, None))
        return True

    def _must_live(self) -> None:
        if self._closed:
            raise LinkClosed("This peer's network was closed.")

    def _dialled(self, key: tuple[str, int, Address | None], task: asyncio.Task[MemoryLink]) -> None:
        self._dials.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, even when nobody waits for it any more

    async def _connect(self, host: str, port: int, wanted: Address | None) -> MemoryLink:
        target = self._network.listener(host, port)
        await asyncio.sleep(0)
        if target is None or target is self:
            raise DialFailed(f"Nobody listens on port {port} of {host}.")
        path = self._network.path(self.address, target.address)
        for pause in KNOCKS:
            if path.open:
                break
            await asyncio.sleep(pause)
        if not path.open:
            raise NetTimeout(f"The peer at {host} port {port} does not answer.")
        await asyncio.sleep(2 * ROUND_TRIPS * path.late())
        if self._network.listener(host, port) is not target or not path.open or path.lost():
            raise DialFailed(f"The peer at {host} port {port} went away while we connected.")
        if wanted is not None and target.address != wanted:
            raise WrongPeer(f"The peer at {host} port {port} proved to be 0x{target.address.hex()}.")
        if (link := self._links.get(target.address)) is not None:
            return link
        here, there = MemoryLink(self, target.address, path), MemoryLink(target, self.address, path)
        here.twin, there.twin = there, here
        target.adopt(there)
        self.adopt(here)
        return here


async def _run(handler: StreamHandler, stream: MemoryStream) -> None:
    try:
        await handler(stream)
    except asyncio.CancelledError:
        stream.reset()
        raise
    except Exception as error:
        stream.reset()
        level = logging.DEBUG if isinstance(error, NetError) else logging.ERROR
        log.log(level, "the handler of %s failed", stream.protocol, exc_info=error)
    else:
        await stream.close()
