"""The composition root: from settings to a running node on real doors. The only place that builds adapters.

SIGTERM and SIGINT drain politely; a second one, or SIGKILL, may come at any moment without losing a voucher.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lading.blobs import BlobStore, ServeLimits, serve_blobs
from lading.calibrations import published
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainUnreachable
from lading_contracts.rpc import open_chain
from lading_net.direct import DirectSettings, DirectTransport, Puncher, openings_at
from lading_net.heap import calm_collector
from lading_net.names import resolve
from lading_net.peer import Endpoint
from lading_net.ports import Transport
from lading_net.private import NetworkKey, network_key
from lading_node import settings as settings_
from lading_node.agents import Serving
from lading_node.disk import Identity
from lading_node.engines.factory import CHILDREN, Means, has_card, open_engine
from lading_node.engines.pool import Pool
from lading_node.engines.port import Engine, EngineSpec
from lading_node.engines.probe import probe_machine
from lading_node.engines.ray_pool import RayPool
from lading_node.engines.spec import Limits
from lading_node.hardware.devices import device_class, remarks, serving_class
from lading_node.hardware.discover import discover
from lading_node.http import StatusPage
from lading_node.keyfile import load_or_make
from lading_node.node import Node
from lading_node.packages import StoredPackages
from lading_node.ports import Doors
from lading_node.reach import outward
from lading_node.releases import recall
from lading_node.settings import NodeSettings
from lading_node.store import Ledger
from lading_node.terms import Found, find_terms
from lading_protocol.errors import LadingError
from lading_protocol.ids import TermsId, to_hex

log = logging.getLogger(__name__)

CHAIN_WAIT_SECONDS = 3.0
POOL_WAIT_SECONDS = 20.0


async def run_node(settings: NodeSettings, started: Callable[[Node, int], None] = lambda node, port: None) -> None:
    """Serve until SIGTERM. `started` hears the node and the status page's port once it listens (0: no page).

    Raises LadingErrors in words for everything that keeps it from starting.
    """
    os.umask(0o077)  # the ledger and the packages are nobody else's to read
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    record = deployments.load(settings.deployment_path)
    key, fresh = load_or_make(settings.key_path)
    if fresh:
        log.warning("made a new operator key in %s: keep a copy of it", settings.key_path)
    ledger = Ledger.open(settings.folder, Identity(key.address, record.chain_id, record.settlement))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ledger.close)
        chain = open_chain(settings.chain_url, record.chain_id)
        stack.push_async_callback(chain.close)
        contracts = Contracts(chain, record)
        network = network_key(settings.network_key)
        transport = DirectTransport(key, DirectSettings(network=network, openings=openings_at(settings.streams_rate)))
        stack.push_async_callback(transport.close)
        Puncher(transport).open()
        store = BlobStore(settings.folder / "blobs", settings.quota)
        scratch = settings.folder / "engines"
        scratch.mkdir(exist_ok=True)
        pool = await _pool(settings, stack) if settings.ray else None
        means = await _means(settings, scratch, pool)
        doors = Doors(
            key=key,
            transport=transport,
            gossip=None,
            contracts=contracts,
            ledger=ledger,
            packages=_packages(settings, store, transport, means),
            engine=_engines(scratch, means, pool, settings.ray_members),
            clock=time.time,
            rng=random.SystemRandom(),
            blobs=serve_blobs(store, limits=ServeLimits(settings.serve_rate, settings.serve_peer_rate)),
            device=await _device_classes(pool),
            tables=published(),
            direct=transport,
        )
        doors = await _with_gossip(doors, settings, network, stack)
        serving = await _agents(settings, contracts, ledger)
        settings = msgspec.structs.replace(settings, coordinators=await resolve(settings.coordinators))
        node = Node(doors, settings_.plan(settings, serving, record.decimals, outward()))
        calm_collector()
        page = StatusPage(node)
        if settings.http >= 0:
            await page.start(settings.http)
            stack.push_async_callback(page.close)
        await _run(node, lambda: started(node, page.port))


async def _run(node: Node, started: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, node.stop)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(node.run())
            up = group.create_task(node.started.wait())
            await asyncio.wait((running, up), return_when=asyncio.FIRST_COMPLETED)
            if node.started.is_set():
                log.info("operator %s listens on %s", to_hex(node.address), ", ".join(node.endpoints))
                started()
            up.cancel()
    except BaseExceptionGroup as group_error:
        # One part failed and took the rest with it: show the first reason, not the grouping.
        raise group_error.exceptions[0] from group_error
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)


async def _device_classes(pool: Pool | None) -> Callable[[EngineSpec], str]:
    """For each spec the class of the device that would run it, as found now, or as a pool's machines tell."""
    if pool is not None:
        return lambda spec: serving_class(pool.devices(), spec.device)
    found = await discover()
    for device in found.devices:
        log.info("device %s: %s", device_class(device), device.name)
        for remark in remarks(device):
            log.warning("device %s: %s", device_class(device), remark)
    return lambda spec: serving_class(found.devices, spec.device)


