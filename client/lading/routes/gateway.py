"""Through a coordinator: the OpenAI-compatible HTTP of its gateway."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from lading.answers import Bill, Delta, Model, Notice, Piece, Vectors
from lading.core.continued import Continued
from lading.errors import GatewayError
from lading.routes.passage import CUT, Gateway, Passage, reading, refused, unreachable, with_seed
from lading_protocol.ids import Wei, to_hex

if TYPE_CHECKING:
    from lading.core.options import Options

KEPT_ANSWERS = 64


class GatewayRoute:
    """`base_url` is the coordinator's address, with or without /v1. `others` are coordinators, each with its own key,
    that go on with an answer when the first is gone; more may be learnt from the first."""

    def __init__(self, base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> None:
        self.gateways = [Gateway(*one) for one in ((base_url, api_key), *others)]
        self._root = self.gateways[0].root
        self._answers: dict[str, Continued] = {}

    async def models(self) -> list[Model]:
        found = await self._get("/v1/models")
        with reading(self._root):
            return [_model(entry) for entry in found["data"]]

    async def chat(self, model: str, messages: Sequence[tuple[str, str]], options: "Options") -> AsyncIterator[Piece]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= _fields(options)
        async for piece in self._stream("/v1/chat/completions", with_seed(body)):
            yield piece

    async def call(self, model: str, operation: str, given: Any, max_tokens: int | None) -> AsyncIterator[Piece]:
        body: dict[str, Any] = {"model": model, "operation": operation, "input": given, "stream": True}
        body |= {"max_tokens": max_tokens} if max_tokens is not None else {}
        async for piece in self._stream("/lading/v1/call", body):
            yield piece

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """The answer, from as many gateways as it takes. Nothing is handed out twice, and no token is charged twice."""
        passage, finish, bill = Passage(self.gateways, path, body), "", None
        async for block in passage.blocks():
            if isinstance(block, Notice):
                yield block
                continue
            with reading(self._root):
                event = read_event(block)
                text, finish, bill = ("", finish, None) if event is None else _take(event, finish)
            if text:
                yield Delta(text)
            if bill is not None:
                self._keep(bill.job, passage.answer)
                hosts = tuple(dict.fromkeys((*passage.answer.hosts, *bill.hosts)))
                yield msgspec.structs.replace(bill, hosts=hosts)
                return
        raise GatewayError(f"The answer from {self._root} broke off.", code="net_gateway", hint=CUT)

    def _keep(self, job: str, answer: Continued) -> None:
        """Where an answer came from several gateways, none of them knows all that was signed for it."""
        if answer.moved:
            self._answers[job] = answer
            while len(self._answers) > KEPT_ANSWERS:
                del self._answers[next(iter(self._answers))]

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors:
        body = {"model": model, "input": list(inputs), "encoding_format": "float"}
        passage = Passage(self.gateways, "/v1/embeddings", body)
        answer = b"".join([block async for block in passage.blocks() if isinstance(block, bytes)])
        with reading(self._root):
            found = msgspec.json.decode(answer)
            return Vectors(tuple(tuple(entry["embedding"]) for entry in found["data"]), _bill("stop", found))

    async def receipts(self, job: str) -> dict[str, Any]:
        """What the hosts signed for a job, as `lading receipt verify` reads it."""
        answer = self._answers.get(job)
        if answer is None:
            found: dict[str, Any] = await self._get(f"/lading/v1/receipts/{job}")
            return found
        signed = sorted(answer.receipts.values(), key=lambda one: answer.jobs.index(one.job))
        return {
            "job": job,
            "jobs": answer.jobs,
            "receipts": [to_hex(one.packed) for one in signed],
            "marks": [to_hex(b"".join(one.marks)) for one in signed],
            "ids": answer.choices[0].ids,
        }

    async def close(self) -> None:
        for gateway in self.gateways:
            await gateway.http.aclose()

    async def _get(self, path: str) -> Any:
        for gateway in self.gateways:
            try:
                response = await gateway.http.get(path)
            except httpx.HTTPError as error:
                if gateway is self.gateways[-1]:
                    raise unreachable(gateway.root, error) from error
                continue
            if response.status_code != 200:
                raise refused(response)
            with reading(gateway.root):
                return msgspec.json.decode(response.content)
        raise AssertionError("there is always a gateway")


def _fields(options: "Options") -> dict[str, Any]:
    """Only what differs from the defaults, so that other OpenAI-compatible servers can be asked too."""
    usual = type(options)()
    fields = {name: value for name, value in vars(options).items() if value != getattr(usual, name)}
    if "logit_bias" in fields:
        fields["logit_bias"] = {str(token): value for token, value in options.logit_bias.items()}
    return fields


def read_event(block: bytes) -> dict[str, Any] | None:
    """What an event of a stream says; nothing for its end, a comment and a name."""
    found = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    event = msgspec.json.decode(found[0]) if found else None
    return event if isinstance(event, dict) else None


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
