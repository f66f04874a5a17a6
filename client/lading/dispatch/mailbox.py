"""A listener whose events are taken one by one. While one lies here untaken the host is not read."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from lading.dispatch.events import Event, Listener


class Mailbox:
    """Implements Listener."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._over = False
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    def hear(self, event: Event) -> None:
        self._events.append(event)
        self._none.clear()
        self._some.set()

    def lull(self) -> bool:
        return not self._events

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


async def one_by_one(carry: Callable[[Listener], Coroutine[Any, Any, None]]) -> AsyncGenerator[Event, None]:
    """What `carry` tells its listener. Closing the generator cancels it."""
    heard = Mailbox()
    carrying = asyncio.ensure_future(carry(heard))
    carrying.add_done_callback(heard.close)
    try:
        async for event in heard.events():
            yield event
        await carrying
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
