"""Where HTTP comes in: every worker at the public port, the kernel choosing one; and the way to whom a request belongs.

A connection goes to the worker that owns the API key of its first request. What is asked for with another key on the
same connection, and everything else than the data plane, is relayed to whom it belongs; clients never notice.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lading_coordinator.errors import cannot_listen
from lading_coordinator.gateway.connection import App, Limits, Request
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.gateway.server import HttpServer
from lading_coordinator.workers.crew import Crew
from lading_coordinator.workers.handover import Quay, SortingServer
from lading_coordinator.workers.place import Place, hash_of, worker_of, worker_socket
from lading_coordinator.workers.relay import from_relay, relay


def desk_socket(folder: Path) -> str:
    return str(folder / "desk.sock")


def harbour_socket(folder: Path) -> str:
    return str(folder / "links.sock")


def quay_socket(folder: Path, number: int) -> str:
    return str(folder / f"quay-{number}.sock")


class Sorting:
    """The application at a worker's public door. `own` serves its own keys and what needs none."""

    def __init__(self, own: App, place: Place, folder: Path) -> None:
        self._own = own
        self._place = place
        self._folder = folder

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        owner = self._owner(request.path, request.bearer())
        if owner == self._place.number:
            return self._own(request, reply)
        return relay(worker_socket(self._folder, owner), request, reply)

    def to(self, path: str, key: str) -> str:
        """Where a connection belongs whose first request is this one; "" when it may stay."""
        owner = self._owner(path, key)
        return quay_socket(self._folder, owner) if owner != self._place.number else ""

    def _owner(self, path: str, key: str) -> int:
        return worker_of(hash_of(key), self._place.count) if key and is_traffic(path) else self._place.number


class ToDesk:
    """What a worker does with a request of the control plane."""

    def __init__(self, folder: Path) -> None:
        self._path = desk_socket(folder)

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None]:
        return relay(self._path, request, reply)


def is_traffic(path: str) -> bool:
    return path.startswith("/v1/") or path == "/lading/v1/call"


class WorkerDoor:
    """The public port, shared with the other workers, and a unix socket for what they relay."""

    def __init__(self, app: App, limits: Limits, place: Place, folder: Path, private: App) -> None:
        """`private` is the application as the other processes see it."""
        sorting = Sorting(app, place, folder)
        self._public = SortingServer(sorting, limits, sorting.to)
        self._quay = Quay(self._public, quay_socket(folder, place.number))
        self._private = HttpServer(_Private(private), limits)
        self._path = worker_socket(folder, place.number)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # of one that was killed
        await self._private.listen_unix(self._path)
        self._quay.open()
        return await self._public.listen(host, port, tls, shared=True)

    async def close(self, grace: float) -> None:
        await self._quay.close()
        await asyncio.gather(self._public.close(grace), self._private.close(grace))


class DeskDoor:
    """Holds the public port for the workers, runs them, and answers what they relay."""

    def __init__(self, app: App, limits: Limits, folder: Path, crew: Crew) -> None:
        self._server = HttpServer(_Private(app), limits)
        self._folder = folder
        self._crew = crew
        self._holder: socket.socket | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """The workers speak TLS, where that is asked for, by the same settings. Raises PortInUse, CoordinatorError."""
        self._holder = hold(host, port)
        address: tuple[str, int] = self._holder.getsockname()[:2]
        await self._server.listen_unix(desk_socket(self._folder))
        await self._crew.start(*address)
        return address

    async def close(self, grace: float) -> None:
        await self._crew.stop(grace)
        await self._server.close(grace)
        if self._holder is not None:
            self._holder.close()
            self._holder = None


def hold(host: str, port: int) -> socket.socket:
    """A socket that has the port but takes no connection: workers may come and go, and nobody else gets in between.

    Raises PortInUse, CoordinatorError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family)
    try:
        # First alone: a port that another program shares would be taken for free otherwise.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        found = probe.getsockname()[1]
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    finally:
        probe.close()
    held = socket.socket(family)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((host, found))
    return held


class _Private:
    """For requests that another process of ours took in."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        from_relay(request)
        return self._app(request, reply)
