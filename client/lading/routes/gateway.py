"""Through a coordinator: the OpenAI-compatible HTTP of its gateway."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec

from lading.answers import Bill, Delta, Model, Piece, Vectors
from lading.errors import BadSettings, GatewayError
from lading_protocol.ids import Wei

if TYPE_CHECKING:
    from lading.core.options import Options

_CUT = "Ask again; only what was delivered was charged."
_OTHER = "Check the base URL: another program may listen there."


class GatewayRoute:
    """`base_url` is the coordinator's address, with or without /v1."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._root = root_of(base_url)
        if not api_key.isascii() or not api_key.isprintable():
            raise BadSettings("The API key holds characters that no key has.", hint="Copy it again.")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=self._root, headers=headers, timeout=httpx.Timeout(120, connect=10))

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
        async for piece in self._stream("/v1/chat/completions", body):
            yield piece

    async def call(self, model: str, operation: str, given: Any, max_tokens: int | None) -> AsyncIterator[Piece]:
        body = {"model": model, "operation": operation, "input": given, "stream": True}
        body |= {"max_tokens": max_tokens} if max_tokens is not None else {}
        async for piece in self._stream("/lading/v1/call", body):
            yield piece

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Piece]:
        finish, bill = "", cast(Bill | None, None)
        try:
            async with self._http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise refused(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    with _reading(self._root):
                        event = msgspec.json.decode(line[6:])
                        text, finish, now = _take(event, finish)
                    if text:
                        yield Delta(text)
                    if now is not None:
                        bill = now
                        yield bill
        except httpx.HTTPError as error:
            raise unreachable(self._root, error) from error
        if bill is None:
            raise GatewayError(f"The answer from {self._root} broke off.", code="net_gateway", hint=_CUT)

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
        await self._http.aclose()

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise unreachable(self._root, error) from error
        if response.status_code != 200:
            raise refused(response)
        with _reading(self._root):
            return msgspec.json.decode(response.content)


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
        hint="Check the base URL, or go peer to peer with --peer.",
    )
