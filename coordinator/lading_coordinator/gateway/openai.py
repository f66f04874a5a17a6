"""The OpenAI calls: from a request to a job at the dispatcher, and from its events to an answer, as they come.

No framework and no policy: reading is core.ask's, writing core.answer's, choosing and paying the dispatcher's. A client
that goes away cancels its task, which closes the events and so cancels the job within one step.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Protocol, TypeVar

import msgspec

from lading.core.request import CALL_TOKENS
from lading.dispatch import Ask, Ended, Moved, Payer, Piece, Rows, Started
from lading.dispatch.dispatcher import Event
from lading_coordinator.core.answer import (
    Bill,
    ChunkWriter,
    Matrix,
    Share,
    call_answer,
    completion,
    embeddings,
    error_event,
    tongue,
)
from lading_coordinator.core.ask import (
    EmbedAsk,
    call_request,
    chat_request,
    embed_request,
    parse_call,
    parse_chat,
    parse_embed,
)
from lading_coordinator.core.catalogue import Entry
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.models import PLACES, Models, Terms
from lading_coordinator.gateway.reply import Headers, Reply
from lading_coordinator.gateway.watch import JobWatch
from lading_coordinator.metrics import Metrics
from lading_protocol.ids import Address, JobId, to_hex
from lading_protocol.messages import CallRequest, ChatRequest
from lading_protocol.pricing import prompt_bound
from lading_protocol.receipts import Finish

SSE = b"text/event-stream; charset=utf-8"
Events = AsyncGenerator[Event, None]
R = TypeVar("R", ChatRequest, CallRequest)


class Runner(Protocol):
    """The dispatcher, as far as the gateway uses it."""

    def run(self, payer: Payer, ask: Ask, job: JobId | None = None) -> Events: ...


class Doorman(Protocol):
    """Knows who asks: raises ApiError (401, 402) for a key that may not."""

    async def admit(self, api_key: str) -> Payer: ...

    def working(self, payer: Payer) -> AbstractContextManager[None]:
        """Counts an open request. Raises ApiError (429) when there are too many."""
        ...


class Gateway:
    """`clock` gives Unix seconds, `fresh` so many random bytes."""

    def __init__(
        self,
        runner: Runner,
        doorman: Doorman,
        models: Models,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        fresh: Callable[[int], bytes],
        terms: Terms | None = None,
    ) -> None:
        self._runner = runner
        self._doorman = doorman
        self.models = models
        self._metrics = metrics
        self._clock = clock
        self._fresh = fresh
        self._terms = terms or Terms()

    async def chat(self, request: Request, reply: Reply) -> None:
        """POST /v1/chat/completions"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_chat(request.body)
        entry = self.models.entry(ask.model, "chat")
        wanted = chat_request(ask, entry.agent, self._fresh(32), self._terms.default_tokens)
        if ask.max_tokens is None:
            wanted = _bounded(wanted, entry, self._terms.default_tokens)
        job = JobId(self._fresh(32))
        voice = tongue(job, self._clock(), ask.model, entry.agent)
        with self._doorman.working(payer):
            todo = Ask(entry.agent, wanted, batch=is_batch(request))
            async with aclosing(self._runner.run(payer, todo, job)) as events:
                if ask.stream:
                    await self._stream(events, reply, ChunkWriter(voice, ask.include_usage), "chat")
                else:
                    await self._whole(events, reply, "chat", lambda *end: completion(voice, *end))

    async def call(self, request: Request, reply: Reply) -> None:
        """POST /lading/v1/call: any operation that has no call of OpenAI's. Streams as a chat does."""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_call(request.body)
        entry = self.models.entry(ask.model, ask.operation)
        if ask.operation in PLACES:
            raise ApiError(
                400,
                "unsupported_operation",
                f"A call cannot {ask.operation}.",
                param="operation",
                hint=f"Use {PLACES[ask.operation]}.",
            )
        wanted = call_request(ask, 1)
        if ask.max_tokens is None:
            wanted = _bounded(wanted, entry, CALL_TOKENS)
        job = JobId(self._fresh(32))
        voice = tongue(job, self._clock(), ask.model, entry.agent)
        with self._doorman.working(payer):
            todo = Ask(entry.agent, wanted, batch=is_batch(request))
            async with aclosing(self._runner.run(payer, todo, job)) as events:
                if ask.stream:
                    await self._stream(events, reply, ChunkWriter(voice, include_usage=True), "call")
                else:
                    await self._whole(events, reply, "call", lambda *end: call_answer(voice, ask.operation, *end))

    async def _whole(
        self, events: Events, reply: Reply, kind: str, write: Callable[[str, Finish, Bill], bytes]
    ) -> None:
        texts: list[str] = []
        with JobWatch(self._metrics, kind) as watch:
            async for event in events:
                match event:
                    case Piece():
                        watch.first()
                        texts.append(event.text)
                    case Moved():
                        watch.moved(event)
                    case Ended():
                        watch.ended()
                        body = write("".join(texts), event.finish, self._bill(event))
                        reply.send(200, body, headers=_final(event))
                    case _:
                        pass

    async def _stream(self, events: Events, reply: Reply, writer: ChunkWriter, kind: str) -> None:
        try:
            with JobWatch(self._metrics, kind) as watch:
                await self._chunks(events, reply, writer, watch)
        except ApiError as error:
            if not reply.begun:
                raise
            reply.write(error_event(error))
            reply.end()

    async def _chunks(self, events: Events, reply: Reply, writer: ChunkWriter, watch: JobWatch) -> None:
        host: Address | None = None
        async for event in events:
            match event:
                case Piece():
                    first = not reply.begun
                    if first:
                        watch.first()
                        _begin(reply, writer, host)
                    if event.text:
                        reply.write(writer.text(event.text))
                    if first:
                        reply.flush()  # the first token does not wait for those that came with it
                    await reply.drain()
                case Started():
                    host = event.host
                case Moved():
                    watch.moved(event)
                    host = None
                case Ended():
                    if not reply.begun:
                        _begin(reply, writer, host)
                    watch.ended()
                    reply.write(writer.end(event.finish, self._bill(event)))
                    reply.end()
                case _:
                    pass

    async def embed(self, request: Request, reply: Reply) -> None:
        """POST /v1/embeddings"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_embed(request.body)
        entry = self.models.entry(ask.model, "embed")
        if ask.dimensions not in (None, entry.width):
            raise ApiError(
                400,
                "unsupported_parameter",
                f"{ask.model!r} gives {entry.width} dimensions, not {ask.dimensions}.",
                param="dimensions",
                hint="Leave it out.",
            )
        with self._doorman.working(payer):
            job, wanted = JobId(self._fresh(32)), Ask(entry.agent, embed_request(ask), batch=is_batch(request))
            async with aclosing(self._runner.run(payer, wanted, job)) as events:
                await self._vectors(events, reply, ask)

    async def _vectors(self, events: Events, reply: Reply, ask: EmbedAsk) -> None:
        matrix = Matrix(0, b"")
        with JobWatch(self._metrics, "embed") as watch:
            async for event in events:
                match event:
                    case Rows():
                        watch.first()
                        matrix = Matrix(event.width, event.data)
                    case Moved():
                        watch.moved(event)
                    case Ended():
                        watch.ended()
                        body = embeddings(ask.model, matrix, self._bill(event), as_base64=ask.base64)
                        reply.send(200, body, headers=_final(event))
                    case _:
                        pass

    def _bill(self, ended: Ended) -> Bill:
        shares = tuple(Share(part.host, part.first, part.tokens, part.amount) for part in ended.parts)
        decimals = self._terms.decimals
        return Bill(ended.job, ended.cost, ended.prompt_tokens, ended.output_tokens, shares, decimals)


def is_batch(request: Request) -> bool:
    """Whether the consumer said that this may wait: `x-lading-band: batch`. Raises ApiError."""
    band = request.headers.get(b"x-lading-band", b"interactive").strip().lower()
    if band not in (b"interactive", b"batch"):
        raise ApiError(400, "invalid_value", "The header x-lading-band is 'interactive' or 'batch'.")
    return band == b"batch"


def _bounded(request: R, entry: Entry, usual: int) -> R:
    """With a bound that surely fits behind the prompt: at most `usual`, never less than a quarter of the context."""
    room = max(entry.context - prompt_bound(request), entry.context // 4, 1)
    return msgspec.structs.replace(request, max_tokens=min(usual, room))


def _begin(reply: Reply, writer: ChunkWriter, host: Address | None) -> None:
    """The head of a stream. The host is not named when the first one dropped out before its first token."""
    shown = ((b"x-lading-host", to_hex(host).encode()),) if host is not None else ()
    headers = ((b"cache-control", b"no-cache"), (b"x-lading-job", to_hex(writer.tongue.job).encode()), *shown)
    reply.start(200, SSE, headers)
    reply.write(writer.role())


def _final(ended: Ended) -> Headers:
    hosts = dict.fromkeys(to_hex(part.host) for part in ended.parts)
    return (
        (b"x-lading-job", to_hex(ended.job).encode()),
        (b"x-lading-host", ",".join(hosts).encode()),
        (b"x-lading-cost", str(ended.cost).encode()),
    )
