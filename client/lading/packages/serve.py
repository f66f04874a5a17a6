"""Gives blobs to peers without getting in the way of jobs: reads in threads, capped rates, little ahead of the network.

What a hostile peer can cost is bounded: so many streams, a mebibyte read ahead on each, and a fee for every ask,
however little it asks for.
"""

import asyncio
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lading.core.bucket import Bucket
from lading.packages.store import BlobStore
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.blobwire import part_head
from lading_protocol.ids import Address
from lading_protocol.messages import BLOB_PART, GetBlob, NoBlob

Sent = Callable[[int, int], None]
_AT_ONCE = 4  # asks answered by one visit to the disk
_FEE = 4096  # bytes that an ask counts for at least
_PEERS = 1024  # whose rates are remembered
_get_blob = msgspec.msgpack.Decoder(GetBlob)


class ServeLimits(msgspec.Struct, frozen=True):
    """Rates are bytes a second, 0 for no limit. `peer_streams` are those that one peer may have open, of `streams`."""

    rate: float = 0.0
    peer_rate: float = 0.0
    peer_streams: int = 4
    streams: int = 256


def serve_blobs(
    store: BlobStore, sent: Sent = lambda done, total: None, limits: ServeLimits | None = None
) -> Callable[[Stream], Awaitable[None]]:
    """The handler of the blob protocol. `sent` hears of every part: (bytes sent of the blob, its size)."""
    return _Server(store, sent, limits or ServeLimits()).serve


class _Server:
    def __init__(self, store: BlobStore, sent: Sent, limits: ServeLimits) -> None:
        self._store = store
        self._sent = sent
        self._limits = limits
        self._streams: Counter[Address] = Counter()
        self._total: Bucket | None = None
        self._buckets: OrderedDict[Address, Bucket] = OrderedDict()

    async def serve(self, stream: Stream) -> None:
        limits, open_now = self._limits, self._streams
        if open_now[stream.peer] >= limits.peer_streams or open_now.total() >= limits.streams:
            stream.reset()
            return
        self._streams[stream.peer] += 1
        shelf = _Reader(self._store)
        try:
            messages: MessageStream[GetBlob] = MessageStream(stream, _get_blob)
            while asks := await _asks(messages):
                await self._answer(stream, asks, shelf)
        finally:
            shelf.close()
            self._streams[stream.peer] -= 1
            if not self._streams[stream.peer]:
                del self._streams[stream.peer]

    async def _answer(self, stream: Stream, asks: Sequence[GetBlob], shelf: "_Reader") -> None:
        await self._wait(stream.peer, sum(max(ask.length, _FEE) for ask in asks))
        answers = await asyncio.to_thread(shelf.read, asks)
        for ask, answer in zip(asks, answers, strict=True):
            if answer is None:
                MessageStream(stream, _get_blob).send(NoBlob(ask.digest))
                continue
            size, data = answer
            stream.write(part_head(size, len(data)))
            if data:
                stream.write(data)
            self._sent(min(ask.offset, size) + len(data), size)
        await stream.drain()

    async def _wait(self, peer: Address, amount: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._total is None:
            self._total = Bucket(self._limits.rate, now)
        if peer not in self._buckets:
            self._buckets[peer] = Bucket(self._limits.peer_rate, now)
            if len(self._buckets) > _PEERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(peer)
        seconds = max(self._total.take(amount, now), self._buckets[peer].take(amount, now))
        if seconds:
            await asyncio.sleep(seconds)


async def _asks(messages: MessageStream[GetBlob]) -> list[GetBlob]:
    """What is asked now: one at least, or none once the peer has closed its side."""
    first = await messages.recv()
    if first is None:
        return []
    asks = [first]
    while messages.waiting and len(asks) < _AT_ONCE and (more := await messages.recv()) is not None:
        asks.append(more)
    return asks


class _Reader:
    """Keeps the blob that was asked last open. Used by one thread at a time."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._blob = b""
        self._file = -1
        self._size = 0
        self._busy = False
        self._over = False
        self._turn = threading.Lock()

    def read(self, asks: Sequence[GetBlob]) -> list[tuple[int, bytes] | None]:
        """For each ask the blob's size and the bytes, None for a blob that is not held."""
        self._busy = True
        try:
            return [self._one(ask) for ask in asks]
        finally:
            self._busy = False
            if self._over:
                self._let_go()

    def close(self) -> None:
        """Safe while a thread still reads for a stream that is over."""
        self._over = True
        if not self._busy:
            self._let_go()

    def _one(self, ask: GetBlob) -> tuple[int, bytes] | None:
        if ask.digest != self._blob or self._file < 0:
            self._let_go()
            try:
                self._file = os.open(self._store.path(ask.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return None
            self._blob, self._size = ask.digest, os.fstat(self._file).st_size
        if ask.offset == 0:
            self._store.touch(ask.digest)
        if ask.offset >= self._size:
            return self._size, b""
        return self._size, os.pread(self._file, min(ask.length, BLOB_PART), ask.offset)

    def _let_go(self) -> None:
        with self._turn:
            file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
