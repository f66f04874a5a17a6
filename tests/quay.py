"""Peers that give packages, honest and not, on whichever network a test uses."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from lading.blobs import BlobStore, ServeLimits, serve_blobs
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream, Transport
from lading_protocol.messages import BLOB, BlobPart, GetBlob, NoBlob

Habit = Callable[[GetBlob, bytes], Awaitable[bytes | None]]
_get = msgspec.msgpack.Decoder(GetBlob)


class Peer:
    """Serves `store`, or answers by a habit: it is given an ask and the true bytes, and returns what to send.

    `sent` counts the bytes that left.
    """

    def __init__(
        self, transport: Transport, store: BlobStore, habit: Habit | None = None, limits: ServeLimits | None = None
    ) -> None:
        self.transport = transport
        self.store = store
        self.sent = 0
        self._seen: dict[int, int] = {}
        if habit is None:
            transport.handle(BLOB, self._counted(serve_blobs(store, limits=limits)))
        else:
            transport.handle(BLOB, self._by_habit(habit))

    async def listen(self) -> str:
        return await self.transport.listen("/ip4/127.0.0.1/tcp/0")

    def _counted(self, serve: Callable[[Stream], Awaitable[None]]) -> Callable[[Stream], Awaitable[None]]:
        async def handler(stream: Stream) -> None:
            await serve(_Counting(stream, self))  # type: ignore[arg-type]

        return handler

    def _by_habit(self, habit: Habit) -> Callable[[Stream], Awaitable[None]]:
        async def handler(stream: Stream) -> None:
            messages: MessageStream[GetBlob] = MessageStream(stream, _get)
            while (ask := await messages.recv()) is not None:
                if not self.store.has(ask.digest):
                    messages.send(NoBlob(ask.digest))
                    continue
                data = await habit(ask, self.store.read(ask.digest, ask.offset, ask.length))
                if data is None:
                    await asyncio.sleep(1e6)
                else:
                    self.sent += len(data)
                    messages.send(BlobPart(self.store.size(ask.digest), data))
                    await messages.drain()

        return handler


class _Counting:
    """A stream whose written bytes are counted for its peer."""

    def __init__(self, stream: Stream, peer: Peer) -> None:
        self._stream, self._of = stream, peer

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, data: bytes) -> None:
        self._of.sent += len(data)
        self._stream.write(data)


async def altered(ask: GetBlob, data: bytes) -> bytes:
    """Sends one wrong byte in a mebibyte. The manifest is left alone: it would be found before any chunk."""
    return data if ask.offset % (1 << 20) or len(data) < 100_000 else bytes([data[0] ^ 1]) + data[1:]


async def silent_after_the_manifest(ask: GetBlob, data: bytes) -> bytes | None:
    return data if len(data) < 100_000 else None


def slow(seconds: float) -> Habit:
    """Takes so long over each part of a large file."""

    async def habit(ask: GetBlob, data: bytes) -> bytes:
        if len(data) > 100_000:
            await asyncio.sleep(seconds)
        return data

    return habit


async def link(here: Transport, peer: Peer) -> Link:
    return await here.dial(await peer.listen(), None)
