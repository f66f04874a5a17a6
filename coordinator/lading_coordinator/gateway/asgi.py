"""Carries requests of the control plane to an ASGI 3 application, so that one port serves everything.

Only what our own application needs: HTTP, whole bodies in, streamed bodies out, no lifespan.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.reply import Reply, lines

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class AsgiBridge:
    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, request: Request, reply: Reply) -> None:
        call = _Call(request, reply)
        await self._app(_scope(request), call.receive, call.send)


class _Call:
    """One request's two ends. The application is cancelled when the client goes, so `receive` never has to say so."""

    def __init__(self, request: Request, reply: Reply) -> None:
        self._request = request
        self._reply = reply
        self._read = False
        self._status = 500
        self._kind = b"application/octet-stream"
        self._headers: list[tuple[bytes, bytes]] = []

    async def receive(self) -> Message:
        if self._read:
            await asyncio.get_running_loop().create_future()
        self._read = True
        return {"type": "http.request", "body": self._request.body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            for name, value in message.get("headers", ()):
                if name == b"content-type":
                    self._kind = value
                elif name not in (b"content-length", b"transfer-encoding", b"connection"):
                    self._headers.append((name, value))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and not self._reply.begun:
            self._reply.send(self._status, body, self._kind, lines(self._headers))
            return
        if not self._reply.begun:
            self._reply.start(self._status, self._kind, lines(self._headers))
        if more:
            self._reply.write(body)
            await self._reply.drain()
        else:
            self._reply.end(body)


def _scope(request: Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method,
        "scheme": "https" if request.secure else "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers.items()),
        "client": (request.client, 0),
        "server": None,
    }
