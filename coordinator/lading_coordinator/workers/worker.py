"""`python -m lading_coordinator.workers.worker`: one worker. The desk starts it, and speaks to its standard input."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from lading.keyfile import load_key
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts
from lading_contracts.rpc import open_chain
from lading_coordinator.main import Coordinator, Outside, stop_on_signals
from lading_coordinator.settings import CoordinatorSettings
from lading_coordinator.workers.borrowed import BorrowedTransport
from lading_coordinator.workers.crew import Orders
from lading_coordinator.workers.doors import ToDesk, WorkerDoor, harbour_socket
from lading_coordinator.workers.figures import Figures
from lading_coordinator.workers.place import Place, Role
from lading_coordinator.workers.tally import Tally
from lading_net.heap import calm_collector

log = logging.getLogger(__name__)
Build = Callable[[CoordinatorSettings, BorrowedTransport], Outside]


async def work(orders: Orders, build: Build) -> None:
    """Until it is told to stop, or the desk is gone. `build` makes what a coordinator stands on."""
    settings = msgspec.convert(orders.settings, CoordinatorSettings)
    settings = msgspec.structs.replace(settings, http_host=orders.host, http_port=orders.port)
    folder, place = Path(orders.folder), Place(Role.WORKER, orders.number, orders.count)
    transport = BorrowedTransport(harbour_socket(folder))
    built = build(settings, transport)
    tally = Tally(folder / "tally", place, built.key.child("lading/tally").secret)
    outside = msgspec.structs.replace(
        built,
        place=place,
        rest=ToDesk(folder),
        shares=tally,
        door=lambda app, limits, inside: WorkerDoor(
            app, limits, place, folder, Figures(app, inside.metrics.text, inside.why.answer)
        ),
    )
    coordinator = Coordinator(settings, outside)
    transport.heard = coordinator.hearing.take
    calm_collector()
    stop_on_signals(coordinator.stop)
    _stop_with_the_desk(coordinator)
    following = asyncio.ensure_future(transport.run())
    telling = asyncio.ensure_future(_tell(coordinator))
    try:
        await coordinator.serve()
    finally:
        following.cancel()
        telling.cancel()
        chain = outside.contracts.chain
        if hasattr(chain, "close"):
            await chain.close()
        tally.close()


def outside(settings: CoordinatorSettings, transport: BorrowedTransport) -> Outside:
    record = deployments.load(settings.deployment_path)
    contracts = Contracts(open_chain(settings.chain_url, record.chain_id), record)
    return Outside(load_key(settings.key_path), contracts, transport, None, ())


async def _tell(coordinator: Coordinator) -> None:
    await coordinator.ready.wait()
    print("ready", flush=True)


def _stop_with_the_desk(coordinator: Coordinator) -> None:
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 64):  # not through sys.stdin, whose lock would be held when the program ends
            pass
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(coordinator.stop.set)

    threading.Thread(target=watch, name="desk", daemon=True).start()


def main(build: Build = outside) -> None:
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    logging.basicConfig(
        level=str(orders.settings.get("log_level", "info")).upper(),
        format=f"%(asctime)s %(levelname)-7s worker {orders.number}: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work(orders, build))
    else:
        uvloop.run(work(orders, build))


if __name__ == "__main__":
    main()
