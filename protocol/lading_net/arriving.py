"""How a stream waits for what arrives: read() and watch() of ports.Stream, over a poll() of each stream's own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable


class Arriving(ABC):
    """A stream calls `_wake_reader` whenever its poll() has something new to say."""

    __slots__ = ("_reader", "_watcher")

    def __init__(self) -> None:
        self._reader: asyncio.Future[None] | None = None
        self._watcher: Callable[[], None] | None = None

    @abstractmethod
    def poll(self) -> bytes | None: ...

    async def read(self) -> bytes:
        while (data := self.poll()) is None:
            if self._reader is not None:
                raise RuntimeError("another task is reading this stream")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return data

    def watch(self, callback: Callable[[], None] | None) -> None:
        self._watcher = callback

    def _wake_reader(self) -> None:
        if self._watcher is not None:
            self._watcher()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
