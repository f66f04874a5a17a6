"""Through a coordinator: the OpenAI-compatible HTTP of its gateway."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx

from lading.answers import Bill, Delta, Model, Piece, Vectors
from lading.errors import GatewayError
from lading_protocol.ids import Wei

if TYPE_CHECKING:
    from lading.client import Options


class GatewayRoute:
    """`base_url` is the coordinator's address, with or without /v1."""

    def __init__(self, base_url: str, api_key: str) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=root, headers=headers, timeout=httpx.Timeout(120, connect=10))

    async def models(self) -> list[Model]:
        found = await self._call("GET", "/v1/models")
        return [
            Model(
                name=entry["id"],
                agent=entry["agent"],
                hosts=entry["hosts"],
                price_in=Wei(int(entry["price"]["input_wei"])),
                price_out=Wei(int(entry["price"]["output_wei"])),
                context=entry["context"],
                operations=tuple(entry["operations"]),
            )
            for entry in found["data"]
        ]

    async def chat(self, model: str, messages: Sequence[tuple[str, str]], options: "Options") -> AsyncIterator[Piece]:
        body = {
            "model": model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": options.temperature,
            "top_p": options.top_p,
        }
        body |= {"max_tokens": options.max_tokens} if options.max_tokens else {}
        body |= {"stop": list(options.stop)} if options.stop else {}
        body |= {"seed": options.seed} if options.seed is not None else {}
        finish = ""
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refused(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise GatewayError(event["error"]["message"], hint="", code=event["error"].get("code"))
                    for choice in event["choices"]:
                        if text := choice["delta"].get("content"):
                            yield Delta(text)
                        finish = choice["finish_reason"] or finish
                    if event.get("usage"):
                        yield _bill(finish, event)
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors:
        body = {"model": model, "input": list(inputs), "encoding_format": "float"}
        found = await self._call("POST", "/v1/embeddings", body)
        return Vectors(tuple(tuple(entry["embedding"]) for entry in found["data"]), _bill("stop", found))

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error
        if response.status_code != 200:
            raise _refused(response)
        return response.json()


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


def _refused(response: httpx.Response) -> GatewayError:
    try:
        error = response.json()["error"]
        return GatewayError(error["message"], hint="", code=error.get("code") or "gateway")
    except (ValueError, KeyError, TypeError):
        return GatewayError(f"The coordinator answered {response.status_code} {response.reason_phrase}.")


def _unreachable(http: httpx.AsyncClient, error: httpx.HTTPError) -> GatewayError:
    reason = str(error) or type(error).__name__
    return GatewayError(
        f"The coordinator at {http.base_url} cannot be reached: {reason}.",
        code="net_gateway",
        hint="Check the base URL, or go peer to peer with --peer.",
    )
