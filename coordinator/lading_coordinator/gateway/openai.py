"""The OpenAI calls: from a request to jobs at the dispatcher, and from their events to an answer, as they come.

No framework and no policy: reading is core.ask's, writing a dialect's, choosing and paying the dispatcher's. A client
that goes away cancels its task, which closes the events and so cancels the jobs within one step.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing
from typing import Protocol, TypeVar

import msgspec

from lading.core.matching import Filters
from lading.core.request import CALL_TOKENS
from lading.dispatch import Ask, Ended, Moved, Payer, Piece, Rows, Started
from lading.dispatch.dispatcher import Event
from lading_coordinator.core.answer import Bill, Matrix, Share, embeddings
from lading_coordinator.core.ask import (
    ChatAsk,
    call_request,
    chat_requests,
    embed_request,
    parse_call,
    parse_chat,
    parse_completion,
    parse_embed,
)
from lading_coordinator.core.catalogue import Entry
from lading_coordinator.core.chats import CallDialect, ChatDialect
from lading_coordinator.core.completions import CompletionDialect
from lading_coordinator.core.dialect import Answer, Dialect, Voice
from lading_coordinator.core.insisted import Insisted, read_headers
from lading_coordinator.core.response_ask import parse_response
from lading_coordinator.core.responses import ResponseDialect
from lading_coordinator.core.wishes import Wishes
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.elsewhere import comment, pinned
from lading_coordinator.gateway.facts import at_end, at_start
from lading_coordinator.gateway.jobs import Events, interleaved, watched
from lading_coordinator.gateway.models import PLACES, Models, Terms
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.gateway.watch import JobWatch
from lading_coordinator.metrics import Metrics
from lading_protocol.ids import JobId, Wei
from lading_protocol.messages import CallRequest, Chance, ChatRequest, Streamed, operation_of
from lading_protocol.pricing import prompt_bound

SSE = b"text/event-stream; charset=utf-8"
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
        self._usual = Insisted(filters=Filters(near=self._terms.region))

    async def chat(self, request: Request, reply: Reply) -> None:
        """POST /v1/chat/completions"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_chat(request.body)
        plan = self._wished(self._plan(ask, "messages"), request, ask.wishes)
        usage, tools = ask.include_usage, ask.tools
        dialect = ChatDialect(plan.voice, len(plan.wanted), include_usage=usage, tools=tools)
        await self._talk(payer, plan, dialect, reply)

    async def complete(self, request: Request, reply: Reply) -> None:
        """POST /v1/completions"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_completion(request.body)
        plan = self._wished(self._plan(ask, "prompt"), request, ask.wishes)
        dialect = CompletionDialect(plan.voice, len(plan.wanted), include_usage=ask.include_usage)
        await self._talk(payer, plan, dialect, reply)

    async def respond(self, request: Request, reply: Reply) -> None:
        """POST /v1/responses"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_response(request.body)
        plan = self._wished(self._plan(ask.chat, "input"), request, ask.chat.wishes)
        await self._talk(payer, plan, ResponseDialect(plan.voice, ask.echo, ask.chat.tools), reply)

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
        plan = self._made(entry, ask.model, [wanted], "input", stream=ask.stream)
        plan = self._wished(plan, request, ask.wishes)
        await self._talk(payer, plan, CallDialect(plan.voice, ask.operation), reply)

    def _plan(self, ask: ChatAsk, given: str) -> "Plan":
        """Raises ApiError."""
        entry = self.models.entry(ask.model, "chat")
        usual = self._terms.default_tokens
        wanted = chat_requests(ask, entry.agent, self._fresh(32), usual)
        if ask.max_tokens is None:
            wanted = [_bounded(one, entry, usual) for one in wanted]
        return self._made(entry, ask.model, wanted, given, stream=ask.stream)

    def _wished(self, plan: "Plan", request: Request, wishes: Wishes) -> "Plan":
        """As the consumer wants it done. Raises ApiError."""
        insisted = read_headers(request.headers, self._usual)
        wanted = tuple(
            msgspec.structs.replace(
                ask,
                max_price=insisted.max_price,
                filters=insisted.filters,
                batch=insisted.batch or wishes.flex,
                hedge=insisted.hedge,
                emitted=wishes.emitted,
            )
            for ask in plan.wanted
        )
        return msgspec.structs.replace(plan, wanted=wanted, ids=insisted.ids and len(wanted) == 1)

    def _made(self, entry: Entry, model: str, wanted: Sequence[Streamed], given: str, *, stream: bool) -> "Plan":
        jobs = tuple(JobId(self._fresh(32)) for _ in wanted)
        voice = Voice(jobs[0], int(self._clock()), model, f"lading-{entry.agent.hex()[:16]}")
        return Plan(voice, jobs, tuple(Ask(entry.agent, one) for one in wanted), given, stream)

    async def _talk(self, payer: Payer, plan: "Plan", dialect: Dialect, reply: Reply) -> None:
        """Runs the jobs of a plan, and answers in a dialect."""
        with ExitStack() as working:
            for _ in plan.jobs:
                working.enter_context(self._doorman.working(payer))
            jobs = [self._run(payer, ask, job, plan.given) for ask, job in zip(plan.wanted, plan.jobs, strict=True)]
            if plan.stream:
                await self._stream(jobs, reply, dialect, plan)
            else:
                await self._whole(jobs, reply, dialect)

    def _run(self, payer: Payer, ask: Ask, job: JobId, given: str) -> Events:
        kind = "call" if isinstance(ask.request, CallRequest) else operation_of(ask.request)
        return watched(self._runner.run(payer, ask, job), JobWatch(self._metrics, kind, given))

    async def _whole(self, jobs: Sequence[Events], reply: Reply, dialect: Dialect) -> None:
        texts: list[list[str]] = [[] for _ in jobs]
        chances: list[list[Chance]] = [[] for _ in jobs]
        ends: dict[int, Ended] = {}
        async with aclosing(interleaved(jobs)) as events:
            async for index, event in events:
                match event:
                    case Piece():
                        texts[index].append(event.text)
                        chances[index] += event.chances
                    case Ended():
                        ends[index] = event
                    case _:
                        pass
        ended = [ends[index] for index in range(len(jobs))]
        answers = [Answer("".join(texts[i]), one.finish, tuple(chances[i])) for i, one in enumerate(ended)]
        reply.send(200, dialect.whole(answers, self._bill(ended)), headers=at_end(ended))

    async def _stream(self, jobs: Sequence[Events], reply: Reply, dialect: Dialect, plan: "Plan") -> None:
        try:
            async with aclosing(interleaved(jobs)) as events:
                await self._pieces(events, reply, dialect, plan)
        except ApiError as error:
            if not reply.begun:
                raise
            reply.write(dialect.broken(error))
            reply.end()

    async def _pieces(
        self, events: AsyncGenerator[tuple[int, Event], None], reply: Reply, dialect: Dialect, plan: "Plan"
    ) -> None:
        started: dict[int, Started] = {}
        ends: dict[int, Ended] = {}
        async for index, event in events:
            match event:
                case Piece():
                    first = not reply.begun
                    if first:
                        self._begin(reply, dialect, plan, started)
                    piece = dialect.piece(index, event.text, event.chances)
                    reply.write(comment(event.first, event.ids, piece) if plan.ids else piece)
                    if first:
                        reply.flush()  # the first token does not wait for those that came with it
                    await reply.drain()
                case Started():
                    started[index] = event
                case Moved():
                    started.pop(index, None)
                case Ended():
                    if not reply.begun:
                        self._begin(reply, dialect, plan, started)
                    ends[index] = event
                    reply.write(dialect.finished(index, event.finish))
                case _:
                    pass
        reply.write(dialect.end(self._bill([ends[index] for index in range(len(plan.jobs))])))
        reply.end()

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
            insisted = read_headers(request.headers, self._usual)
            wanted = Ask(entry.agent, embed_request(ask), insisted.max_price, insisted.filters, batch=insisted.batch)
            matrix = Matrix(0, b"")
            async with aclosing(self._run(payer, wanted, JobId(self._fresh(32)), "input")) as events:
                async for event in events:
                    match event:
                        case Rows():
                            matrix = Matrix(event.width, event.data)
                        case Ended():
                            body = embeddings(ask.model, matrix, self._bill([event]), as_base64=ask.base64)
                            reply.send(200, body, headers=at_end([event]))
                        case _:
                            pass

    def _begin(self, reply: Reply, dialect: Dialect, plan: "Plan", started: Mapping[int, Started]) -> None:
        """The head of a stream, and what comes before its first piece."""
        more = pinned(plan.wanted) if plan.ids else ()
        if self._terms.gateways:
            more = (*more, (b"x-lading-gateways", ",".join(self._terms.gateways).encode()))
        reply.start(200, SSE, ((b"cache-control", b"no-cache"), *at_start(plan.jobs, started), *more))
        reply.write(dialect.begin())

    def _bill(self, ended: Sequence[Ended]) -> Bill:
        return Bill(
            jobs=tuple(one.job for one in ended),
            cost=Wei(sum(one.cost for one in ended)),
            prompt_tokens=sum(one.prompt_tokens for one in ended),
            output_tokens=sum(one.output_tokens for one in ended),
            shares=tuple(Share(part.host, part.first, part.tokens, part.amount) for one in ended for part in one.parts),
            decimals=self._terms.decimals,
        )


class Plan(msgspec.Struct, frozen=True):
    """A reply to be: its jobs, and what each asks for. `given` is what the request calls its prompt, `ids` whether
    tokens are told beside the text."""

    voice: Voice
    jobs: tuple[JobId, ...]
    wanted: tuple[Ask, ...]
    given: str
    stream: bool
    ids: bool = False


def _bounded(request: R, entry: Entry, usual: int) -> R:
    """With a bound that surely fits behind the prompt: at most `usual`, never less than a quarter of the context."""
    room = max(entry.context - prompt_bound(request), entry.context // 4, 1)
    return msgspec.structs.replace(request, max_tokens=min(usual, room))
