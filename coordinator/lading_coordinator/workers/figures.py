"""What the desk asks its workers when somebody asks it: counts for /metrics, and why a host lost jobs.

Over the workers' private sockets only; the public port has none of these paths.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from lading_coordinator.gateway.connection import App, Request
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.workers.place import worker_socket
from lading_protocol.ids import Address, from_hex
from lading_protocol.losses import Why

METRICS, WHY = "/metrics", "/why/"
SECONDS = 2.0
BINARY = b"application/octet-stream"


class Figures:
    """In front of a worker's private application."""

    def __init__(self, app: App, metrics: Callable[[], bytes], why: Callable[[Address], Why]) -> None:
        self._app = app
        self._metrics = metrics
        self._why = why

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        if request.path == METRICS:
            reply.send(200, self._metrics(), BINARY)
        elif request.path.startswith(WHY):
            host = Address(from_hex(request.path.removeprefix(WHY), 20))
            reply.send(200, msgspec.msgpack.encode(self._why(host)), BINARY)
        else:
            return self._app(request, reply)
        return None


async def gather(folder: Path, count: int, target: str) -> list[bytes]:
    """What each worker answers to GET `target`; one that is being started again says nothing."""
    asked = [_get(worker_socket(folder, number), target) for number in range(count)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [answer for answer in answers if isinstance(answer, bytes)]


async def _get(path: str, target: str) -> bytes:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(f"GET {target} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.transport.abort()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(f"a worker does not say {target}")
    return body
