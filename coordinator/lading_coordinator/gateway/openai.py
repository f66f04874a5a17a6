"""The OpenAI calls: from a request to jobs at the dispatcher, and from their events to an answer, as they come.

No framework and no policy: reading is core.ask's, writing a dialect's, choosing and paying the dispatcher's. A client
that goes away cancels its task, and so the jobs within one step.
"""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar

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
from lading_coordinator.gateway.reply import JSON, Reply
from lading_coordinator.gateway.tellings import Flowing, Gathered, Vectors
from lading_coordinator.metrics import Metrics
from lading_protocol.ids import JOB_CHANCE, JobId, Wei, from_hex, new_job
from lading_protocol.messages import CallRequest, ChatRequest, Streamed
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

    def chat(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None]:
        """POST /v1/chat/completions"""
        return self._talk(request, reply, self._chat)

    def complete(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None]:
        """POST /v1/completions"""
        return self._talk(request, reply, self._complete)

    def respond(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None]:
        """POST /v1/responses"""
        return self._talk(request, reply, self._respond)

    def call(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None]:
        """POST /lading/v1/call: any operation that has no call of OpenAI's. Streams as a chat does."""
        return self._talk(request, reply, self._call)

    # Reading

    def _chat(self, request: Request) -> "Plan":
        ask = parse_chat(request.body)
        plan = self._plan(request, ask, "messages")
        plan.dialect = ChatDialect(plan.voice, len(plan.most), include_usage=ask.include_usage, tools=ask.tools)
        return plan

    def _complete(self, request: Request) -> "Plan":
        ask = parse_completion(request.body)
        plan = self._plan(request, ask, "prompt")
        plan.dialect = CompletionDialect(plan.voice, len(plan.most), include_usage=ask.include_usage)
        return plan

    def _respond(self, request: Request) -> "Plan":
        ask = parse_response(request.body)
        plan = self._plan(request, ask.chat, "input")
        plan.dialect = ResponseDialect(plan.voice, ask.echo, ask.chat.tools)
        return plan

    def _call(self, request: Request) -> "Plan":
        ask = parse_call(request.body)
        wishes = ask.wishes
        entry = self.models.entry(meant(ask.model, wishes), ask.operation)
        if ask.operation in PLACES:
            raise ApiError(
                400,
                "unsupported_operation",
                f"A call cannot {ask.operation}.",
                param="operation",
                hint=f"Use {PLACES[ask.operation]}.",
            )
        wanted = call_request(ask, CALL_TOKENS)
        if ask.max_tokens is None:
            wanted = _bounded(wanted, entry)
        plan = Plan(entry, wishes, ask.model, "input", stream=ask.stream)
        plan.operation = "call"
        self._settle(plan, request, [wanted])
        plan.dialect = CallDialect(plan.voice, ask.operation)
        return plan

    def _plan(self, request: Request, ask: ChatAsk, given: str) -> "Plan":
        """`given` is what the request calls its prompt. Raises ApiError."""
        model, wishes = ask.model, ask.wishes
        entry = self.models.entry(meant(model, wishes), "chat")
        wanted = chat_requests(ask, entry.agent, self._fresh(32), self._terms.default_tokens)
        if ask.max_tokens is None:
            wanted = [_bounded(one, entry) for one in wanted]
        plan = Plan(entry, wishes, model, given, stream=ask.stream)
        self._settle(plan, request, wanted)
        return plan

    def _settle(self, plan: "Plan", request: Request, wanted: Sequence[Streamed]) -> None:
        """What is asked of hosts, as the consumer wants it done, and the answer's names. Raises ApiError."""
        insisted, agent, wishes = read_headers(request.headers, self._usual), plan.entry.agent, plan.wishes
        limit, filters, hedge, ids = insisted.max_price, insisted.filters, insisted.hedge, insisted.ids
        batch = insisted.batch or wishes.flex
        for at, there in enumerate(begun_of(wishes, len(wanted), ids)):
            one = wanted[at]
            if there.rest is not None:
                one = msgspec.structs.replace(one, max_tokens=there.rest.most)
            plan.most.append(one.max_tokens)
            if not there.whole:
                plan.places.append(at)
                plan.jobs.append(new_job(self._clock(), self._fresh(JOB_CHANCE)))
                plan.asks.append(Ask(agent, one, limit, filters, batch, there.ids, hedge, there.proof, ids == 2))
        rest = wishes.rest
        named, created = (plan.jobs[0], int(self._clock())) if rest is None else named_by(rest)
        plan.ids = ids
        plan.voice = Voice(named, created, plan.model, f"lading-{agent[:8].hex()}")

    # Answering

    async def _talk(self, request: Request, reply: Reply, read: "Callable[[Request], Plan]") -> None:
        """Runs the jobs of a plan; what they say is told in its dialect."""
        payer = await self._doorman.admit(request.bearer())
        plan = read(request)
        telling, count = self._telling(plan, reply), len(plan.jobs)
        with self._doorman.working(payer, count):
            try:
                if count == 1:
                    await self._run(payer, plan, 0, telling)
                else:
                    await together([self._run(payer, plan, at, telling) for at in range(count)])
            except ApiError as error:
                if not reply.begun or reply.finished:
                    raise
                reply.end(plan.dialect.broken(error) if plan.stream else broken(error))

    async def _run(self, payer: Payer, plan: "Plan", at: int, telling: Telling) -> None:
        with Heard(telling, plan.places[at], self._metrics, plan.operation, plan.given) as heard:
            await self._runner.carry(payer, plan.asks[at], heard, plan.jobs[at])

    def _telling(self, plan: "Plan", reply: Reply) -> Telling:
        if not plan.stream and plan.ids != 2:
            return Gathered(reply, plan.dialect, len(plan.jobs), self._bill)
        named = ",".join(self._terms.gateways)
        more = f"x-lading-gateways: {named}\r\n".encode() if named else b""
        if plan.ids == 2:
            rest = plan.wishes.rest
            course = Course(plan.entry.agent, plan.voice.created, plan.jobs, plan.places, plan.most, rest, plan.stream)
            return Followed(reply, plan.dialect, course, more, partial(self._whole_bill, rest))
        ids = plan.ids == 1 and len(plan.asks) == 1
        told = pinned(plan.asks) + more if ids else more
        return Flowing(reply, plan.dialect, plan.jobs, told, self._bill, ids=ids)

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
            with Heard(vectors, 0, self._metrics, "embed", "input") as heard:
                await self._runner.carry(payer, wanted, heard, new_job(self._clock(), self._fresh(JOB_CHANCE)))
            bill = self._bill(vectors.ended)
            body = embeddings(ask.model, vectors.matrix, bill, as_base64=ask.base64)
            reply.send(200, body, JSON, at_end(vectors.ended, bill))

    def _bill(self, ended: Sequence[Ended]) -> Bill:
        cost = prompt = output = 0
        jobs, shares = [], []
        for one in ended:
            jobs.append(one.job)
            prompt += one.prompt_tokens
            output += len(one.emitted) - one.given
            for part in one.parts:
                amount = part.amount
                cost += amount
                shares.append(Share(part.host, part.first, part.tokens, amount))
        return Bill(tuple(jobs), Wei(cost), prompt, output, tuple(shares), self._terms.decimals)

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


class Plan:
    """A reply to be: `jobs` and what each asks for, `places` which answers they are of all, `most` the tokens that each
    of all may have. `given` is what the request calls its prompt, `ids` whether and how tokens are told beside the text
    (Insisted)."""

    voice: Voice
    dialect: Dialect

    def __init__(self, entry: Entry, wishes: Wishes, model: str, given: str, *, stream: bool) -> None:
        self.entry = entry
        self.wishes = wishes
        self.model = model
        self.given = given
        self.stream = stream
        self.operation = "chat"
        self.ids = 0
        self.jobs: list[JobId] = []
        self.asks: list[Ask] = []
        self.places: list[int] = []
        self.most: list[int] = []


def _bounded(request: R, entry: Entry) -> R:
    """With a bound that surely fits behind the prompt: what it has, but never less than a quarter of the context."""
    room = max(entry.context - prompt_bound(request), entry.context // 4, 1)
    return request if request.max_tokens <= room else msgspec.structs.replace(request, max_tokens=room)
