"""Where direct links come from: listening, dialling, and one live link per peer whoever dialled.

Owns the servers and the list of links. Two peers that dial each other at once get two links; both ends then prefer the
one that the lower address dialled, and the other closes when it is idle.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable

from lading_net.core.guard import Guard
from lading_net.core.places import Place, place
from lading_net.direct import manners
from lading_net.direct.circuit import Reservation, StreamPipe, accept, connect, reserve
from lading_net.direct.door import Door, listening_sockets
from lading_net.direct.link import DirectLink
from lading_net.direct.noise import Credentials, Identity
from lading_net.direct.pool import Pool
from lading_net.direct.protected import ProtectedSocket
from lading_net.direct.relaywire import STOP
from lading_net.direct.settings import DirectSettings
from lading_net.direct.socket import LinkSocket
from lading_net.direct.stream import DirectStream
from lading_net.errors import (
    BadEndpoint,
    DialFailed,
    HandshakeFailed,
    LinkClosed,
    ListenFailed,
    NetError,
    NetTimeout,
    PeerBarred,
    PortInUse,
    WrongPeer,
)
from lading_net.peer import Endpoint
from lading_net.ports import Link, LinkCallback, Stream, StreamHandler
from lading_protocol.ids import Address

_log = logging.getLogger(__name__)
_FAMILIES = {
    "ip4": socket.AF_INET,
    "dns4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
}


class DirectTransport:
    """Implements ports.Transport over TCP, Noise and yamux."""

    def __init__(self, key: Identity, settings: DirectSettings | None = None) -> None:
        self._settings = settings or DirectSettings()
        self._mine = Credentials(key)
        self.peer_id = self._mine.peer_id
        self.address = self.peer_id.address
        self._handlers: dict[str, StreamHandler] = {
            manners.IDENTIFY: self._introduce,
            manners.PUSH: manners.pass_over,
            manners.PING: manners.echo,
        }
        self._listening: list[Endpoint] = []
        self._callbacks: list[LinkCallback] = []
        self._doors: list[Door] = []
        self._links: dict[Address, list[DirectLink]] = {}
        self._dials: dict[str, asyncio.Task[DirectLink]] = {}
        self._arriving: set[LinkSocket] = set()
        self.guard: Guard[LinkSocket, DirectLink] = Guard(self._settings.guard)
        sizes = (self._settings.memory, self._settings.queued, self._settings.streams)
        self._pool = Pool(*sizes, self._settings.openings, self.guard.refused)
        self.when_brought: Callable[[DirectLink], Awaitable[None]] | None = None
        self._relayed: set[asyncio.Task[None]] = set()
        self._closed = False

    async def listen(self, endpoint: str) -> str:
        where = Endpoint.parse(endpoint)
        if where.peer is not None and where.peer != self.peer_id:
            raise BadEndpoint(f"{endpoint} carries the id of another peer.")
        self._check_open()
        try:
            sockets = await listening_sockets(where.host, where.port, _FAMILIES[where.kind])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(f"Port {where.port} of {where.host} is in use by another program.") from None
            raise ListenFailed(f"Cannot listen at {where.host} port {where.port}: {_reason(error)}.") from None
        self._doors.append(Door(sockets, self._admit))
        self._listening.append(Endpoint(where.kind, where.host, self._doors[-1].port, self.peer_id))
        return str(self._listening[-1])

    async def dial(self, endpoint: str, expect: Address | None = None) -> DirectLink:
        where = Endpoint.parse(endpoint)
        self._check_open()
        named = where.peer.address if where.peer else None
        if expect is not None and named is not None and named != expect:
            raise WrongPeer(f"{endpoint} names another peer than the expected 0x{expect.hex()}.")
        expect = expect or named
        if expect == self.address:
            raise BadEndpoint(f"{endpoint} is this program itself.")
        known = self._best(expect) if expect is not None else None
        if known is not None and (where.via is not None or not known.relayed):
            return known  # a link through a relay does not keep from trying the straight way
        self._check_conduct(expect)
        name = f"{where.host} {where.port} {where.via or ''} {expect.hex() if expect else ''}"
        task = self._dials.get(name)
        if task is None:
            task = self._dials[name] = asyncio.get_running_loop().create_task(self._connect(where, expect))
            task.add_done_callback(lambda done: self._dialled(name, done))
        try:
            link = await asyncio.shield(task)
        except NetError as error:
            raise type(error)(error.message) from None  # its own traceback for each of those who wait
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if not task.cancelled() or (me is not None and me.cancelling()):
                raise  # the caller itself was cancelled, perhaps at the same moment: that must not get lost
            raise LinkClosed("The network was closed while dialling.") from None
        return self._best(link.peer) or link

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    def on_link(self, callback: LinkCallback) -> None:
        self._callbacks.append(callback)

    def links(self, peer: Address | None = None) -> list[Link]:
        if peer is not None:
            only = self._best(peer)
            return [] if only is None else [only]
        best = [self._best(each) for each in self._links]
        return [link for link in best if link is not None]

    def link_to(self, peer: Address) -> DirectLink | None:
        """The live link to that peer with nobody between, if there is one."""
        best = self._best(peer)
        return None if best is None or best.relayed else best

    def stranger(self, key: Identity) -> DirectTransport:
        """A transport of another name in the same network, to call a peer with as somebody new."""
        return DirectTransport(key, self._settings)

    async def reserve(self, link: DirectLink) -> Reservation:
        """Asks the peer to relay others to us, and from now on takes what relays bring. Raises NetError."""
        self.handle(STOP, self._brought)
        return await reserve(link, self.peer_id)

    async def close(self) -> None:
        self._closed = True
        for door in self._doors:
            door.close()
        for task in list(self._dials.values()):
            task.cancel()
        await asyncio.gather(*self._dials.values(), return_exceptions=True)
        for arriving in list(self._arriving):
            arriving.drop(LinkClosed("The network was closed."))
        links = [link for known in self._links.values() for link in known]
        for link in links:
            await link.end_handlers()
        await asyncio.gather(*(link.close() for link in links))
        for running in list(self._relayed):
            running.cancel()
        await asyncio.gather(*self._relayed, return_exceptions=True)
        for door in self._doors:
            await door.wait_closed()
        self._doors.clear()

    async def _introduce(self, stream: Stream) -> None:
        caller = stream.seen_at if isinstance(stream, DirectStream) else None
        stream.write(manners.introduction(self.peer_id, self._listening, self._handlers, caller, "lading"))

    # -- accepting

    def _admit(self, host: str) -> LinkSocket | None:
        where = place(host)
        if self._closed or not self.guard.hears(where, self._now()):
            return None
        arriving = self._socket(dialled=False, expect=None)
        leaving = self.guard.calls(arriving, where)
        for one in leaving:
            one.give_up(NetTimeout("It took its time, and others needed its place."))
        if arriving in leaving:
            return None
        self._arriving.add(arriving)
        arriving.ready.add_done_callback(lambda ready: self._arrived(arriving, where, ready))
        return arriving

    def _arrived(self, arriving: LinkSocket, where: Place, ready: asyncio.Future[DirectLink]) -> None:
        self._arriving.discard(arriving)
        self.guard.called(arriving)
        if (error := _seen(ready)) is not None:
            _log.debug("an inbound connection failed: %s", error)
            if isinstance(error, HandshakeFailed | NetTimeout):
                self.guard.failed(where, self._now())
        elif not ready.cancelled() and self._fits(ready.result(), where):
            self._register(ready.result())

    def _fits(self, link: DirectLink, where: Place) -> bool:
        """Makes room for a link, or closes it."""
        if self.guard.barred_for(link.peer, self._now()) > 0:
            link.turn_away("The peer broke the protocol before.")
            return False
        leaving = self.guard.joins(link, where, lambda one: one.idle)
        for one in leaving:
            one.turn_away("Others needed its place.")
        return link not in leaving

    # -- dialling

    async def _connect(self, where: Endpoint, expect: Address | None) -> DirectLink:
        if where.via is not None:
            return await self._connect_through(where)
        await self._take_turn(where)
        loop = asyncio.get_running_loop()
        dialling = self._socket(dialled=True, expect=expect)
        try:
            async with asyncio.timeout(self._settings.dial_timeout):
                await loop.create_connection(lambda: dialling, where.host, where.port, family=_FAMILIES[where.kind])
                link = await dialling.ready
                dialling.taken = True
        except TimeoutError:
            raise NetTimeout(f"{where} did not answer within {self._settings.dial_timeout:g} s.") from None
        except OSError as error:
            raise DialFailed(f"Cannot connect to {where}: {_reason(error)}.") from None
        finally:
            dialling.drop(LinkClosed("The dial was given up."))
            dialling.ready.add_done_callback(_seen)
        self._register(link)
        return link

    async def _take_turn(self, where: Endpoint) -> None:
        there, until = place(where.host), self._now() + self._settings.dial_timeout
        while (wait := self.guard.dial_wait(there, self._now())) > 0:
            if self._now() + wait > until:
                raise DialFailed(f"{where} was called too often of late.", hint="Try again in a while.")
            await asyncio.sleep(wait)

    async def _connect_through(self, where: Endpoint) -> DirectLink:
        """A link to a peer behind a relay, with a link to the relay under it."""
        assert where.peer is not None
        relay = await self.dial(str(where.relay), None)
        if relay.relayed:
            raise DialFailed(f"The relay {where.relay} is itself reached through a relay only.")
        stream, first = await connect(relay, where.peer)
        return await self._over(stream, first, dialled=True, expect=where.peer.address)

    async def _brought(self, stream: Stream) -> None:
        """The handler of STOP: a relay has a caller for us. Lasts as long as the link through it."""
        assert isinstance(stream, DirectStream)
        caller, first = await accept(stream)
        link = await self._over(stream, first, dialled=False, expect=caller.address)
        if self.when_brought is not None:
            await self.when_brought(link)
        await link.closed.wait()

    async def adopt(self, made: socket.socket, peer: Address, *, dialled: bool) -> DirectLink:
        """A link over a TCP connection that was made elsewhere; the socket is the link's from now on.

        `dialled`: this end speaks first. Raises NetError.
        """
        self._check_open()
        arriving = self._socket(dialled=dialled, expect=peer)
        try:
            await asyncio.get_running_loop().create_connection(lambda: arriving, sock=made)
            link = await arriving.ready
            arriving.taken = True
        except OSError as error:
            raise DialFailed(f"The connection did not last: {_reason(error)}.") from None
        finally:
            arriving.drop(LinkClosed("The dial was given up."))
            arriving.ready.add_done_callback(_seen)
        self._register(link)
        return link

    async def _over(self, stream: DirectStream, first: bytes, *, dialled: bool, expect: Address) -> DirectLink:
        """Makes a link over a stream of another link."""
        socket = self._socket(dialled=dialled, expect=expect)
        running = asyncio.get_running_loop().create_task(StreamPipe(stream, socket).run(first))
        self._relayed.add(running)
        running.add_done_callback(self._relayed.discard)
        try:
            link = await socket.ready
            socket.taken = True
        finally:
            socket.drop(LinkClosed("The dial was given up."))
            socket.ready.add_done_callback(_seen)
        link.relayed = True
        self._register(link)
        return link

    def _dialled(self, name: str, task: asyncio.Task[DirectLink]) -> None:
        self._dials.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen, even when nobody waits for it any more

    # -- keeping

    def _socket(self, dialled: bool, expect: Address | None) -> LinkSocket:
        network = self._settings.network
        rest = (self._mine, expect, self._handlers.get, self._settings, self._pool)
        return LinkSocket(dialled, *rest) if network is None else ProtectedSocket(network, dialled, *rest)

    def _register(self, link: DirectLink) -> None:
        if link.lost:
            return
        if self._closed:
            link.turn_away("The network was closed.")
            return
        known = self._links.setdefault(link.peer, [])
        for older in known:
            older.probe()  # perhaps it is dead and the peer knows it
        known.append(link)
        for older in list(known[: -self._settings.guard.links_of_peer]):
            older.turn_away("The peer has newer links.")
        link.when_over(self._forget)
        best = self._best(link.peer)
        for each in known:
            if each is not best:
                each.retire()
        for callback in self._callbacks:
            try:
                callback(link)
            except Exception:
                _log.exception("a callback for new links failed")

    def _forget(self, link: DirectLink) -> None:
        limits = self._settings.guard
        self.guard.parts(link)
        if points := limits.violation * link.violated + limits.excess * link.excess:
            self.guard.blame(link.peer, points, self._now(), link.machine)
        known = self._links.get(link.peer, [])
        if link in known:
            known.remove(link)
        if not known:
            self._links.pop(link.peer, None)

    def _best(self, peer: Address) -> DirectLink | None:
        """The link both ends agree on: not through a relay, if possible; the one the lower address dialled; of several
        the newest."""
        known = self._links.get(peer)
        if known is None:
            return None
        if len(known) == 1:
            return None if known[0].lost else known[0]
        links = [link for link in known if not link.lost]
        return min(reversed(links), key=self._worse, default=None)

    def _worse(self, link: DirectLink) -> tuple[bool, Address]:
        return link.relayed, self.address if link.dialled else link.peer

    def _check_conduct(self, peer: Address | None) -> None:
        if peer is not None and (wait := self.guard.barred_for(peer, self._now())) > 0:
            raise PeerBarred(f"0x{peer.hex()} broke the protocol; it is left alone for another {wait:.0f} s.")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _check_open(self) -> None:
        if self._closed:
            raise LinkClosed("The network was closed.")


def _seen(ready: asyncio.Future[DirectLink]) -> BaseException | None:
    return None if ready.cancelled() else ready.exception()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).rstrip(".")
