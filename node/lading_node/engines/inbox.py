"""The events of one request that have arrived and are not yet taken: a queue for one reader in one event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from lading_node.engines.port import (
    Embed,
    Embedded,
    Event,
    Failed,
    Finished,
    Generate,
    Run,
    Score,
    Scored,
    Started,
    Traced,
)
from lading_node.engines.wire import Vector, is_last
from lading_protocol.messages import ChatRequest, RichChat
from lading_protocol.pricing import prompt_bound
from lading_protocol.transcript import SKETCH_BYTES

_MESSAGE = 256 << 10
_TOKEN = 1 << 10
_LIKELY = 320
_VECTOR = 512 << 10

Arrival = Started | Traced | Run | Finished | Failed | Scored | Vector


class Inbox:
    """`room` is how many more bytes of messages its request can honestly cause; see room_of."""

    __slots__ = ("_events", "_waiter", "ended", "id", "room")

    def __init__(self, id: str, room: int = 0) -> None:
        self.id = id
        self.room = room
        self.ended = False
        self._events: deque[Arrival] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Arrival) -> None:
        """What arrives after the end is dropped."""
        if self.ended:
            return
        self.ended = is_last(event)
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Arrival:
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()


async def streamed(inbox: Inbox, ahead: int, taken: Callable[[int], None]) -> AsyncGenerator[Event, None]:
    """A generation's events. `taken` hears now and then how many tokens the reader has, where `ahead` limits them."""
    told = count = 0
    while True:
        event = await inbox.get()
        assert not isinstance(event, Vector | Scored)
        yield event
        if isinstance(event, Finished | Failed):
            return
        if isinstance(event, Run):
            count += len(event.ids)
            if ahead and count - told >= max(1, ahead // 2):
                told = count
                taken(count)


async def gathered(inbox: Inbox) -> Embedded | Failed:
    """All rows of an embedding."""
    rows: list[Vector] = []
    while True:
        event = await inbox.get()
        if isinstance(event, Failed):
            return event
        assert isinstance(event, Vector)
        rows.append(event)
        if not event.left:
            return embedded(inbox.id, rows)


async def scored(inbox: Inbox) -> Scored | Failed:
    event = await inbox.get()
    assert isinstance(event, Scored | Failed)
    return event


def room_of(order: Generate | Embed | Score) -> int:
    """Bytes of messages that an order can cause at most, generously: an engine that sends more floods its host."""
    match order:
        case Generate(request=ChatRequest() as request, emitted=emitted):
            return _MESSAGE + request.max_tokens * (_TOKEN + _chances(request)) + _sketch(request, emitted)
        case Generate(request=request):
            return _MESSAGE + request.max_tokens * _TOKEN
        case Embed(request=request):
            return _MESSAGE + len(request.inputs) * _VECTOR
        case Score(request=ChatRequest() as request, emitted=emitted):
            return _MESSAGE + len(emitted) * _TOKEN + _sketch(request, emitted)
        case Score(emitted=emitted):
            return _MESSAGE + len(emitted) * _TOKEN


def _sketch(request: ChatRequest, emitted: Sequence[int]) -> int:
    """Of a prompt and what follows it: no token has less than a byte, and a template adds little to a message."""
    prompt = sum(len(message.content.encode()) + 64 for message in request.messages)
    if isinstance(request, RichChat):
        prompt = max(prompt, prompt_bound(request))
    return 2 * SKETCH_BYTES * (prompt + len(emitted))


def _chances(request: ChatRequest) -> int:
    return _LIKELY * (1 + request.logprobs) if isinstance(request, RichChat) and request.logprobs else 0


def embedded(id: str, rows: Sequence[Vector]) -> Embedded:
    """The rows of a finished embedding as one value."""
    vectors, tokens = tuple(row.data for row in rows), tuple(row.tokens for row in rows)
    return Embedded(id, len(vectors[0]) // 4, vectors, tokens)
