"""The clients of the gateway benchmark: HTTP connections that ask again and again, and the job protocol itself.

They check that every answer is whole; what is measured of it is the caller's affair.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import httptools

from .gateway_roles import MODEL, SHORT

MESSAGES = [{"role": "user", "content": "tell me a story"}]
BODIES = {
    "json": {"model": MODEL, "messages": MESSAGES, "max_tokens": SHORT},
    "stream": {"model": MODEL, "messages": MESSAGES, "stream": True},
}


class WrongAnswer(Exception):
    """An answer that is no success, or not whole."""


class Client(asyncio.Protocol):
    """One connection. Notes when the first byte of an answer came, and counts the events of a stream."""

    def __init__(self, requests: dict[str, bytes]) -> None:
        self._requests = requests
        self._done: asyncio.Future[None] | None = None
        self._first = 0.0
        self._tail = b""
        self.tokens = 0
        self.started = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
        self.tokens += data.count(b" ") - data.count(b"data: ")  # each of the toy's words ends in a space
        self.started.set()
        self._tail = data[-64:]
        try:
            self._parser.feed_data(data)
        except Exception as error:
            self._fail(f"{error}: {data[:200]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the connection was closed")

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self._fail(f"status {self._parser.get_status_code()}: {self._tail!r}")

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(WrongAnswer(why))

    def begin(self, kind: str) -> asyncio.Future[None]:
        """Send a request; the future is done when its answer is whole."""
        self._done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._first = 0.0
        self._transport.write(self._requests[kind])
        return self._done

    async def ask(self, kind: str) -> float:
        """Seconds to the first byte."""
        begun = time.perf_counter()
        await self.begin(kind)
        if kind == "stream" and b"0\r\n\r\n" not in self._tail:
            raise WrongAnswer(f"the stream has no end: {self._tail!r}")
        return self._first - begun

    async def repeat(self, kind: str, count: int) -> None:
        for _ in range(count):
            await self.ask(kind)

    def hang_up(self) -> None:
        self._done = None
        self._transport.abort()


def request(address: str, api_key: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {address}", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {api_key}", f"Content-Length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def connect(address: str, api_key: str, count: int, bodies: dict[str, dict[str, Any]] = BODIES) -> list[Client]:
    address = address.rpartition("/")[2]
    host, _, port = address.partition(":")
    requests = {kind: request(address, api_key, body) for kind, body in bodies.items()}
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(requests), host, int(port)) for _ in range(count)]
    return [client for _, client in made]


class JobClient:
    """The job protocol itself, without a gateway: what the host and the link take for the same request."""

    def __init__(self, link: Any, offer: bytes) -> None:
        self._link = link
        self._offer = offer

    @classmethod
    async def connect(cls, endpoint: str, offer: str) -> JobClient:
        from factories import key
        from lading_net.direct import DirectTransport

        return cls(await DirectTransport(key("bench")).dial(endpoint, None), bytes.fromhex(offer))

    async def ask(self, kind: str) -> float:
        """Seconds to the first token."""
        import msgspec

        from factories import chat_request
        from lading_net.messages import MessageStream
        from lading_protocol import VERSION
        from lading_protocol.messages import JOB, Done, Open, Tokens, ToPayer

        wanted = chat_request("tell me a story", 512)
        opening = Open(VERSION, os.urandom(32), 0, self._offer, bytes(20), 0, wanted)
        begun, first = time.perf_counter(), 0.0
        messages: MessageStream[Any] = MessageStream(await self._link.open(JOB), msgspec.msgpack.Decoder(ToPayer))
        messages.send(opening)
        while not isinstance(message := await messages.recv(), Done):
            if isinstance(message, Tokens) and not first:
                first = time.perf_counter()
        await messages.close()
        return first - begun

    def hang_up(self) -> None:
        """The link stays: it is made once, as a gateway's is."""
