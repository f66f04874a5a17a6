"""The jobs behind one reply: watched for the metrics, and several at once as one stream of events."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from lading.dispatch import Ended, Moved, Piece, Rows
from lading.dispatch.dispatcher import Event
from lading_coordinator.gateway.watch import JobWatch

Events = AsyncGenerator[Event, None]
# Events of all jobs together that wait for a slow reader.
MOST_WAITING = 16


async def watched(events: Events, watch: JobWatch) -> Events:
    """A LadingError leaves it as an ApiError."""
    with watch:
        async with aclosing(events):
            async for event in events:
                match event:
                    case Piece() | Rows():
                        watch.first()
                    case Moved():
                        watch.moved(event)
                    case Ended():
                        watch.ended()
                    case _:
                        pass
                yield event


async def interleaved(jobs: Sequence[Events]) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of all jobs as they come, each with its job's index. Where one fails, all are cancelled."""
    if len(jobs) == 1:
        async with aclosing(jobs[0]) as events:
            async for one in events:
                yield 0, one
        return
    queue: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue(MOST_WAITING)
    tasks = [asyncio.ensure_future(_pump(index, events, queue)) for index, events in enumerate(jobs)]
    try:
        left = len(tasks)
        while left:
            index, event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield index, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(index: int, events: Events, queue: "asyncio.Queue[tuple[int, Event | Exception | None]]") -> None:
    try:
        async with aclosing(events):
            async for event in events:
                await queue.put((index, event))
    except Exception as error:
        await queue.put((index, error))
    else:
        await queue.put((index, None))
