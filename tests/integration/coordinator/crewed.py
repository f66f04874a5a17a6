"""A coordinator of several processes over real sockets, each with a copy of one chain in its memory.

`python -m integration.coordinator.crewed desk FOLDER WORKERS SETTINGS` prints where it is reached and the API keys that
it made, and serves until it is told to stop; SETTINGS is JSON. `... worker` is what it starts as a worker.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from factories import key
from integration.coordinator.town import Town
from lading_coordinator.main import Coordinator, Outside, stop_on_signals
from lading_coordinator.settings import CoordinatorSettings
from lading_coordinator.store import FolderLock, Store
from lading_coordinator.workers.borrowed import BorrowedTransport
from lading_coordinator.workers.desk import desk
from lading_coordinator.workers.place import hash_of, worker_of
from lading_coordinator.workers.worker import main as worker
from lading_net.gossip import MeshGossip
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import SessionConsent

CAP = 10**18
PROGRAM = (sys.executable, "-m", "integration.coordinator.crewed", "worker")


async def authorize(town: Town, signer: PrivateKey) -> None:
    consent = SessionConsent(town.payer.address).sign(town.record.settlement_domain, signer).signature
    expiry = int(time.time()) + 3600
    await town.contracts.settlement.authorize(town.payer, signer.address, CAP, expiry, consent)


async def chain_of(folder: Path) -> Town:
    """The town's chain, with a deposit; the same in every process."""
    town = Town(folder)
    await town.build_chain()
    await town.contracts.coin.approve(town.payer, town.record.settlement, 10**20)
    await town.contracts.settlement.deposit(town.payer, 10**20)
    return town


async def serve(folder: Path, workers: int, changes: dict[str, Any]) -> None:
    town = await chain_of(folder)
    await town.build_door()
    settings = msgspec.structs.replace(town.made_settings(), workers=workers, **changes)
    lock = FolderLock(settings.home_path)
    ground, gossiped = town.outside(), ""
    if "gossip" in changes:
        gossip = MeshGossip(key("coordinator"), settings.gossip)
        await gossip.start()
        ground, gossiped = msgspec.structs.replace(ground, gossip=gossip), gossip.address
    async with desk(settings, ground, lock.fileno(), PROGRAM) as outside:
        coordinator = Coordinator(settings, outside)
        # Made before the workers start, so that their chains can be told of them.
        keys = _keys(coordinator, town, workers)
        for api_key in keys:
            await authorize(town, (await coordinator.sessions.seat(api_key)).key)
        stop_on_signals(coordinator.stop)
        serving = asyncio.create_task(coordinator.serve())
        ready = asyncio.create_task(coordinator.ready.wait())
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            host, port = coordinator.http_address
            told = {
                "http": f"{'https' if settings.tls_cert else 'http'}://{host}:{port}",
                "endpoint": town.endpoint,
                "keys": keys,
                "gossip": gossiped,
                "agent": to_hex(town.agent),
                "terms": to_hex(town.terms),
                "record": town.record.encode().decode(),
            }
            print(json.dumps(told), flush=True)
        await serving
    lock.release()


def _keys(coordinator: Coordinator, town: Town, workers: int) -> list[str]:
    """One API key for each worker."""
    found: dict[int, str] = {}
    while len(found) < workers:
        api_key = coordinator.sessions.create(town.payer.address).api_key
        found.setdefault(worker_of(hash_of(api_key), workers), api_key)
    return [found[number] for number in range(workers)]


def build(settings: CoordinatorSettings, transport: BorrowedTransport) -> Outside:
    """A worker's copy of the chain: every session in the store is authorized on it."""
    made: list[Outside] = []

    async def prepare() -> None:
        town = await chain_of(settings.home_path)
        store = Store(settings.home_path / "coordinator.sqlite")
        for (nonce,) in store.rows("select nonce from sessions"):
            await authorize(town, key("coordinator").child(f"lading/session/{nonce.hex()}"))
        store.close()
        made.append(Outside(key("coordinator"), town.contracts, transport, None, ()))

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        _in_thread(loop, prepare())
    return made[0]


def _in_thread(loop: asyncio.AbstractEventLoop, work: object) -> None:
    """The chain in memory is no loop's; it is prepared on one of its own."""
    thread = threading.Thread(target=lambda: loop.run_until_complete(work))  # type: ignore[arg-type]
    thread.start()
    thread.join()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(build)
    else:
        asyncio.run(serve(Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
