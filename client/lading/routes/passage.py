"""One request on its way through as many gateways as it takes: what each gives of the answer is handed on once.

What was handed on, and what to ask the next one for, is core.continued's; this module owns the connections and the
clock.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from lading.answers import Notice
from lading.core.continued import Continued
from lading.errors import BadSettings, GatewayError
from lading_protocol.errors import LadingError

# For how long an answer that has begun is tried to be gone on with, and the pauses between two rounds of all gateways.
RECONNECT_SECONDS = 20.0
PAUSES = (0.2, 0.5, 1.0, 2.0)
MOST_GATEWAYS = 8
# A gateway that says nothing for so long is asked on another connection whether it lives, and has so long to answer.
QUIET_SECONDS = 5.0
PROBE_SECONDS = 5.0
# Who sends bytes for so long that are no part of an answer is left, where there is another.
STUCK_SECONDS = 60.0
# What another gateway, or the same one in a moment, may answer differently.
PASSING = frozenset({429, 502, 503, 504})
IDS = {"x-lading-ids": "2"}
OTHER = "Check the base URL: another program may listen there."
CUT = "Ask again; only what was delivered was charged."

T = TypeVar("T")


class Broken(Exception):
    """The answer is not whole. `shown` is what a caller reads when nobody can go on."""

    def __init__(self, shown: GatewayError) -> None:
        super().__init__(shown.message)
        self.shown = shown


class Nonsense(GatewayError):
    """What came is not what a coordinator sends."""


class Refused(GatewayError):
    """A gateway's answer that is no success, as it came."""

    def __init__(self, response: httpx.Response) -> None:
        error = refused(response)
        super().__init__(error.message, hint=error.hint, code=error.code)
        self.response = response


