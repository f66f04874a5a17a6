"""Writes answers in OpenAI's shapes, byte for byte what its SDK reads. Extra facts go only into a field `lading`.

Money is in wei as a string, and in tokens as a decimal string beside it. `now` is Unix seconds.
"""

import base64
import sys
from array import array
from typing import Any

import msgspec

from lading_coordinator.errors import ApiError
from lading_protocol.ids import JobId, Wei, to_hex
from lading_protocol.pricing import format_amount
from lading_protocol.receipts import Finish

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode
_FINISH = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.CANCELLED: "stop"}


class Share(msgspec.Struct, frozen=True):
    """What one host did of a job and is owed for it."""

    host: bytes
    first: int
    tokens: int
    amount: Wei


class Bill(msgspec.Struct, frozen=True):
    """The facts about a finished job that its consumer may check."""

    job: JobId
    cost: Wei
    prompt_tokens: int
    output_tokens: int
    shares: tuple[Share, ...]
    decimals: int


class Matrix(msgspec.Struct, frozen=True):
    """Rows of `width` little-endian float32, as they came from the host."""

    width: int
    data: bytes


class Tongue(msgspec.Struct, frozen=True):
    """What every chunk of one chat answer repeats."""

    job: JobId
    id: str
    created: int
    model: str
    fingerprint: str


def tongue(job: JobId, now: float, model: str, agent: bytes) -> Tongue:
    return Tongue(job, f"chatcmpl-{job.hex()[:32]}", int(now), model, f"lading-{agent.hex()[:16]}")


class ChunkWriter:
    """Writes one stream's SSE events. The part that does not change is encoded once."""

    __slots__ = ("_after", "_before", "_usage", "tongue")

    def __init__(self, tongue: Tongue, include_usage: bool) -> None:
        self.tongue = tongue
        self._usage = include_usage
        head = _encode(self._head())[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        tail = b',"usage":null' if include_usage else b""
        self._after = b'},"logprobs":null,"finish_reason":null}]' + tail + b"}\n\n"

    def role(self) -> bytes:
        return self._event({"role": "assistant", "content": "", "refusal": None}, None)

    def text(self, text: str) -> bytes:
        return self._before + _encode(text) + self._after

    def end(self, finish: Finish, bill: Bill) -> bytes:
        """The finish reason, the usage if asked for, and the end mark. `lading` is in the last chunk."""
        facts = lading_facts(bill)
        if not self._usage:
            return self._event({}, _FINISH[finish], lading=facts) + DONE
        last = self._head() | {"choices": [], "usage": usage(bill.prompt_tokens, bill.output_tokens), "lading": facts}
        return self._event({}, _FINISH[finish]) + b"data: " + _encode(last) + b"\n\n" + DONE

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.tongue.id,
            "object": "chat.completion.chunk",
            "created": self.tongue.created,
            "model": self.tongue.model,
            "system_fingerprint": self.tongue.fingerprint,
        }

    def _event(self, delta: dict[str, Any], finish: str | None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        tree = self._head() | {"choices": [choice]} | ({"usage": None} if self._usage else {}) | extra
        return b"data: " + _encode(tree) + b"\n\n"


def completion(tongue: Tongue, text: str, finish: Finish, bill: Bill) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return _encode(
        {
            "id": tongue.id,
            "object": "chat.completion",
            "created": tongue.created,
            "model": tongue.model,
            "system_fingerprint": tongue.fingerprint,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[finish]}],
            "usage": usage(bill.prompt_tokens, bill.output_tokens),
            "lading": lading_facts(bill),
        }
    )


def call_answer(voice: Tongue, operation: str, text: str, finish: Finish, bill: Bill) -> bytes:
    """`output` is the agent's answer as JSON, or as a string when it is none (or was cut off)."""
    try:
        output = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        output = text
    return _encode(
        {
            "id": voice.id,
            "object": "lading.call",
            "created": voice.created,
            "model": voice.model,
            "operation": operation,
            "output": output,
            "finish_reason": _FINISH[finish],
            "usage": usage(bill.prompt_tokens, bill.output_tokens),
            "lading": lading_facts(bill),
        }
    )


def embeddings(model: str, rows: Matrix, bill: Bill, *, as_base64: bool) -> bytes:
    size = 4 * rows.width
    cut = [rows.data[at : at + size] for at in range(0, len(rows.data), size)]
    vectors = [base64.b64encode(one).decode() if as_base64 else _floats(one) for one in cut]
    listed = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    spent = {"prompt_tokens": bill.prompt_tokens, "total_tokens": bill.prompt_tokens}
    tree = {"object": "list", "data": listed, "model": model, "usage": spent, "lading": lading_facts(bill)}
    return _encode(tree)


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def lading_facts(bill: Bill) -> dict[str, Any]:
    parts = [
        {
            "host": to_hex(share.host),
            "first": share.first,
            "tokens": share.tokens,
            "amount_wei": str(share.amount),
            "amount": format_amount(share.amount, bill.decimals),
        }
        for share in bill.shares
    ]
    cost = {"cost_wei": str(bill.cost), "cost": format_amount(bill.cost, bill.decimals)}
    hosts = list(dict.fromkeys(to_hex(share.host) for share in bill.shares))
    return {"job": to_hex(bill.job), **cost, "hosts": hosts, "parts": parts}


def error_tree(error: ApiError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


def error_body(error: ApiError) -> bytes:
    return _encode(error_tree(error))


def error_event(error: ApiError) -> bytes:
    """An error after the stream began: OpenAI's SDK raises it. No end mark follows."""
    return b"data: " + _encode(error_tree(error)) + b"\n\n"


def _floats(row: bytes) -> list[float]:
    values = array("f", row)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
