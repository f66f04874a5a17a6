"""One reader's share of a gossip topic: a bounded queue that forgets the oldest when its reader lags, and counts it.

Shared by every Gossip. Knows no network; it lives on one event loop and is fed from there.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

from lading_net.core.rpc import MAX_GOSSIP_BYTES as MAX_GOSSIP_BYTES

QUEUE = 1_024
"""Messages a reader may lag behind."""

AT_ONCE = 16
"""Messages that a reader gets before others on the loop have their turn: a flood must not be all that is done."""


class Subscription:
    """An async iterator over one topic, from the moment of subscribing; ends when it or its port closes."""

    def __init__(self, queue: int = QUEUE) -> None:
        self._waiting: deque[bytes] = deque(maxlen=queue)
        self._reader: asyncio.Future[None] | None = None
        self._closed = False
        self._taken = 0
        self.lost = 0

    def feed(self, data: bytes) -> None:
        if self._closed:
            return
        if len(self._waiting) == self._waiting.maxlen:
            self.lost += 1
        self._waiting.append(data)
        self._wake()

    def close(self) -> None:
        """What waits may still be read; then the iteration ends."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> bytes:
        self._taken += 1
        if self._taken % AT_ONCE == 0:
            await asyncio.sleep(0)
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._waiting.popleft()


class Subscriptions:
    """The readers of one port, by topic. A reader that was dropped without a goodbye is forgotten."""

    def __init__(self) -> None:
        self._topics: dict[str, list[weakref.ref[Subscription]]] = {}
        self._closed = False

    def add(self, topic: str) -> Subscription:
        """A reader of `topic`; one that has already ended if the port is closed."""
        reader = Subscription()
        if self._closed:
            reader.close()
        else:
            self._topics.setdefault(topic, []).append(weakref.ref(reader))
        return reader

    def leave(self, topic: str) -> None:
        """The topic's readers end."""
        for reader in self._live(topic):
            reader.close()
        self._topics.pop(topic, None)

    def count(self, topic: str) -> int:
        return len(self._live(topic))

    def topics(self) -> list[str]:
        return list(self._topics)

    def feed(self, topic: str, data: bytes) -> None:
        for reader in self._live(topic):
            reader.feed(data)

    def close(self) -> None:
        self._closed = True
        for topic in self.topics():
            for reader in self._live(topic):
                reader.close()
        self._topics.clear()

    def _live(self, topic: str) -> list[Subscription]:
        readers = [(ref, reader) for ref in self._topics.get(topic, ()) if (reader := ref()) is not None]
        if topic in self._topics:
            self._topics[topic] = [ref for ref, _ in readers]
        return [reader for _, reader in readers]
