"""OpenAI's own packages over several coordinators: an answer goes on at another one when the first is gone.

    OpenAI(base_url=url, api_key=key, http_client=http_client(url, key, [(other_url, other_key)]))

Every form of an answer goes on: streams and whole ones, tools, logprobs, several choices, responses; an embedding is
asked for again. Each request has the key of the coordinator that it goes to.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import httpx
import msgspec

from lading.errors import GatewayError
from lading.routes.passage import CUT, Gateway, Passage, Refused, with_seed

VECTORS = "/v1/embeddings"
ANSWERS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", VECTORS})
# Of a request these are ours, of a reply the framing of what came.
_NOT_SENT = frozenset({"host", "authorization", "content-length", "connection", "transfer-encoding", "accept-encoding"})
_NOT_TOLD = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding", "connection"})

T = TypeVar("T")


def async_http_client(base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> httpx.AsyncClient:
    """For `AsyncOpenAI`. Raises BadSettings."""
    return httpx.AsyncClient(transport=Transport(base_url, api_key, others), timeout=None)


def http_client(base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> httpx.Client:
    """For `OpenAI`. Raises BadSettings."""
    return httpx.Client(transport=BlockingTransport(base_url, api_key, others), timeout=None)


class Transport(httpx.AsyncBaseTransport):
    def __init__(self, base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> None:
        self._gateways = [Gateway(*one) for one in ((base_url, api_key), *others)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        if request.method == "POST" and request.url.path in ANSWERS:
            try:
                asked = msgspec.json.decode(body)
            except msgspec.DecodeError:
                asked = None
            if isinstance(asked, dict):
                return await self._answer(request, asked if request.url.path == VECTORS else with_seed(asked))
        return await self._forward(request, body)

    async def aclose(self) -> None:
        for gateway in self._gateways:
            await gateway.http.aclose()

    async def _answer(self, request: httpx.Request, asked: dict[str, Any]) -> httpx.Response:
        passage = Passage(self._gateways, request.url.path, asked, _sent(request))
        events = _events(passage, _limits(request).get("read"))
        try:
            first = await anext(events, b"")
            if asked.get("stream"):
                return _reply(passage, "text/event-stream; charset=utf-8", stream=Flow(first, events))
            whole = first + b"".join([event async for event in events])
        except Refused as error:
            return httpx.Response(
                error.response.status_code, headers=_told(error.response), content=error.response.content
            )
        except GatewayError as error:
            raise httpx.ConnectError(error.message, request=request) from error
        text = whole.removeprefix(b"data: ").rstrip(b"\n")
        return _reply(passage, "application/json", content=text, failed=passage.answer.failed is not None)

    async def _forward(self, request: httpx.Request, body: bytes) -> httpx.Response:
        """What is no answer goes to the first coordinator that can be reached."""
        for gateway in self._gateways:
            headers = _sent(request)
            sent = gateway.http.build_request(
                request.method,
                request.url.raw_path.decode("ascii"),
                headers=headers,
                content=body,
                extensions={"timeout": gateway.http.timeout.as_dict() | _limits(request)},
            )
            try:
                response = await gateway.http.send(sent)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if gateway is self._gateways[-1]:
                    raise
                continue
            kind = {"content-type": response.headers.get("content-type", "application/json")}
            return httpx.Response(response.status_code, headers=_told(response) | kind, content=response.content)
        raise AssertionError("there is always a gateway")


class Flow(httpx.AsyncByteStream):
    """The events of an answer, of which the first is here."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        try:
            async for event in self._events:
                yield event
        except GatewayError as error:
            raise httpx.ReadError(f"{error.message} {error.hint or CUT}") from error

    async def aclose(self) -> None:
        await self._events.aclose()


class BlockingTransport(httpx.BaseTransport):
    """The same for programs without an event loop: one runs in a thread of its own."""

    def __init__(self, base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> None:
        self._inner = Transport(base_url, api_key, others)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lading.openai", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        response = self.wait(self._inner.handle_async_request(request))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(response.status_code, headers=response.headers, stream=Blocking(self, response.stream))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        if self._thread.is_alive():
            self.wait(self._inner.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Blocking(httpx.SyncByteStream):
    def __init__(self, owner: BlockingTransport, stream: httpx.AsyncByteStream) -> None:
        self._owner = owner
        self._stream = stream
        self._items = aiter(stream)

    def __iter__(self) -> Iterator[bytes]:
        while (data := self._owner.wait(self._next())) is not None:
            yield data

    async def _next(self) -> bytes | None:
        return await anext(self._items, None)

    def close(self) -> None:
        self._owner.wait(self._close())

    async def _close(self) -> None:
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()
        await self._stream.aclose()


async def _events(passage: Passage, patience: float | None) -> AsyncGenerator[bytes, None]:
    """`patience` is for how many seconds nothing may come: the package's own limit. Raises httpx.ReadTimeout."""
    async with contextlib.aclosing(passage.blocks()) as blocks:
        while True:
            try:
                async with asyncio.timeout(patience):
                    block = await anext(blocks, None)
            except TimeoutError as error:
                raise httpx.ReadTimeout(f"Nothing came for {patience:g} s.") from error
            if block is None:
                return
            if isinstance(block, bytes):
                yield block


def _limits(request: httpx.Request) -> dict[str, float | None]:
    """Seconds, as the package above sets them."""
    found: dict[str, float | None] = request.extensions.get("timeout", {})
    return found


def _sent(request: httpx.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in _NOT_SENT}


def _told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower() not in _NOT_TOLD}


def _reply(
    passage: Passage,
    kind: str,
    *,
    content: bytes | None = None,
    stream: httpx.AsyncByteStream | None = None,
    failed: bool = False,
) -> httpx.Response:
    """Of an answer that broke off without another gateway only a stream has a head that said 200 before."""
    told = {} if passage.response is None else _told(passage.response)
    headers = told | {"content-type": kind}
    if stream is not None:
        return httpx.Response(200, headers=headers, stream=stream)
    if passage.answer.follows:  # the head that the gateway sent was of a stream: nobody knew yet
        headers["x-lading-cost"] = str(passage.answer.cost)
    return httpx.Response(502 if failed else 200, headers=headers, content=content)
