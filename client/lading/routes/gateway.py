"""Through a coordinator: the OpenAI-compatible HTTP of its gateway."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec

from lading.answers import Bill, Delta, Model, Notice, Piece, Vectors
from lading.core.continued import Continued
from lading.errors import BadSettings, GatewayError
from lading_protocol.ids import Wei

if TYPE_CHECKING:
    from lading.core.options import Options

_CUT = "Ask again; only what was delivered was charged."
_OTHER = "Check the base URL: another program may listen there."


# For how long an answer that has begun is tried to be gone on with, and the pauses between two rounds of all gateways.
RECONNECT_SECONDS = 20.0
PAUSES = (0.2, 0.5, 1.0, 2.0)
MOST_GATEWAYS = 8
# What another gateway, or the same one in a moment, may answer differently.
PASSING = frozenset({429, 502, 503, 504})
IDS = {"x-lading-ids": "1"}


class Broken(Exception):
    """The stream ended before the answer did. `shown` is what a caller reads when nobody can go on."""

    def __init__(self, shown: GatewayError) -> None:
        super().__init__(shown.message)
        self.shown = shown


class Gateway:
    """One coordinator's address and the key that it gave. Raises BadSettings."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.root = root_of(base_url)
        self.api_key = api_key
        if not api_key.isascii() or not api_key.isprintable():
            raise BadSettings("The API key holds characters that no key has.", hint="Copy it again.")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.http = httpx.AsyncClient(base_url=self.root, headers=headers, timeout=httpx.Timeout(120, connect=10))


