"""The trio side: one py-libp2p host with gossip and a Kademlia routing table, its settings, and its end.

Imported in the libp2p thread only. Whom to connect to is `discovery`'s; what messages mean is nobody's here.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from typing import Protocol, cast

import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.common import PROTOCOL_ID as KAD
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerstore import create_signed_peer_record
from libp2p.pubsub.pubsub import Pubsub
from libp2p.rcmgr import new_resource_manager
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from lading_net.errors import ListenFailed, PortInUse
from lading_net.libp2p.discovery import Discovery
from lading_net.libp2p.gossip import Settings
from lading_net.libp2p.handover import Handover
from lading_net.libp2p.private import PrivateTCP
from lading_net.libp2p.pubsub import SturdyPubsub, guarded, make_router
from lading_net.peer import Endpoint

OUTBOX = 1_024
MAX_CONNECTIONS = 256
CLOSING_SECONDS = 1.0
_MEET = ""  # a topic that no message has: the data is an endpoint
Work = trio.MemoryReceiveChannel[tuple[str, bytes | bool]]
"""What the program wants done: a message for a topic, or with True or False to be in it or not."""

log = logging.getLogger(__name__)
# The library logs an error for every peer that hangs up; what matters reaches us as an exception.
for _name in ("libp2p", "libp2p.network.auto_connector"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Outlet(Protocol):
    """Who hears what happens; called in the libp2p thread."""

    def listening(self, endpoint: Endpoint) -> None: ...
    def received(self, topic: str, data: bytes) -> None: ...
    def connected(self, peers: tuple[str, ...]) -> None: ...
    def subscriptions(self) -> tuple[str, ...]: ...


class Host:
    """One life of the host: run() once. publish(), subscribe(), leave() and stop() may be called from any thread."""

    def __init__(self, settings: Settings, outlet: Outlet) -> None:
        self._settings = settings
        self._outlet = outlet
        self._lock = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopped = False
        self._work: trio.MemorySendChannel[tuple[str, bytes | bool]] | None = None
        self._outbox: Handover[tuple[str, bytes | bool]] = Handover(OUTBOX, self._in_trio, self._enqueue)

    def publish(self, topic: str, data: bytes) -> None:
        self._outbox.put((topic, data))

    def subscribe(self, topic: str) -> None:
        self._outbox.put((topic, True))

    def leave(self, topic: str) -> None:
        self._outbox.put((topic, False))

    def meet(self, endpoint: Endpoint) -> None:
        """Try to connect to this peer, and keep trying."""
        self._outbox.put((_MEET, str(endpoint).encode()))

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._end_work)
            except trio.RunFinishedError:
                pass

    def run(self) -> None:
        """Serves until stop(). Raises PortInUse, ListenFailed, or whatever the library dies of."""
        trio.run(self._main)

    async def _main(self) -> None:
        self._work, work = trio.open_memory_channel[tuple[str, bytes | bool]](OUTBOX)
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            if self._stopped:
                return
        await self._serve(work)

    def _end_work(self) -> None:
        if self._work is not None:
            self._work.close()
            self._work = None

    async def _serve(self, work: Work) -> None:
        listen = _bindable(self._settings.listen)
        address = Multiaddr(str(_bare(listen)))
        host = self._host(address)
        router = make_router()
        pubsub = SturdyPubsub(host, router, self._outlet.received)
        dht = KadDHT(host, DHTMode.SERVER)
        host.set_stream_handler(KAD, guarded(dht.handle_stream))
        discovery = Discovery(host, dht, self._settings, self._outlet.connected)
        try:
            async with host.run([address]), background_trio_service(pubsub), background_trio_service(router):
                if not host.get_network().listeners:
                    raise ListenFailed(f"Cannot listen at {_bare(listen)}.")
                await _get_ready(host, pubsub, self._outlet.subscriptions())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(discovery.run)
                    self._outlet.listening(listen)
                    await self._work_until_stopped(pubsub, discovery, work)
                    nursery.cancel_scope.cancel()
                await _hang_up(host)
        finally:
            pubsub.seen_messages.stop()  # a thread of the library's

    async def _work_until_stopped(self, pubsub: Pubsub, discovery: Discovery, work: Work) -> None:
        self._outbox.drain()
        async for topic, data in work:
            if data is True:
                await pubsub.subscribe(topic)
            elif data is False:
                await pubsub.unsubscribe(topic)
            elif topic == _MEET:
                discovery.meet(Endpoint.parse(data.decode()))
            else:
                await pubsub.publish(topic, data)

    def _host(self, address: Multiaddr) -> IHost:
        """Noise and yamux only: the library's own list would fall back to plaintext."""
        keys = create_new_key_pair(self._settings.secret)
        noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
        network = self._settings.network
        announce = [Multiaddr(str(_bare(endpoint))) for endpoint in self._settings.announce]
        return new_host(
            key_pair=keys,
            sec_opt={NOISE: noise},
            muxer_opt={TProtocol(YAMUX): Yamux},
            listen_addrs=[address],
            transports=[PrivateTCP(network) if network is not None else TCP()],
            addrs_factory=lambda candidates: announce or [one for each in candidates for one in _expand(each)],
            disable_identify_address_discovery=True,
            connection_config=ConnectionConfig(
                max_connections=MAX_CONNECTIONS,
                # The library's own connector stays idle; whom to dial, and when, is discovery's.
                min_connections=0,
                low_watermark=0,
                high_watermark=MAX_CONNECTIONS,
                auto_connect_interval=1e9,
                dial_timeout=5.0,
            ),
            # The library would measure this whole process's memory, models included, and refuse peers for it.
            resource_manager=new_resource_manager(
                limits=ResourceLimits(max_connections=MAX_CONNECTIONS, max_memory_mb=1 << 20),
                enable_memory_limits=False,
                enable_memory_pooling=False,
                enable_circuit_breaker=False,
                enable_graceful_degradation=False,
                enable_metrics=False,
            ),
        )

    def _in_trio(self, call: object) -> None:
        with self._lock:
            token = self._token
        if token is None:
            return
        try:
            token.run_sync_soon(self._outbox.drain)
        except trio.RunFinishedError:
            pass

    def _enqueue(self, item: tuple[str, bytes | bool]) -> None:
        if self._work is not None:
            try:
                self._work.send_nowait(item)
            except trio.WouldBlock:
                self._outbox.lost += 1


