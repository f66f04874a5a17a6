"""Whom the libp2p host is connected to: the bootstrap peers for as long as we live, and others that they lead to.

Asks the Kademlia routing table, always with a time limit of its own; nobody ever waits for it. Knows no topics.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Callable

import trio
from libp2p.abc import IHost
from libp2p.kad_dht.kad_dht import KadDHT
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from lading_net.core.places import Place, diverse, place
from lading_net.libp2p.gossip import Settings
from lading_net.libp2p.watch import Watch
from lading_net.peer import Endpoint

DIAL_SECONDS = 8.0
LOOKUP_SECONDS = 10.0
RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
LOOK_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
CHECK_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""A connection that lasts less counts as a failure, so that a peer that hangs up on us is not called without pause."""

PEERS_OF_AREA = 2
"""Of those we found ourselves, so that no one owner of many addresses becomes all that we see."""

FORGET_SECONDS = 60.0
"""How long a discovered peer that did not answer is left alone."""

log = logging.getLogger(__name__)


class Discovery:
    """Runs until cancelled. `report` gets the connected peers' ids (base58) whenever they change."""

    def __init__(self, host: IHost, dht: KadDHT, settings: Settings, report: Callable[[tuple[str, ...]], None]) -> None:
        self._host = host
        self._dht = dht
        self._settings = settings
        self._report = report
        self._watch = Watch()
        self._failed: dict[ID, float] = {}
        self._look = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._kept: set[ID] = set()
        host.get_network().register_notifee(self._watch)

    def meet(self, endpoint: Endpoint) -> None:
        """Somebody told of this peer: stay connected to it, as to those of the bootstrap list."""
        peer = ID.from_base58(str(endpoint.peer))
        if self._nursery is not None and peer != self._host.get_id() and peer not in self._kept:
            self._kept.add(peer)
            self._nursery.start_soon(self._keep_connected, peer, endpoint)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._keep_reporting)
            nursery.start_soon(self._keep_looking)
            for endpoint in self._settings.bootstrap:
                self.meet(endpoint)

    async def _keep_reporting(self) -> None:
        while True:
            await self._watch.change()
            self._report(tuple(peer.to_base58() for peer in self._connected()))
            self._look.set()

    async def _keep_connected(self, peer: ID, endpoint: Endpoint) -> None:
        failures = 0
        while True:
            began = trio.current_time()
            if peer in self._connected() or await self._connect(peer, await _resolve(endpoint)):
                while peer in self._connected():
                    with trio.move_on_after(CHECK_SECONDS):
                        await self._watch.change()
            if trio.current_time() - began > STEADY_SECONDS:
                failures = 0
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
            failures += 1
            await trio.sleep(pause * random.uniform(0.8, 1.2))

    async def _keep_looking(self) -> None:
        """Looks often at first and after a change, then ever less: a quiet network costs next to nothing."""
        quiet = 0
        while True:
            with trio.move_on_after(LOOK_SECONDS[min(quiet, len(LOOK_SECONDS) - 1)] * random.uniform(0.8, 1.2)):
                await self._look.wait()
                await trio.sleep(LOOK_SECONDS[0])
            quiet = 1 if self._look.is_set() else quiet + 1
            self._look = trio.Event()
            connected = self._connected()
            if connected and len(connected) < self._settings.max_peers:
                try:
                    await self._look_around(connected)
                except Exception as error:
                    log.warning("looking for peers failed: %r", error)

    async def _look_around(self, connected: list[ID]) -> None:
        own = self._host.get_id()
        with trio.move_on_after(LOOKUP_SECONDS):
            for peer in connected:
                await self._dht.routing_table.add_peer(peer)
            # Our own neighbourhood in one round, a random place in the next.
            target = own.to_bytes() if random.random() < 0.5 else os.urandom(32)
            await self._dht.peer_routing.find_closest_peers_network(target)
        now = trio.current_time()
        self._failed = {peer: until for peer, until in self._failed.items() if until > now}
        store = self._host.get_peerstore()
        known = [peer for peer in store.peers_with_addrs() if peer != own and peer not in connected]
        fresh = [peer for peer in known if peer not in self._failed]
        random.shuffle(fresh)  # whoever was heard of first, and most, has no advantage
        taken = [there for peer in connected for there in self._places(peer)]
        fresh = diverse(fresh, self._places, taken, PEERS_OF_AREA)[: self._settings.max_peers - len(connected)]
        async with trio.open_nursery() as nursery:
            for peer in fresh:
                nursery.start_soon(self._try, peer)

    def _addresses(self, peer: ID) -> list[Multiaddr]:
        try:
            return self._host.get_peerstore().addrs(peer)
        except PeerStoreError:  # they have expired meanwhile
            return []

    def _places(self, peer: ID) -> list[Place]:
        return [place(parts[2]) for address in self._addresses(peer) if len(parts := str(address).split("/")) > 2]

    async def _try(self, peer: ID) -> None:
        addresses = self._addresses(peer)
        if not addresses:
            return
        if not await self._connect(peer, addresses):
            self._failed[peer] = trio.current_time() + FORGET_SECONDS
            self._dht.routing_table.remove_peer(peer)

    async def _connect(self, peer: ID, addresses: list[Multiaddr]) -> bool:
        network = self._host.get_network()
        if isinstance(network, Swarm):
            network.unblock_peer(peer)  # the library blocks a peer for a minute after one failure; we time retries
        try:
            with trio.move_on_after(DIAL_SECONDS):
                await self._host.connect(PeerInfo(peer, addresses))
                return True
        except Exception as error:
            log.debug("cannot connect to %s: %s", peer, error)
        return False

    def _connected(self) -> list[ID]:
        return [peer for peer in self._host.get_connected_peers() if peer != self._host.get_id()]


async def _resolve(endpoint: Endpoint) -> list[Multiaddr]:
    """The endpoint's address, by name service where it is a name; empty if that does not answer."""
    if endpoint.kind in ("ip4", "ip6"):
        return [Multiaddr(f"/{endpoint.kind}/{endpoint.host}/tcp/{endpoint.port}")]
    found = []
    with trio.move_on_after(DIAL_SECONDS):
        try:
            for family, _, _, _, place in await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            ):
                kind = "ip6" if family == socket.AF_INET6 else "ip4"
                found.append(Multiaddr(f"/{kind}/{place[0]}/tcp/{endpoint.port}"))
        except OSError as error:
            log.debug("cannot resolve %s: %s", endpoint.host, error)
    return found