class GatewayRoute:
    """`base_url` is the coordinator's address, with or without /v1. `others` are coordinators, each with its own key,
    that go on with an answer when the first is gone; more may be learnt from the first."""

    def __init__(self, base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> None:
        self._gateways = [Gateway(*one) for one in ((base_url, api_key), *others)]
        self._root = self._gateways[0].root
        self._http = self._gateways[0].http

    async def models(self) -> list[Model]:
        found = await self._call("GET", "/v1/models")
        with _reading(self._root):
            return [_model(entry) for entry in found["data"]]

    async def chat(self, model: str, messages: Sequence[tuple[str, str]], options: "Options") -> AsyncIterator[Piece]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= _fields(options)
        body.setdefault("seed", secrets.randbits(63))  # so that every gateway would give the same answer
        async for piece in self._stream("/v1/chat/completions", body):
            yield piece

    async def call(self, model: str, operation: str, given: Any, max_tokens: int | None) -> AsyncIterator[Piece]:
        body: dict[str, Any] = {"model": model, "operation": operation, "input": given, "stream": True}
        body |= {"max_tokens": max_tokens} if max_tokens is not None else {}
        async for piece in self._stream("/lading/v1/call", body):
            yield piece

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """The answer, from as many gateways as it takes. Nothing is handed out twice, and no token is charged twice."""
        answer, clock = Continued(), asyncio.get_running_loop().time
        until, turn = clock() + RECONNECT_SECONDS, 0
        while True:
            gateway, before = self._gateways[turn % len(self._gateways)], len(answer.ids)
            try:
                async for piece in self._read(gateway, path, body, answer):
                    yield piece
                return
            except Broken as broken:
                if len(answer.ids) > before:
                    until, turn = clock() + RECONNECT_SECONDS, self._gateways.index(gateway)
                turn += 1
                if not self._may_go_on(answer, turn, clock() < until):
                    raise broken.shown from broken
                reason = broken.shown.message
            yield Notice(f"{reason} Going on at {self._gateways[turn % len(self._gateways)].root}.")
            if turn % len(self._gateways) == 0:
                await asyncio.sleep(PAUSES[min(turn // len(self._gateways), len(PAUSES)) - 1])

    def _may_go_on(self, answer: Continued, turn: int, in_time: bool) -> bool:
        """An answer that has not begun is asked for once of each gateway, one that has begun until time is up."""
        return answer.able and (in_time if answer.begun else turn < len(self._gateways))

    async def _read(self, gateway: Gateway, path: str, body: dict[str, Any], answer: Continued) -> AsyncIterator[Piece]:
        """What one gateway gives of the answer. Raises Broken where another one could go on."""
        finish, bill = "", cast(Bill | None, None)
        asked = answer.body(body)
        try:
            async with gateway.http.stream("POST", path, json=asked, headers=IDS) as response:
                await self._check(gateway, response, answer)
                answer.head(response.headers)
                async for line in response.aiter_lines():
                    with _reading(gateway.root):
                        event = answer.line(line)
                        if event is None:
                            continue
                        text, finish, now = _take(event, finish)
                    if text:
                        yield Delta(text)
                    if now is not None:
                        bill = msgspec.structs.replace(now, output_tokens=now.output_tokens + answer.given)
                        yield bill
        except httpx.HTTPError as error:
            if bill is None:
                raise Broken(unreachable(gateway.root, error)) from error
        except GatewayError as error:
            if bill is None and answer.begun and (error.code == "job_lost" and len(self._gateways) > 1):
                raise Broken(error) from error
            raise
        if bill is None:
            raise Broken(GatewayError(f"The answer from {gateway.root} broke off.", code="net_gateway", hint=_CUT))

    async def _check(self, gateway: Gateway, response: httpx.Response, answer: Continued) -> None:
        """Raises GatewayError for a refusal, Broken where it may pass; learns of other gateways."""
        if response.status_code != 200:
            await response.aread()
            error = refused(response)
            # A coordinator that has just come back learns its models and hosts in its first seconds.
            passing = response.status_code in PASSING or (answer.begun and response.status_code == 404)
            if passing and (answer.begun or len(self._gateways) > 1):
                raise Broken(error)
            raise error
        # It may name others at which its own keys are good: it could spend from them anyway.
        known = {one.root for one in self._gateways}
        for url in filter(None, response.headers.get("x-lading-gateways", "").split(",")):
            if len(known) < MOST_GATEWAYS and (root := root_of(url.strip())) not in known:
                known.add(root)
                self._gateways.append(Gateway(root, gateway.api_key))

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors:
        body = {"model": model, "input": list(inputs), "encoding_format": "float"}
        found = await self._call("POST", "/v1/embeddings", body)
        with _reading(self._root):
            return Vectors(tuple(tuple(entry["embedding"]) for entry in found["data"]), _bill("stop", found))

    async def receipts(self, job: str) -> dict[str, Any]:
        """What the hosts signed for a job, as `lading receipt verify` reads it."""
        found: dict[str, Any] = await self._call("GET", f"/lading/v1/receipts/{job}")
        return found

    async def close(self) -> None:
        for gateway in self._gateways:
            await gateway.http.aclose()

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        for gateway in self._gateways:
            last = gateway is self._gateways[-1]
            try:
                response = await gateway.http.request(method, path, json=body)
            except httpx.HTTPError as error:
                # What may have reached it, it may have done and charged: that is not asked for again.
                if last or not (method == "GET" or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)):
                    raise unreachable(gateway.root, error) from error
                continue
            if response.status_code != 200:
                raise refused(response)
            with _reading(gateway.root):
                return msgspec.json.decode(response.content)
        raise AssertionError("there is always a gateway")


def _fields(options: "Options") -> dict[str, Any]:
    """Only what differs from the defaults, so that other OpenAI-compatible servers can be asked too."""
    usual = type(options)()
    fields = {name: value for name, value in vars(options).items() if value != getattr(usual, name)}
    if "logit_bias" in fields:
        fields["logit_bias"] = {str(token): value for token, value in options.logit_bias.items()}
    return fields


def _take(event: dict[str, Any], finish: str) -> tuple[str, str, Bill | None]:
    """One event of the stream: its text, why it finished if it did, and the bill if it came."""
    if "error" in event:
        raise GatewayError(event["error"]["message"], hint="", code=event["error"].get("code"))
    text = ""
    for choice in event["choices"]:
        text += choice["delta"].get("content") or ""
        finish = choice["finish_reason"] or finish
    return text, finish, _bill(finish, event) if event.get("usage") else None


def _model(entry: dict[str, Any]) -> Model:
    return Model(
        name=entry["id"],
        agent=entry["agent"],
        hosts=entry["hosts"],
        price_in=Wei(int(entry["price"]["input_wei"])),
        price_out=Wei(int(entry["price"]["output_wei"])),
        context=entry["context"],
        operations=tuple(entry["operations"]),
        devices=tuple(entry.get("devices", ())),
        assurance=tuple(entry.get("assurance", ())),
    )


def _bill(finish: str, event: dict[str, Any]) -> Bill:
    usage, account = event["usage"], event["lading"]
    return Bill(
        finish=finish,
        prompt_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens", 0),
        cost=Wei(int(account["cost_wei"])),
        job=account["job"],
        hosts=tuple(account["hosts"]),
    )


@contextmanager
def _reading(root: str) -> Iterator[None]:
    """Whatever is not what a coordinator answers: another program listens there, or a proxy stands between."""
    try:
        yield
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise GatewayError(f"What {root} answers is not a Lading coordinator's: {error}.", hint=_OTHER) from error


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
