"""The least that can stand behind our HTTP server: a request goes to one upstream, and its answer comes back as it is.

Only for measuring the data plane: it knows no error, no time-out and no second host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httptools

from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.reply import Reply


class Relay:
    """The application that the connections call. Connections to the upstream are kept and used again."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._idle: list[_Upstream] = []

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        if not self._idle:
            return self._connect(request, reply)
        self._idle.pop().ask(request, reply)
        return None

    async def _connect(self, request: Request, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: _Upstream(self._idle), self._host, self._port)
        upstream.ask(request, reply)
        await upstream.over.wait()


class _Upstream(asyncio.Protocol):
    """Puts itself back among the `idle` ones with each answer."""

    def __init__(self, idle: list[_Upstream]) -> None:
        self._idle = idle
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self.over = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: Request, reply: Reply) -> None:
        self._reply = reply
        self._type, self._whole = b"application/json", False
        reply.gone = self._transport.abort
        head = f"POST {request.path} HTTP/1.1\r\nhost: upstream\r\ncontent-length: {len(request.body)}\r\n\r\n"
        self._transport.write(head.encode() + request.body)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._pieces:  # of an answer that goes on
            self._reply.write(b"".join(self._pieces))
            self._pieces.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._type = value
        elif name == b"content-length":
            self._whole = True

    def on_headers_complete(self) -> None:
        if not self._whole:
            self._reply.start(200, self._type)

    def on_message_complete(self) -> None:
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._idle.append(self)
        self.over.set()
        if self._whole:
            self._reply.send(200, body, self._type)
        else:
            self._reply.end(body)
