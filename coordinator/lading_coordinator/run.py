"""Starts a real coordinator: key, chain, direct link, gossip and the lock on the data folder, then serves."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lading.keyfile import load_key, write_key
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainUnreachable
from lading_contracts.rpc import open_chain
from lading_coordinator.main import Coordinator, Outside, stop_on_signals
from lading_coordinator.settings import CoordinatorSettings, check
from lading_coordinator.store import FolderLock
from lading_net.direct import CallBack, DirectSettings, DirectTransport, Relay, RelaySettings
from lading_net.heap import calm_collector
from lading_net.names import resolve
from lading_net.ports import Gossip
from lading_net.private import NetworkKey, network_key
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey

log = logging.getLogger(__name__)


class Started(msgspec.Struct, frozen=True):
    """Where a running coordinator is reached. `gossip` is the bootstrap address for others, or empty."""

    http: str
    endpoints: tuple[str, ...]
    gossip: str
    address: str


async def run_coordinator(
    settings: CoordinatorSettings, ready: Callable[[Started], None] = lambda started: None
) -> None:
    """Runs until SIGTERM or SIGINT. Raises LadingError: folder busy, port in use, bad settings, bad record."""
    check(settings)
    os.umask(0o077)  # the ledger holds what consumers asked; it is nobody else's to read
    lock = FolderLock(settings.home_path)
    try:
        await _serve(settings, ready, lock)
    finally:
        lock.release()


async def _serve(settings: CoordinatorSettings, ready: Callable[[Started], None], lock: FolderLock) -> None:
    record = deployments.load(settings.deployment_path)
    key = own_key(settings.key_path)
    chain = open_chain(settings.chain_url, record.chain_id)
    network = network_key(settings.network_key)
    transport = DirectTransport(key, DirectSettings(network=network))
    gossip: Gossip | None = None
    try:
        listening = await transport.listen(settings.listen)
        gossip, gossip_address = await _gossip(settings, key, network)
        endpoints = settings.announce or (_reachable(listening),)
        contracts = Contracts(chain, record)
        with contextlib.suppress(ChainUnreachable):  # an outage stops no start; a wrong chain or record does
            await contracts.check()
        serve_the_unreachable(transport, settings, endpoints)
        async with _at_its_desk(settings, Outside(key, contracts, transport, gossip, endpoints), lock) as outside:
            coordinator = Coordinator(settings, outside)
            coordinator.metrics.show_refused(transport.guard.refused)
            calm_collector()
            stop_on_signals(coordinator.stop)
            telling = asyncio.ensure_future(_tell(coordinator, gossip_address, ready))
            try:
                await coordinator.serve()
            finally:
                telling.cancel()
    except BaseExceptionGroup as group:
        raise _single(group) from group
    finally:
        if gossip is not None:
            await gossip.close()
        await transport.close()
        await chain.close()


def serve_the_unreachable(
    transport: DirectTransport, settings: CoordinatorSettings, endpoints: tuple[str, ...]
) -> Relay | None:
    """Tells peers whether they can be called from here, and relays for those who cannot."""
    CallBack(transport.handle, transport.stranger).open()
    if not settings.relay:
        return None
    limits = RelaySettings(
        reservations=settings.relay_hosts,
        connections=settings.relay_links,
        connections_each=settings.relay_links_each,
        duration=settings.relay_seconds,
        data=settings.relay_bytes,
    )
    relay = Relay(transport, lambda: endpoints, time.time, limits)
    relay.open()
    return relay


def _at_its_desk(
    settings: CoordinatorSettings, outside: Outside, lock: FolderLock
) -> contextlib.AbstractAsyncContextManager[Outside]:
    if settings.workers == 1:
        return contextlib.nullcontext(outside)
    from lading_coordinator.workers.desk import desk

    return desk(settings, outside, lock.fileno())


async def _gossip(
    settings: CoordinatorSettings, key: PrivateKey, network: NetworkKey | None
) -> tuple[Gossip | None, str]:
    if not settings.gossip:
        return None, ""
    from lading_net.gossip import MeshGossip

    gossip = MeshGossip(key, settings.gossip, await resolve(settings.bootstrap), network=network)
    await gossip.start()
    return gossip, _reachable(gossip.address)


async def _tell(coordinator: Coordinator, gossip: str, ready: Callable[[Started], None]) -> None:
    await coordinator.ready.wait()
    host, port = coordinator.http_address
    outside = coordinator.outside
    ready(Started(f"http://{host}:{port}", outside.endpoints, gossip, to_hex(outside.key.address)))


def _reachable(endpoint: str) -> str:
    """An address that at least this machine can dial, where the wildcard was bound."""
    return endpoint.replace("/ip4/0.0.0.0/", "/ip4/127.0.0.1/")


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first cause, so that a person reads one line."""
    first = group.exceptions[0]
    return _single(first) if isinstance(first, BaseExceptionGroup) else first


def own_key(path: Path) -> PrivateKey:
    """The coordinator's key: made at the first start, readable by its owner only. Raises BadKey."""
    if not path.exists():
        write_key(path, PrivateKey(os.urandom(32)))
        log.info("Made a new key in %s", path)
    return load_key(path)


def announce_line(started: Started) -> str:
    """One JSON line for whoever started the process."""
    return json.dumps(msgspec.to_builtins(started))
