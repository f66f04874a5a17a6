"""The OpenAI calls: from a request to a job at the dispatcher, and from its events to an answer, as they come.

No framework and no policy: reading is core.ask's, writing core.answer's, choosing and paying the dispatcher's. A client
that goes away cancels its task, which closes the events and so cancels the job within one step.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

import msgspec

from lading.core.matching import prompt_bound
from lading.dispatch import Ask, Directory, Ended, Moved, Payer, Piece, Rows, Started
from lading.dispatch.dispatcher import Event
from lading_coordinator.core.answer import (
    Bill,
    ChunkWriter,
    Matrix,
    Share,
    completion,
    embeddings,
    error_event,
    tongue,
)
from lading_coordinator.core.ask import chat_request, embed_request, parse_chat, parse_embed
from lading_coordinator.core.catalogue import Catalogue, Entry, model_tree
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.refusals import as_api_error
from lading_coordinator.gateway.reply import Headers, Reply
from lading_coordinator.metrics import Metrics
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, JobId, to_hex
from lading_protocol.messages import ChatRequest
from lading_protocol.offers import KnownOffer

SSE = b"text/event-stream; charset=utf-8"
_encode = msgspec.json.Encoder().encode


class Runner(Protocol):
    """The dispatcher, as far as the gateway uses it."""

    def run(self, payer: Payer, ask: Ask, job: JobId | None = None) -> AsyncGenerator[Event, None]: ...


class Doorman(Protocol):
    """Knows who asks: raises ApiError (401, 402) for a key that may not."""

    async def admit(self, api_key: str) -> Payer: ...

    def working(self, payer: Payer) -> AbstractContextManager[None]:
        """Counts a running job. Raises ApiError (429) when there are too many."""
        ...


class Terms(msgspec.Struct, frozen=True):
    """What the gateway grants and prints. `default_tokens` bounds an answer whose request sets no bound."""

    default_tokens: int = 512
    decimals: int = 18
    symbol: str = "LADE"


class Gateway:
    """`clock` gives Unix seconds, `fresh` so many random bytes."""

    def __init__(
        self,
        runner: Runner,
        doorman: Doorman,
        catalogue: Catalogue,
        directory: Directory,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        fresh: Callable[[int], bytes],
        terms: Terms | None = None,
    ) -> None:
        self._runner = runner
        self._doorman = doorman
        self._catalogue = catalogue
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._fresh = fresh
        self._terms = terms or Terms()

    async def chat(self, request: Request, reply: Reply) -> None:
        """POST /v1/chat/completions"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_chat(request.body)
        entry = self._entry(ask.model, "chat")
        wanted = chat_request(ask, entry.agent, self._fresh(32), self._terms.default_tokens)
        if ask.max_tokens is None:
            wanted = msgspec.structs.replace(wanted, max_tokens=self._default_tokens(entry, wanted))
        job = JobId(self._fresh(32))
        voice = tongue(job, self._clock(), ask.model, entry.agent)
        with self._doorman.working(payer):
            async with aclosing(self._events(payer, Ask(entry.agent, wanted), job, "chat")) as events:
                if ask.stream:
                    await self._stream(events, reply, ChunkWriter(voice, ask.include_usage), job)
                    return
                texts: list[str] = []
                async for event in events:
                    if isinstance(event, Piece):
                        texts.append(event.text)
                    elif isinstance(event, Ended):
                        body = completion(voice, "".join(texts), event.finish, self._bill(event))
                        reply.send(200, body, headers=_final(event))

    async def _stream(self, events: AsyncGenerator[Event, None], reply: Reply, writer: ChunkWriter, job: JobId) -> None:
        host: Address | None = None
        try:
            async for event in events:
                match event:
                    case Started():
                        host = event.host
                    case Moved() if not reply.begun:
                        host = None
                    case Piece():
                        if not reply.begun:
                            reply.start(200, SSE, _opening(job, host))
                            reply.write(writer.role())
                        if event.text:
                            reply.write(writer.text(event.text))
                        await reply.drain()
                    case Ended():
                        if not reply.begun:
                            reply.start(200, SSE, _opening(job, host))
                            reply.write(writer.role())
                        reply.write(writer.end(event.finish, self._bill(event)))
                        reply.end()
                    case _:
                        pass
        except ApiError as error:
            if not reply.begun:
                raise
            reply.write(error_event(error))
            reply.end()

    async def embed(self, request: Request, reply: Reply) -> None:
        """POST /v1/embeddings"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_embed(request.body)
        entry = self._entry(ask.model, "embed")
        if ask.dimensions not in (None, entry.width):
            raise ApiError(
                400,
                "unsupported_parameter",
                f"{ask.model!r} gives {entry.width} dimensions, not {ask.dimensions}.",
                param="dimensions",
                hint="Leave it out.",
            )
        rows: Rows | None = None
        with self._doorman.working(payer):
            job, wanted = JobId(self._fresh(32)), Ask(entry.agent, embed_request(ask))
            async with aclosing(self._events(payer, wanted, job, "embed")) as events:
                async for event in events:
                    if isinstance(event, Rows):
                        rows = event
                    elif isinstance(event, Ended) and rows is not None:
                        matrix = Matrix(rows.width, rows.data)
                        body = embeddings(ask.model, matrix, self._bill(event), as_base64=ask.base64)
                        reply.send(200, body, headers=_final(event))

    async def models(self, request: Request, reply: Reply) -> None:
        """GET /v1/models"""
        trees = [
            model_tree(entry, offers, self._terms.decimals, self._terms.symbol)
            for entry in self._catalogue.entries()
            if (offers := self.live(entry.agent))
        ]
        reply.send(200, _encode({"object": "list", "data": trees}))

    async def model(self, request: Request, reply: Reply, name: str) -> None:
        """GET /v1/models/{id}"""
        entry = self._catalogue.resolve(name, self.alive)
        tree = model_tree(entry, self.live(entry.agent), self._terms.decimals, self._terms.symbol)
        reply.send(200, _encode(tree | {"id": name}))

    def live(self, agent: AgentId) -> list[KnownOffer]:
        """The offers of an agent whose hosts could be chosen now."""
        now = self._clock()
        return [
            one.offer
            for one in self._directory.candidates(agent)
            if not one.barred and one.beat_at is not None and now - one.beat_at <= 5 and one.offer.offer.expires > now
        ]

    def alive(self, agent: AgentId) -> bool:
        return bool(self.live(agent))

    def _entry(self, model: str, operation: str) -> Entry:
        entry = self._catalogue.resolve(model, self.alive)
        if operation not in entry.operations:
            where = "/v1/embeddings" if "embed" in entry.operations else "/v1/chat/completions"
            raise ApiError(
                400,
                "unsupported_operation",
                f"The model {model!r} does not serve this call.",
                param="model",
                hint=f"Use {where}, or another model.",
            )
        return entry

    def _bill(self, ended: Ended) -> Bill:
        shares = tuple(Share(part.host, part.first, part.tokens, part.amount) for part in ended.parts)
        decimals = self._terms.decimals
        return Bill(ended.job, ended.cost, ended.prompt_tokens, ended.output_tokens, shares, decimals)

    def _default_tokens(self, entry: Entry, request: ChatRequest) -> int:
        """What surely fits behind the prompt, at most the setting, and never less than a quarter of the context."""
        room = max(entry.context - prompt_bound(request), entry.context // 4, 1)
        return min(self._terms.default_tokens, room)

    async def _events(self, payer: Payer, ask: Ask, job: JobId, operation: str) -> AsyncGenerator[Event, None]:
        """The job's events, counted, and with errors as callers read them."""
        began, first = time.perf_counter(), True
        code = "cancelled"
        self._metrics.running.inc()
        try:
            async with aclosing(self._runner.run(payer, ask, job)) as events:
                async for event in events:
                    if first and isinstance(event, Piece | Rows):
                        first = False
                        self._metrics.first_token.labels(operation).observe(time.perf_counter() - began)
                    elif isinstance(event, Moved):
                        self._metrics.moved.labels(event.code[:32]).inc()
                    elif isinstance(event, Ended):
                        code = "ok"
                    yield event
        except LadingError as error:
            refusal = as_api_error(error, operation)
            code = refusal.code
            raise refusal from error
        finally:
            self._metrics.running.dec()
            self._metrics.jobs.labels(operation, code).inc()


def _opening(job: JobId, host: Address | None) -> Headers:
    shown = ((b"x-lading-host", to_hex(host).encode()),) if host is not None else ()
    return ((b"cache-control", b"no-cache"), (b"x-lading-job", to_hex(job).encode()), *shown)


def _final(ended: Ended) -> Headers:
    hosts = dict.fromkeys(to_hex(part.host) for part in ended.parts)
    return (
        (b"x-lading-job", to_hex(ended.job).encode()),
        (b"x-lading-host", ",".join(hosts).encode()),
        (b"x-lading-cost", str(ended.cost).encode()),
    )
