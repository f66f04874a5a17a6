"""Test vectors: what each asks an engine, and whether the answer is the expected one. Pure; runs nothing."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from lading_node.engines.port import Embedded
from lading_protocol.errors import LadingError
from lading_protocol.ids import digest
from lading_protocol.messages import CallRequest, ChatRequest, EmbedRequest, Message, Request, Sampler
from lading_protocol.parts import Vector
from lading_protocol.transcript import sha256

MILLION = 1_000_000
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


class BadVector(LadingError):
    """A test vector cannot be asked of any engine."""

    code = "bad_project"
    hint = "Correct the vector in agent.toml or vectors.jsonl."


def request_of(operation: str, given: Any, max_tokens: int, seed: str | None = None) -> Request:
    """A chat is greedy unless it has a seed, then it is sampled at temperature 1. Its input is a text, messages, or an
    object with them; that of "embed" a text or texts. Raises BadVector.
    """
    try:
        if operation == "chat":
            sampler = Sampler(bytes(32), temperature=0.0) if seed is None else Sampler(digest(seed))
            return _checked(ChatRequest(_messages(given), max_tokens, sampler))
        if operation == "embed":
            texts = (given,) if isinstance(given, str) else tuple(given["inputs"] if isinstance(given, dict) else given)
            return _checked(EmbedRequest(texts))
        return _checked(CallRequest(operation, canonical(given), max_tokens))
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise BadVector(f"The input of {operation!r} is not one: {error}.") from error


def canonical(value: Any) -> bytes:
    """JSON in one form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def text_trouble(vector: Vector, text: str) -> str:
    """Why the text is not what the vector expects; "" when it is."""
    if vector.output is not None and text != vector.output:
        at = next((i for i, (a, b) in enumerate(zip(text, vector.output, strict=False)) if a != b), 0)
        at = at or min(len(text), len(vector.output))
        return f"character {at} differs: {text[at : at + 24]!r} came, {vector.output[at : at + 24]!r} was expected"
    if vector.digest is not None and sha256(text.encode()) != digest(vector.digest):
        return "the text has another digest than the expected one"
    return "" if vector.near is None else "vectors were expected, and a text came"


def near_trouble(vector: Vector, rows: Embedded) -> str:
    """Why the rows are not near enough to those that the vector expects; "" when they are."""
    if vector.near is None:
        return "a text was expected, and vectors came"
    try:
        wanted = _floats(base64.b64decode(vector.near, validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadVector(f"The expected vectors do not read: {error}.") from error
    got = _floats(b"".join(rows.vectors))
    if len(got) != len(wanted):
        return f"{len(got)} numbers came, {len(wanted)} were expected"
    largest = max(map(abs, wanted), default=0.0)
    worst = max((abs(a - b) for a, b in zip(got, wanted, strict=True)), default=0.0)
    allowed = largest * vector.tolerance / MILLION
    if worst <= allowed:
        return ""
    return f"a number is {worst:.2g} off, {allowed:.2g} is allowed"


def _messages(given: Any) -> tuple[Message, ...]:
    if isinstance(given, str):
        return (Message("user", given),)
    turns = given["messages"] if isinstance(given, dict) else given
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


def _checked(request: Request) -> Request:
    """The wire's own limits, with the field's name."""
    return _request.decode(msgspec.msgpack.encode(request))


def _floats(data: bytes) -> Sequence[float]:
    return memoryview(data).cast("f").tolist()