class Gateway:
    """One coordinator's address and the key that it gave. Raises BadSettings."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.root = root_of(base_url)
        self.api_key = api_key
        if not api_key.isascii() or not api_key.isprintable():
            raise BadSettings("The API key holds characters that no key has.", hint="Copy it again.")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.http = httpx.AsyncClient(base_url=self.root, headers=headers, timeout=httpx.Timeout(120, connect=10))


class Passage:
    """`gateways` grows with those that are learnt of. `answer` is what is here; `response` the head of the last one."""

    def __init__(
        self, gateways: list[Gateway], path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self.answer = Continued()
        self.response: httpx.Response | None = None
        self._gateways = gateways
        self._path = path
        self._body = body
        self._headers = dict(headers or {})

    async def blocks(self) -> AsyncGenerator[bytes | Notice, None]:
        """The events of the answer, each with the empty line behind it. Nothing is handed out or charged twice.

        Raises GatewayError; Refused where nothing of the answer came.
        """
        answer, clock = self.answer, asyncio.get_running_loop().time
        until, turn = clock() + RECONNECT_SECONDS, 0
        while True:
            gateway, before = self._gateways[turn % len(self._gateways)], answer.progress
            try:
                async with contextlib.aclosing(self._read(gateway)) as events:
                    async for event in events:
                        yield event
                return
            except Broken as broken:
                if answer.progress > before:
                    until, turn = clock() + RECONNECT_SECONDS, self._gateways.index(gateway)
                turn += 1
                if not self._may_go_on(turn, clock() < until):
                    raise broken.shown from broken
                reason = broken.shown.message
            yield Notice(f"{reason} Going on at {self._gateways[turn % len(self._gateways)].root}.")
            if turn % len(self._gateways) == 0:
                await asyncio.sleep(PAUSES[min(turn // len(self._gateways), len(PAUSES)) - 1])

    def _may_go_on(self, turn: int, in_time: bool) -> bool:
        """An answer that has not begun is asked for once of each gateway, one that has begun until time is up."""
        answer = self.answer
        return answer.able and (in_time if answer.begun else turn < len(self._gateways))

    async def _read(self, gateway: Gateway) -> AsyncGenerator[bytes, None]:
        """What one gateway gives of the answer. Raises Broken where another one could go on."""
        answer = self.answer
        response: httpx.Response | None = None
        try:
            response = await self._ask(gateway, IDS)
            if not answer.begun and await _unknown(response):
                response = await self._ask(gateway, {})
            await self._check(gateway, response)
            with reading(gateway.root):
                answer.head(response.headers)
            self._check_kind(gateway, response)
            self.response = response
            chunks, clock = response.aiter_bytes(), asyncio.get_running_loop().time
            last = clock()
            while (data := await self._while_it_lives(gateway, anext(chunks, None))) is not None:
                ready = answer.feed(data)
                for event in ready:
                    yield event
                if answer.fault is not None:
                    raise nonsense(gateway.root, answer.fault)
                last = clock() if ready else last
                if clock() - last > STUCK_SECONDS and len(self._gateways) > 1:
                    raise Broken(GatewayError(f"{gateway.root} sends, but no answer.", code="net_gateway", hint=CUT))
                if answer.failed is not None:
                    yield self._gave_up()
                    return
        except httpx.HTTPError as error:
            if not answer.done:
                raise Broken(unreachable(gateway.root, error)) from error
        except Nonsense as error:
            raise Broken(error) from error
        finally:
            if response is not None:
                await response.aclose()
        for event in answer.end():
            yield event
        if answer.able and not answer.done:
            raise Broken(GatewayError(f"The answer from {gateway.root} broke off.", code="net_gateway", hint=CUT))

    async def _ask(self, gateway: Gateway, more: Mapping[str, str]) -> httpx.Response:
        """The head of its answer. Raises httpx.HTTPError, Broken."""
        body, headers = self.answer.body(self._body), {**self._headers, **more}
        request = gateway.http.build_request("POST", self._path, json=body, headers=headers)
        return await self._while_it_lives(gateway, gateway.http.send(request, stream=True))

    def _gave_up(self) -> bytes:
        """The event that says so, where nobody else could go on."""
        answer = self.answer
        assert answer.failed is not None
        code, words = answer.failed
        if code == "job_lost" and len(self._gateways) > 1:
            raise Broken(GatewayError(words, hint="", code=code))
        return answer.shown

    async def _check(self, gateway: Gateway, response: httpx.Response) -> None:
        """Raises Refused, Broken where it may pass; learns of other gateways."""
        begun = self.answer.begun
        if response.status_code != 200:
            await response.aread()
            error = Refused(response)
            # A coordinator that has just come back learns its models and hosts in its first seconds. What one refuses
            # of an answer that has begun, another may not.
            passing = response.status_code in PASSING or (begun and response.status_code == 404)
            if (passing and begun) or ((passing or begun) and len(self._gateways) > 1):
                raise Broken(error)
            raise error
        # It may name others at which its own keys are good: it could spend from them anyway.
        known = {one.root for one in self._gateways}
        for url in filter(None, response.headers.get("x-lading-gateways", "").split(",")):
            if len(known) < MOST_GATEWAYS and (root := root_of(url.strip())) not in known:
                known.add(root)
                self._gateways.append(Gateway(root, gateway.api_key))

    def _check_kind(self, gateway: Gateway, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "")
        if not kind.startswith(("text/event-stream", "application/json")):
            raise nonsense(gateway.root, f"it is {kind[:40]!r}")

    async def _while_it_lives(self, gateway: Gateway, awaited: Awaitable[T]) -> T:
        """A program that was stopped, or a machine that is gone without a word, breaks no connection: so a gateway that
        is silent is asked for something else. Raises Broken."""
        task = asyncio.ensure_future(awaited)
        try:
            while not (await asyncio.wait({task}, timeout=QUIET_SECONDS))[0]:
                await self._probe(gateway)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _probe(self, gateway: Gateway) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS), httpx.AsyncClient(headers=gateway.http.headers) as http:
                await http.get(gateway.root + "/v1/models")
        except (httpx.HTTPError, TimeoutError) as error:
            why = f"The coordinator at {gateway.root} is silent, on a second connection too."
            raise Broken(GatewayError(why, code="net_gateway", hint=CUT)) from error


async def _unknown(response: httpx.Response) -> bool:
    """Whether a gateway refuses to say what its events are because it is older than this way of telling: asked without
    that, it answers as it always did."""
    if response.status_code != 400:
        return False
    await response.aread()
    try:
        return bool(response.json()["error"]["param"] == "x-lading-ids")
    except (ValueError, LookupError, TypeError):
        return False


def with_seed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """With a seed of its own, where there is none, so that every gateway would give the same answer."""
    return {**asked, "seed": secrets.randbits(63) if asked.get("seed") is None else asked["seed"]}


@contextlib.contextmanager
def reading(root: str) -> Iterator[None]:
    """Whatever is not what a coordinator answers: another program listens there, or a proxy stands between."""
    try:
        yield
    except (msgspec.MsgspecError, LadingError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise nonsense(root, error) from error


def nonsense(root: str, why: object) -> Nonsense:
    return Nonsense(f"What {root} answers is not a Lading coordinator's: {why}.", hint=OTHER)


def root_of(base_url: str) -> str:
    """The coordinator's address, given with or without /v1. Raises BadSettings."""
    root = base_url.rstrip("/").removesuffix("/v1")
    try:
        fine = httpx.URL(root).scheme in ("http", "https") and bool(httpx.URL(root).host)
    except httpx.InvalidURL:
        fine = False
    if not fine:
        raise BadSettings(f"{base_url!r} is no coordinator's address.", hint="Write it like http://127.0.0.1:8600/v1.")
    return root


def refused(response: httpx.Response) -> GatewayError:
    """A coordinator's refusal in its own words, which say what to do."""
    try:
        error = response.json()["error"]
        return GatewayError(error["message"], hint="", code=error.get("code") or "gateway")
    except (ValueError, LookupError, TypeError, AttributeError):
        return GatewayError(f"The coordinator answered {response.status_code} {response.reason_phrase}.")


def unreachable(root: str, error: Exception) -> GatewayError:
    reason = (str(error) or type(error).__name__).rstrip(".")
    return GatewayError(
        f"The coordinator at {root} cannot be reached: {reason}.",
        code="net_gateway",
        hint="Name another with --base-url, go peer to peer with --peer, or start one: lading coordinator up.",
    )