async def _get_ready(host: IHost, pubsub: Pubsub, topics: tuple[str, ...]) -> None:
    await pubsub.wait_until_ready()
    # The record that the library signed at construction knows no address yet.
    record = create_signed_peer_record(host.get_id(), host.get_addrs(), host.get_private_key())
    host.get_peerstore().set_local_record(record)
    for topic in topics:
        await pubsub.subscribe(topic)


async def _hang_up(host: IHost) -> None:
    """Closes every connection, so that peers learn of it now; the library would leave some of their sockets open."""
    network = host.get_network()
    with trio.move_on_after(CLOSING_SECONDS):
        for listener in list(network.listeners.values()):
            await listener.close()
        async with trio.open_nursery() as nursery:
            for connections in list(network.get_connections_map().values()):
                for connection in list(connections):
                    nursery.start_soon(connection.close)


def _bare(endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.kind, endpoint.host, endpoint.port)


def _bindable(endpoint: Endpoint) -> Endpoint:
    """The endpoint with an actual port. The library binds with SO_REUSEPORT, which would hide that a port is taken."""
    family = socket.AF_INET6 if endpoint.kind == "ip6" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((endpoint.host, endpoint.port))
            port = cast(int, probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Another program listens on port {endpoint.port} of {endpoint.host}.") from error
        raise ListenFailed(f"Cannot listen at {_bare(endpoint)}: {error.strerror or error}.") from error
    return Endpoint(endpoint.kind, endpoint.host, port)


def _expand(address: Multiaddr) -> list[Multiaddr]:
    """The addresses of this machine's interfaces, where the host listens on all of them."""
    text = str(address)
    return expand_wildcard_address(address) if text.startswith(("/ip4/0.0.0.0/", "/ip6/::/")) else [address]
