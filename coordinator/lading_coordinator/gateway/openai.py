"""The OpenAI calls: from a request to jobs at the dispatcher, and from their events to an answer, as they come.

No framework and no policy: reading is core.ask's, writing a dialect's, choosing and paying the dispatcher's. A client
that goes away cancels its task, and so the jobs within one step.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from lading.core.continued import Rest
from lading.core.matching import Filters
from lading.core.request import CALL_TOKENS
from lading.dispatch import Ask, Ended, Listener, Payer
from lading_coordinator.core.answer import Bill, Share, embeddings
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
from lading_coordinator.core.dialect import Dialect, Voice, broken
from lading_coordinator.core.insisted import Insisted, read_headers
from lading_coordinator.core.response_ask import parse_response
from lading_coordinator.core.responses import ResponseDialect
from lading_coordinator.core.wishes import Wishes
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.elsewhere import begun_of, meant, named_by, pinned
from lading_coordinator.gateway.facts import at_end
from lading_coordinator.gateway.followed import Account, Course, Followed
from lading_coordinator.gateway.jobs import Heard, Telling, together
from lading_coordinator.gateway.models import PLACES, Models, Terms
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.gateway.tellings import Flowing, Gathered, Vectors
from lading_coordinator.gateway.watch import JobWatch
from lading_coordinator.metrics import Metrics
from lading_protocol.ids import JobId, Wei, from_hex
from lading_protocol.messages import CallRequest, ChatRequest, EmbedRequest, Streamed, operation_of
from lading_protocol.pricing import prompt_bound

R = TypeVar("R", ChatRequest, CallRequest)


class Runner(Protocol):
    """The dispatcher, as far as the gateway uses it."""

    async def carry(self, payer: Payer, ask: Ask, listener: Listener, job: JobId | None = None) -> None: ...


class Doorman(Protocol):
    """Knows who asks: raises ApiError (401, 402) for a key that may not."""

    async def admit(self, api_key: str) -> Payer: ...

    def working(self, payer: Payer, count: int = 1) -> AbstractContextManager[None]:
        """Counts so many jobs. Raises ApiError (429) when there are too many."""
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
        plan = self._plan(request, ask, "messages")
        usage, tools = ask.include_usage, ask.tools
        dialect = ChatDialect(plan.voice, len(plan.course.most), include_usage=usage, tools=tools)
        await self._talk(payer, plan, dialect, reply)

    async def complete(self, request: Request, reply: Reply) -> None:
        """POST /v1/completions"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_completion(request.body)
        plan = self._plan(request, ask, "prompt")
        dialect = CompletionDialect(plan.voice, len(plan.course.most), include_usage=ask.include_usage)
        await self._talk(payer, plan, dialect, reply)

    async def respond(self, request: Request, reply: Reply) -> None:
        """POST /v1/responses"""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_response(request.body)
        plan = self._plan(request, ask.chat, "input")
        await self._talk(payer, plan, ResponseDialect(plan.voice, ask.echo, ask.chat.tools), reply)

    async def call(self, request: Request, reply: Reply) -> None:
        """POST /lading/v1/call: any operation that has no call of OpenAI's. Streams as a chat does."""
        payer = await self._doorman.admit(request.bearer())
        ask = parse_call(request.body)
        entry = self.models.entry(meant(ask.model, ask.wishes), ask.operation)
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
        plan = self._made(request, entry, [wanted], Told(ask.model, "input", ask.stream, ask.wishes))
        await self._talk(payer, plan, CallDialect(plan.voice, ask.operation), reply)

    def _plan(self, request: Request, ask: ChatAsk, given: str) -> "Plan":
        """Raises ApiError."""
        entry = self.models.entry(meant(ask.model, ask.wishes), "chat")
        usual = self._terms.default_tokens
        wanted = chat_requests(ask, entry.agent, self._fresh(32), usual)
        if ask.max_tokens is None:
            wanted = [_bounded(one, entry, usual) for one in wanted]
        return self._made(request, entry, wanted, Told(ask.model, given, ask.stream, ask.wishes))

    def _made(self, request: Request, entry: Entry, wanted: Sequence[Streamed], told: "Told") -> "Plan":
        """As the consumer wants it done. Raises ApiError."""
        insisted, wishes = read_headers(request.headers, self._usual), told.wishes
        begun = begun_of(wishes, len(wanted), insisted.ids)
        asks = tuple(
            [
                Ask(
                    entry.agent,
                    one if there.rest is None else msgspec.structs.replace(one, max_tokens=there.rest.most),
                    insisted.max_price,
                    insisted.filters,
                    insisted.batch or wishes.flex,
                    there.ids,
                    insisted.hedge,
                    there.proof,
                    insisted.ids == 2,
                )
                for one, there in zip(wanted, begun, strict=True)
            ]
        )
        most = tuple(one.request.max_tokens for one in asks if not isinstance(one.request, EmbedRequest))
        places = tuple(at for at, there in enumerate(begun) if not there.whole)
        jobs = tuple([JobId(self._fresh(32)) for _ in places])
        named, created = (jobs[0], int(self._clock())) if wishes.rest is None else named_by(wishes.rest)
        voice = Voice(named, created, told.model, f"lading-{entry.agent.hex()[:16]}")
        course = Course(entry.agent, created, jobs, places, most, wishes.rest, told.stream)
        return Plan(voice, jobs, tuple([asks[at] for at in places]), told.given, course, insisted.ids)

    async def _talk(self, payer: Payer, plan: "Plan", dialect: Dialect, reply: Reply) -> None:
        """Runs the jobs of a plan, and answers in a dialect."""
        with self._doorman.working(payer, len(plan.jobs)):
            if plan.ids == 2 or plan.course.stream:
                await self._stream(payer, plan, dialect, reply)
                return
            gathered = Gathered(len(plan.jobs))
            await self._carry(payer, plan, gathered)
            ended = gathered.ended
            reply.send(200, dialect.whole(gathered.answers(), self._bill(ended)), headers=at_end(ended))

    async def _stream(self, payer: Payer, plan: "Plan", dialect: Dialect, reply: Reply) -> None:
        try:
            await self._carry(payer, plan, self._telling(plan, dialect, reply))
        except ApiError as error:
            if not reply.begun:
                raise
            reply.write(dialect.broken(error) if plan.course.stream else broken(error))
            reply.end()

    def _telling(self, plan: "Plan", dialect: Dialect, reply: Reply) -> Telling:
        named = ",".join(self._terms.gateways).encode()
        more = ((b"x-lading-gateways", named),) if named else ()
        if plan.ids == 2:
            return Followed(reply, dialect, plan.course, more, partial(self._whole_bill, plan.course.rest))
        ids = plan.ids == 1 and len(plan.wanted) == 1
        told = (*pinned(plan.wanted), *more) if ids else more
        return Flowing(reply, dialect, plan.jobs, told, self._bill, ids=ids)

    async def _carry(self, payer: Payer, plan: "Plan", telling: Telling) -> None:
        jobs = zip(plan.course.places, plan.wanted, plan.jobs, strict=True)
        await together([self._run(payer, ask, job, plan.given, telling, at) for at, ask, job in jobs])

    async def _run(self, payer: Payer, ask: Ask, job: JobId, given: str, telling: Telling, index: int = 0) -> None:
        kind = "call" if isinstance(ask.request, CallRequest) else operation_of(ask.request)
        with JobWatch(self._metrics, kind, given) as watch:
            await self._runner.carry(payer, ask, Heard(telling, index, watch), job)

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
            vectors = Vectors()
            await self._run(payer, wanted, JobId(self._fresh(32)), "input", vectors)
            bill = self._bill(vectors.ended)
            body = embeddings(ask.model, vectors.matrix, bill, as_base64=ask.base64)
            reply.send(200, body, headers=at_end(vectors.ended))

    def _bill(self, ended: Sequence[Ended]) -> Bill:
        return Bill(
            jobs=tuple(one.job for one in ended),
            cost=Wei(sum(one.cost for one in ended)),
            prompt_tokens=sum(one.prompt_tokens for one in ended),
            output_tokens=sum(one.output_tokens for one in ended),
            shares=tuple(Share(part.host, part.first, part.tokens, part.amount) for one in ended for part in one.parts),
            decimals=self._terms.decimals,
        )

    def _whole_bill(self, rest: Rest | None, account: Account) -> Bill:
        """Of an answer of which a part may have come from elsewhere."""
        here = self._bill(account.ended)
        before = () if rest is None else tuple(JobId(from_hex(job, 32)) for job in rest.jobs)
        return msgspec.structs.replace(
            here,
            jobs=(*before, *here.jobs),
            cost=Wei(here.cost + (0 if rest is None else int(rest.paid))),
            prompt_tokens=account.prompt_tokens,
            output_tokens=account.output_tokens,
        )


class Told(NamedTuple):
    """What a request says beside what is sent to hosts; `given` is what it calls its prompt."""

    model: str
    given: str
    stream: bool
    wishes: Wishes


class Plan(msgspec.Struct, frozen=True):
    """A reply to be: its jobs, and what each asks for. `given` is what the request calls its prompt, `ids` whether and
    how tokens are told beside the text (Insisted)."""

    voice: Voice
    jobs: tuple[JobId, ...]
    wanted: tuple[Ask, ...]
    given: str
    course: Course
    ids: int = 0


def _bounded(request: R, entry: Entry, usual: int) -> R:
    """With a bound that surely fits behind the prompt: at most `usual`, never less than a quarter of the context."""
    room = max(entry.context - prompt_bound(request), entry.context // 4, 1)
    return msgspec.structs.replace(request, max_tokens=min(usual, room))
