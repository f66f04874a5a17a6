"""The jobs behind one reply: each is heard by the metrics and by the answer, and where one fails all are cancelled."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol

from lading.dispatch import Ended, Moved, Piece, Rows
from lading.dispatch.dispatcher import Event
from lading_coordinator.gateway.refusals import as_api_error
from lading_coordinator.metrics import Metrics
from lading_protocol.errors import LadingError


class Telling(Protocol):
    """What becomes of the events of all jobs of a reply; `index` says whose one is."""

    def tell(self, index: int, event: Event) -> None: ...

    def lull(self) -> bool:
        """Nothing more is at hand for now. Whether more is wanted."""
        ...

    async def drain(self) -> None: ...


class Heard:
    """Listens to one of them, and is around it: what ends it is counted, and a LadingError leaves as an ApiError.

    Costs next to nothing per token. Implements lading.dispatch.Listener. `given` is what the request calls its prompt.
    """

    __slots__ = ("_began", "_code", "_given", "_index", "_metrics", "_operation", "_telling", "_waits")

    def __init__(self, telling: Telling, index: int, metrics: Metrics, operation: str, given: str) -> None:
        self._telling = telling
        self._index = index
        self._metrics = metrics
        self._operation = operation
        self._given = given
        self._code = "cancelled"
        self._waits = True
        self._began = 0.0

    def __enter__(self) -> "Heard":
        self._began = time.perf_counter()
        self._metrics.began.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refusal = as_api_error(error, self._given) if isinstance(error, LadingError) else None
        self._metrics.began.inc(-1)
        self._metrics.jobs_of(self._operation, refusal.code if refusal else self._code).inc()
        if refusal is not None and refusal is not error:
            raise refusal from error

    def hear(self, event: Event) -> None:
        kind = type(event)
        if self._waits and (kind is Piece or kind is Rows):
            self._waits = False
            self._metrics.first_of(self._operation).observe(time.perf_counter() - self._began)
        elif kind is Ended:
            self._code = "ok"
        elif type(event) is Moved:
            self._metrics.moved.labels(event.code[:32]).inc()
        self._telling.tell(self._index, event)

    def lull(self) -> bool:
        return self._telling.lull()

    async def drain(self) -> None:
        await self._telling.drain()


async def together(jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of them to their end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    failure: BaseException | None = None
    try:
        await asyncio.gather(*tasks)
    except BaseException as error:
        failure = error
    if failure is not None:  # not in `finally`: compiled, that would lose the failure
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            raise failure
        finally:
            del failure  # else it holds itself, through its traceback
