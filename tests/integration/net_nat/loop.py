"""An event loop whose connections belong to the network namespace that the running task is in.

Tasks hand their namespace down to those that they start. So unmodified programs, many in one process, each live on a
machine of their own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from integration.net_nat.lab import Place

_here: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def at(place: Place) -> Iterator[None]:
    """What is started within is there, and stays there."""
    token = _here.set(place)
    try:
        yield
    finally:
        _here.reset(token)


class NamespaceLoop(asyncio.SelectorEventLoop):
    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **rest: Any) -> Any:
        place = _here.get()
        if place is None or rest.get("sock") is not None:
            return await super().create_connection(factory, host, port, **rest)
        made = _socket(place)
        try:
            await self.sock_connect(made, (host, port))
            return await super().create_connection(factory, sock=made)
        except BaseException:
            made.close()
            raise

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **rest: Any) -> Any:
        place = _here.get()
        if place is None or rest.get("sock") is not None:
            return await super().create_server(factory, host, port, **rest)
        made = _socket(place)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        serving = rest.get("start_serving", True)
        return await super().create_server(factory, sock=made, backlog=rest.get("backlog", 100), start_serving=serving)

    async def create_datagram_endpoint(self, factory: Any, local_addr: Any = None, **rest: Any) -> Any:
        place = _here.get()
        if place is None:
            return await super().create_datagram_endpoint(factory, local_addr, **rest)
        with place.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind(local_addr or ("0.0.0.0", 0))
        return await super().create_datagram_endpoint(factory, sock=made)


def _socket(place: Place) -> socket.socket:
    with place.inside():
        made = socket.socket()
    made.setblocking(False)
    return made
