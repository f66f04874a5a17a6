"""The least that can stand behind our HTTP server: a request goes to one upstream, and its answer comes back as it is.

Only for measuring the data plane: it knows no error, no time-out and no second host.
"""

from __future__ import annotations

import asyncio
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

    async def __call__(self, request: Request, reply: Reply) -> None:
        if self._idle:
            upstream = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, upstream = await loop.create_connection(_Upstream, self._host, self._port)
        await upstream.ask(request, reply)
        self._idle.append(upstream)


class _Upstream(asyncio.Protocol):
    def __init__(self) -> None:
        self._reply: Reply | None = None
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: Request, reply: Reply) -> None:
        self._reply = reply
        self._done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._type, self._length = b"application/json", False
        self._pieces: list[bytes] = []
        head = f"POST {request.path} HTTP/1.1\r\nhost: upstream\r\ncontent-length: {len(request.body)}\r\n\r\n"
        self._transport.write(head.encode() + request.body)
        await self._done

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._pieces and self._reply is not None and not self._length:
            self._reply.write(b"".join(self._pieces))
            self._pieces.clear()
        if self._over:
            self._finish()

    def on_message_begin(self) -> None:
        self._over = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._type = value
        elif name == b"content-length":
            self._length = True

    def on_headers_complete(self) -> None:
        if not self._length and self._reply is not None:
            self._reply.start(200, self._type)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._over = True

    def _finish(self) -> None:
        assert self._reply is not None
        assert self._done is not None
        if self._length:
            self._reply.send(200, b"".join(self._pieces), self._type)
        else:
            self._reply.end()
        self._done.set_result(None)
