"""The `openai-http` engine: a server that speaks OpenAI's HTTP API, such as vLLM, llama.cpp's server or Ollama.

Where it is, and under which name it knows the model, is the operator's word and never a package's. It is believed
nothing but its text: tokens are counted here, its answers are bounded, redirects are not followed and nothing that it
compressed is unpacked. `transport` is a way in: by default TCP, for a server inside a container whatever reaches it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import httpx

from lading_node.engines.answer import Answer
from lading_node.engines.errors import EngineError, check_fit
from lading_node.engines.openai_wire import (
    DONE,
    Endpoint,
    News,
    chat_body,
    embed_body,
    read_chunk,
    read_models,
    read_rows,
)
from lading_node.engines.port import (
    Embed,
    Embedded,
    EngineSpec,
    Failed,
    FailureCode,
    Finished,
    Generate,
    Health,
    Ready,
)
from lading_node.engines.sse import BadStream, Events
from lading_node.engines.telling import Teller, check_free
from lading_protocol.errors import BadMessage
from lading_protocol.messages import ChatRequest
from lading_protocol.work import text_bytes, text_ids

T = TypeVar("T")

# Of a stream: for each token an event with its names and numbers; of a list of models; of one number of a vector.
EVENT_BYTES = 4096
LIST_BYTES = 4 << 20
NUMBER_BYTES = 32
GROUP = 16
_FAULTS: dict[int, tuple[FailureCode, str]] = {
    400: ("invalid_request", "refuses the request"),
    401: ("engine_error", "does not accept this node's key"),
    403: ("engine_error", "does not accept this node's key"),
    404: ("engine_error", "does not have the model or the operation"),
    413: ("invalid_request", "refuses the request as too large"),
    422: ("invalid_request", "refuses the request"),
    429: ("busy", "is busy"),
    503: ("busy", "is busy"),
}


class Deadlines(NamedTuple):
    """In seconds: until connected, until the answer begins, and between two pieces of its text."""

    connect: float = 10.0
    first: float = 60.0
    stall: float = 60.0


class _Chat:
    """One answer that is being read."""

    def __init__(self, id: str, answer: Answer, pieces: AsyncGenerator[News, None]) -> None:
        self.id = id
        self.answer = answer
        self.pieces = pieces
        self.ended: asyncio.Future[Finished | Failed] = asyncio.get_running_loop().create_future()

    @property
    def end(self) -> Finished | Failed | None:
        return self.ended.result() if self.ended.done() else None

    def close(self, event: Finished | Failed) -> None:
        """The first end counts."""
        if not self.ended.done():
            self.ended.set_result(event)


class OpenAiEngine(Teller[_Chat]):
    """An agent behind a server of the operator's. Its text is told in work tokens."""

    def __init__(
        self,
        spec: EngineSpec,
        endpoint: Endpoint,
        transport: httpx.AsyncBaseTransport | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(spec.repeats)
        self._spec = spec
        self._endpoint = endpoint
        self._deadlines = deadlines
        # Identity: a few compressed bytes can be gigabytes of text. No environment: it can name proxies and passwords.
        headers = {"accept-encoding": "identity", "user-agent": "lading"}
        if endpoint.key:
            headers["authorization"] = f"Bearer {endpoint.key}"
        timeout = httpx.Timeout(None, connect=deadlines.connect)
        limits = httpx.Limits(max_connections=spec.slots + 1)
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(trust_env=False, limits=limits),
            headers=headers,
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
        )
        self._running: dict[str, _Chat] = {}
        self._embedding = 0
        self._alive = False
        self._width = 0

    async def start(self) -> Ready:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._alive = True
        try:
            models = read_models(await self._whole("GET", "models", None, LIST_BYTES))
            if self._endpoint.model not in models:
                raise BadStream(f"It does not list the model {self._endpoint.model!r}.")
            if self._does("embed"):
                (row,) = await self._vectors(["a"])
                self._width = len(row) // 4
        except BaseException as error:
            await self.stop()
            if isinstance(error, BadStream):
                raise _fault(error) from None
            raise
        took = round((loop.time() - began) * 1000)
        return Ready("openai-http", self._endpoint.model[:200], (), 0, took, width=self._width)

    def _begin(self, order: Generate, prompt: int) -> tuple[_Chat, Answer]:
        request = order.request
        self._admit("chat", order.id)
        if not isinstance(request, ChatRequest):
            raise EngineError("invalid_request", "This agent takes no calls.", hint="Send a chat.")
        begun = self._begun(order) if order.emitted else ""
        check_fit(prompt, request.max_tokens, self._spec.context)
        given = len(order.emitted)
        answer = Answer(request.stop, request.max_tokens - given, given)
        pieces = self._pieces(chat_body(self._endpoint, request, begun), request.max_tokens)
        chat = self._running[order.id] = _Chat(order.id, answer, pieces)
        return chat, answer

    def _begun(self, order: Generate) -> str:
        """The text of earlier attempts. Raises EngineError."""
        if not self._endpoint.continues:
            raise EngineError("invalid_request", "An answer of this agent cannot be resumed.", hint="Ask again.")
        if len(order.emitted) >= order.request.max_tokens:
            raise EngineError("invalid_request", "All tokens that the request allows are emitted.")
        try:
            return text_bytes(order.emitted).decode()
        except (BadMessage, UnicodeDecodeError):
            why = "The emitted tokens are no text, or end within a character."
            raise EngineError("invalid_request", why, hint="Ask again.") from None

    async def _more(self, talk: _Chat) -> None:
        try:
            news = await _before(talk.ended, anext(talk.pieces))
        except EngineError as error:
            talk.close(error.as_event(talk.id))
        except BadStream as error:
            talk.close(_fault(error).as_event(talk.id))
        else:
            if news is not None:
                talk.answer.feed(news.text)
                if news.finish:
                    talk.answer.end(cut=news.finish == "length")

    async def _close(self, talk: _Chat) -> None:
        self._running.pop(talk.id, None)
        await talk.pieces.aclose()

    async def _pieces(self, body: bytes, tokens: int) -> AsyncGenerator[News, None]:
        """What the server says, event by event, up to the one that ends the answer. Raises EngineError, BadStream."""
        events = Events(EVENT_BYTES * (tokens + 16))
        async with self._answer("POST", "chat/completions", body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise BadStream("It does not stream its answer.")
            chunks = response.aiter_raw()
            while True:
                # One deadline for all that has no text in it: a server cannot keep a stream open by comments.
                async with _deadline(self._deadlines.stall, "sent no text"):
                    news = [News("", "")]
                    while not any(one.text or one.finish for one in news):
                        chunk = await anext(chunks, None)
                        if chunk is None:
                            raise BadStream("Its answer breaks off.")
                        news = [self._news(event) for event in events.feed(chunk)]
                for one in news:
                    yield one
                    if one.finish:
                        return

    def _news(self, event: bytes) -> News:
        return News("", "stop") if event == DONE else read_chunk(self._endpoint, event)

    async def embed(self, order: Embed) -> Embedded | Failed:
        try:
            self._admit("embed", order.id)
        except EngineError as error:
            return error.as_event(order.id)
        texts = list(order.request.inputs)
        rows: list[bytes] = []
        self._embedding += 1
        try:
            for at in range(0, len(texts), GROUP):
                rows += await self._vectors(texts[at : at + GROUP])
        except EngineError as error:
            return error.as_event(order.id)
        except BadStream as error:
            return _fault(error).as_event(order.id)
        finally:
            self._embedding -= 1
        tokens = tuple(max(1, len(text_ids(text.encode()))) for text in texts)
        return Embedded(order.id, self._width, tuple(rows), tokens)

    async def _vectors(self, texts: list[str]) -> list[bytes]:
        """Raises EngineError, BadStream."""
        most = LIST_BYTES + len(texts) * NUMBER_BYTES * (self._width or 1 << 16)
        body = embed_body(self._endpoint, texts)
        return read_rows(self._endpoint, await self._whole("POST", "embeddings", body, most), len(texts), self._width)

    def cancel(self, id: str) -> None:
        if (chat := self._running.get(id)) is not None:
            chat.close(Finished(id, "cancelled", chat.answer.count))

    def health(self) -> Health:
        running = len(self._running) + self._embedding
        return Health(self._alive, running, 0.0, 0, self._prompt_tokens, self._output_tokens)

    async def stop(self, grace: float = 0.5) -> None:
        self._alive = False
        for chat in self._running.values():
            chat.close(EngineError("engine_died", "The engine was stopped.").as_event(chat.id))
        await self._client.aclose()

    def _does(self, operation: str) -> bool:
        return any(one.name == operation for one in self._spec.operations)

    def _admit(self, operation: str, id: str) -> None:
        """Raises EngineError."""
        if not self._alive:
            raise EngineError("engine_died", "The engine is not running.")
        if not self._does(operation):
            raise EngineError("invalid_request", f"This agent does not {operation}.", hint="Read its manifest.")
        slots = self._spec.slots
        check_free(id, id in self._running, len(self._running) + self._embedding >= slots, slots)

    async def _whole(self, method: str, path: str, body: bytes | None, most: int) -> bytes:
        """A whole answer of at most `most` bytes. Raises EngineError, BadStream."""
        data = bytearray()
        async with self._answer(method, path, body) as response, _deadline(self._deadlines.first, "answered in part"):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > most:
                    raise BadStream("It sends far more than it was asked for.")
        return bytes(data)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: bytes | None) -> AsyncIterator[httpx.Response]:
        """The beginning of an answer that may be read. Raises EngineError, BadStream."""
        url = f"{self._endpoint.url.rstrip('/')}/{path}"
        headers = {"content-type": "application/json"} if body is not None else {}
        response: httpx.Response | None = None
        try:
            request = self._client.build_request(method, url, content=body, headers=headers)
            async with _deadline(self._deadlines.first, "did not answer"):
                response = await self._client.send(request, stream=True)
            _check(response)
            yield response
        except httpx.ConnectError as error:
            self._alive = False
            raise EngineError("engine_died", "The model server cannot be reached.", hint="Start it.") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise BadStream(f"Its answer breaks off ({type(error).__name__}).") from error
        finally:
            if response is not None:
                await response.aclose()


def _check(response: httpx.Response) -> None:
    """Raises EngineError, BadStream."""
    status = response.status_code
    if status in _FAULTS:
        code, what = _FAULTS[status]
        raise EngineError(code, f"The model server {what} ({status}).")
    if status != 200:
        raise BadStream(f"It answers with status {status}" + (", to go elsewhere." if 300 <= status < 400 else "."))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BadStream("It compresses what it was told not to.")


def _fault(error: BadStream) -> EngineError:
    return EngineError("engine_error", f"The model server cannot be used. {error}", hint="Look at that server's log.")


@asynccontextmanager
async def _deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Raises EngineError when it passes."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise EngineError("timeout", f"The model server {what} within {seconds:g} s.") from None


async def _before(ended: "asyncio.Future[Finished | Failed]", work: Awaitable[T]) -> T | None:
    """The work's result, or None when the end came first; then the work is given up."""
    task = asyncio.ensure_future(work)
    both: set[asyncio.Future[Any]] = {task, ended}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
