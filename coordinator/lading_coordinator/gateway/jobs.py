"""The jobs behind one reply: each is heard by the metrics and by the answer, and where one fails all are cancelled."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from lading.dispatch import Ended, Moved, Piece, Rows
from lading.dispatch.dispatcher import Event
from lading_coordinator.gateway.watch import JobWatch


class Telling(Protocol):
    """What becomes of the events of all jobs of a reply; `index` says whose one is."""

    @property
    def full(self) -> bool: ...

    def tell(self, index: int, event: Event) -> None: ...

    async def drain(self) -> None: ...


class Heard:
    """Listens to one of them. Implements lading.dispatch.Listener."""

    __slots__ = ("_index", "_telling", "_watch", "drain")

    def __init__(self, telling: Telling, index: int, watch: JobWatch) -> None:
        self._telling = telling
        self._index = index
        self._watch = watch
        self.drain = telling.drain

    @property
    def full(self) -> bool:
        return self._telling.full

    def hear(self, event: Event) -> None:
        match event:
            case Piece() | Rows():
                self._watch.first()
            case Moved():
                self._watch.moved(event)
            case Ended():
                self._watch.ended()
            case _:
                pass
        self._telling.tell(self._index, event)


async def together(jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of them to their end."""
    if len(jobs) == 1:
        await jobs[0]
        return
    tasks = [asyncio.ensure_future(job) for job in jobs]
    failure: BaseException | None = None
    try:
        await asyncio.gather(*tasks)
    except BaseException as error:
        failure = error
    if failure is not None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise failure
