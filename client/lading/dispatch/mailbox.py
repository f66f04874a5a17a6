"""A listener whose events are taken one by one. While one lies here untaken the host is not read."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from lading.dispatch.events import Event


class Mailbox:
    """Implements Listener."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._over = False
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    @property
    def full(self) -> bool:
        return bool(self._events)

    def hear(self, event: Event) -> None:
        self._events.append(event)
        self._none.clear()
        self._some.set()

    async def drain(self) -> None:
        await self._none.wait()

    def close(self, carrying: object) -> None:
        """No more will come."""
        self._over = True
        self._some.set()

    async def events(self) -> AsyncGenerator[Event, None]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._none.set()
            if self._over:
                return
            self._some.clear()
            await self._some.wait()
