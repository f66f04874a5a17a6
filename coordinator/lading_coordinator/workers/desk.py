"""Turns what one coordinator stands on into what the desk of several processes stands on."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from lading_coordinator.gateway.connection import App, Limits
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_coordinator.workers.crew import PROGRAM, Crew, Orders
from lading_coordinator.workers.doors import DeskDoor, harbour_socket
from lading_coordinator.workers.figures import gather
from lading_coordinator.workers.harbour import Harbour
from lading_coordinator.workers.place import Place, Role


@contextlib.asynccontextmanager
async def desk(
    settings: CoordinatorSettings, outside: Outside, lock: int, program: Sequence[str] = PROGRAM
) -> AsyncIterator[Outside]:
    """`lock` is the descriptor of the lock on the data folder, which the workers hold too."""
    # A unix socket's path is short, a data folder's need not be.
    folder = Path(tempfile.mkdtemp(prefix="lading-"))
    harbour = Harbour(outside.transport, harbour_socket(folder))
    plain = msgspec.to_builtins(settings)

    def orders(number: int, host: str, port: int) -> Orders:
        return Orders(plain, number, settings.workers, str(folder), host, port)

    def door(app: App, limits: Limits, _: Coordinator) -> DeskDoor:
        return DeskDoor(app, limits, folder, Crew(settings.workers, orders, lock, program))

    try:
        await harbour.start()
        yield msgspec.structs.replace(
            outside,
            place=Place(Role.DESK, 0, settings.workers),
            beats=harbour.shared,
            news=harbour.news,
            door=door,
            workers=partial(gather, folder, settings.workers),
        )
    finally:
        await harbour.close()
        shutil.rmtree(folder, ignore_errors=True)