async def _means(settings: NodeSettings, scratch: Path, pool: Pool | None) -> Means:
    """Tests the tiers of isolation: only those that passed count from here on."""
    if settings.docker:
        await _reap(settings.docker, scratch)
    probes = await probe_machine(scratch, (settings.folder,), settings.docker)
    for one in probes:
        log.info("isolation tier %s: %s", one.tier, "passed" if one.passed else "; ".join(one.failed))
    passed = tuple(one.tier for one in probes if one.passed)
    card = has_card() if pool is None else None
    return Means(passed, settings.require_isolation, settings.docker, settings.endpoints, card)


def _engines(scratch: Path, means: Means, pool: Pool | None, most: int) -> Callable[[EngineSpec], Engine]:
    """A pool's machines test their own tiers. `most` engines of an agent run there; 0: as many as fit."""

    def make(spec: EngineSpec) -> Engine:
        if pool is not None and spec.kind in CHILDREN:
            return pool.spread(spec, most)
        return open_engine(spec, scratch, means)

    return make


def _packages(settings: NodeSettings, store: BlobStore, transport: Transport, means: Means) -> StoredPackages:
    compiled = settings.folder / "compiled"
    compiled.mkdir(exist_ok=True, mode=0o700)
    limits = Limits(threads=settings.threads, memory=settings.memory << 20, cache=str(compiled), device=True)
    named = {settings_.agent_of(one): one.endpoint for one in settings_.wanted(settings) if one.endpoint}
    return StoredPackages(store, settings.folder / "agents", transport, means, limits, named)


async def _pool(settings: NodeSettings, stack: contextlib.AsyncExitStack) -> Pool:
    """Raises EngineError for a cluster that is not safe or not there."""
    pool = Pool(RayPool(settings.ray))
    await pool.open()
    stack.push_async_callback(pool.close)
    if not await pool.machines(1, POOL_WAIT_SECONDS):
        log.warning("no machine of the Ray cluster at %s has answered yet", settings.ray)
    return pool


async def _reap(docker: str, scratch: Path) -> None:
    """Containers that an earlier life of this node left running."""
    from lading_node.engines.container import reap

    try:
        if count := await asyncio.to_thread(reap, docker, scratch):
            log.warning("removed %d containers that an earlier run left", count)
    except (LadingError, ImportError) as error:
        log.warning("agents in images cannot be served: %s", error)


async def _with_gossip(
    doors: Doors, settings: NodeSettings, network: NetworkKey | None, stack: contextlib.AsyncExitStack
) -> Doors:
    """Optional: configured coordinators are enough."""
    if not settings.gossip_listen:
        return doors
    from lading_net.gossip import MeshGossip

    nearby = "" if network is not None else _nearby(settings)  # multicast would tell who must not know
    bootstrap = await resolve(settings.bootstrap)
    gossip = MeshGossip(doors.key.secret, settings.gossip_listen, bootstrap, network=network, lan=nearby)
    await gossip.start()
    stack.push_async_callback(gossip.close)
    return msgspec.structs.replace(doors, gossip=gossip)


def _nearby(settings: NodeSettings) -> str:
    """This machine's address in a local network where peers may be looked for; "" for none."""
    mine, host = outward(), Endpoint.parse(settings.gossip_listen).host
    return mine if settings.lan and host in ("0.0.0.0", mine) else ""


async def _agents(settings: NodeSettings, contracts: Contracts, ledger: Ledger) -> tuple[Serving, ...]:
    """Look the terms up on the chain; what was found once serves while the chain is away."""
    serving = []
    for one in settings_.wanted(settings):
        origin = settings_.agent_of(one)
        line = await recall(ledger, origin) if one.follow else None
        agent = line.serving if line is not None else origin
        named = one.terms if agent == origin else ""  # terms are one release's own
        note = f"terms:{agent.hex()}:{named}"
        try:
            found = await find_terms(contracts, agent, named, time.time())
            await ledger.put_note(note, found.terms)
        except ChainUnreachable:
            known = await ledger.note(note)
            if known is None:
                raise
            log.warning("the chain does not answer; agent %s is served under the terms of last time", one.digest)
            found = Found(TermsId(known))
        wanted = settings_.serving(one, found.terms, settings, contracts.deployment.decimals)
        serving.append(
            msgspec.structs.replace(wanted, agent=agent, origin=origin, sunset_at=found.sunset_at, named=bool(named))
        )
    return tuple(serving)
