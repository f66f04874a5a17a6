"""What the node and an agent in a container say to each other over standard input and output: ABI 1.

Each message is one frame (lading_protocol.framing) of JSON. Pure; an agent's bytes are read here and nowhere else, and
whatever is not exactly a message is a BadFrame in words.
"""

import json
from array import array
from math import isfinite
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from lading_node.engines.errors import check_extras
from lading_protocol.framing import frame
from lading_protocol.messages import ChatRequest
from lading_protocol.nesting import deeper

MAX_DEPTH = 64
MOST_WIDTH = 1 << 16
_encoder = msgspec.json.Encoder()


class BadFrame(Exception):
    """An agent broke the ABI; the text is a sentence about it."""


class Greeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sent once, when the agent can take calls."""

    name: str
    operations: tuple[str, ...]


class FromAgent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of four, told apart by which of the first four fields is there."""

    ready: Greeting | UnsetType = UNSET
    out: int | UnsetType = UNSET
    done: int | UnsetType = UNSET
    fail: int | UnsetType = UNSET
    text: str = ""
    output: msgspec.Raw | UnsetType = UNSET
    code: Literal["invalid_request", "agent_error"] = "agent_error"
    message: str = ""


class Vectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The output of `embed`."""

    vectors: list[list[float]]
    tokens: list[int]


_decoder = msgspec.json.Decoder(FromAgent)
_vectors = msgspec.json.Decoder(Vectors)
_any = msgspec.json.Decoder(Any)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def call(id: int, operation: str, input: bytes, max_tokens: int) -> bytes:
    """The frame that begins a call; `input` is JSON that is_json has seen. Raises BadMessage when it is too large."""
    return frame(
        _encoder.encode({"call": id, "operation": operation, "input": msgspec.Raw(input), "max_tokens": max_tokens})
    )


def cancel(id: int) -> bytes:
    return frame(_encoder.encode({"cancel": id}))


def stop() -> bytes:
    return frame(b'{"stop":true}')


def chat_input(request: ChatRequest) -> bytes:
    """The seed keeps 53 bits, so that every language's numbers can hold it. Raises EngineError."""
    sampler = request.sampler
    check_extras(request, (), "This agent chooses its tokens itself and")
    return _encoder.encode(
        {
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            "seed": int.from_bytes(sampler.seed[:8], "big") >> 11,
            "stop": list(request.stop),
        }
    )


def embed_input(texts: list[str]) -> bytes:
    return _encoder.encode({"inputs": texts})


def is_json(data: bytes) -> bool:
    """Whether a consumer's input is one JSON value that every reader can take."""
    try:
        if deeper(data, MAX_DEPTH):
            return False
        _any.decode(data)
    except (ValueError, RecursionError):
        return False
    return True


def read(payload: bytes) -> FromAgent:
    """Raises BadFrame."""
    try:
        message = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode errors are ValueErrors
        raise BadFrame(f"It sent what is not a message: {str(error)[:120]}.") from None
    kinds = (message.ready, message.out, message.done, message.fail)
    if kinds.count(UNSET) != len(kinds) - 1:
        raise BadFrame("It sent a message that is not exactly one of ready, out, done and fail.")
    return message


def answer(output: msgspec.Raw | UnsetType) -> str:
    """The text of an answer that was given as a JSON value: its canonical form. Raises BadFrame."""
    if output is UNSET:
        return ""
    try:
        if deeper(bytes(output), MAX_DEPTH):
            raise BadFrame(f"Its answer is nested deeper than {MAX_DEPTH} levels.")
        text = _canonical.encode(_any.decode(output))
        text.encode()
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"Its answer is no JSON: {str(error)[:120]}.") from None
    return text


def rows(output: msgspec.Raw | UnsetType, inputs: int, width: int) -> tuple[list[bytes], list[int]]:
    """Rows of little-endian float32, and the tokens of each input. `width` 0 takes any. Raises BadFrame."""
    try:
        found = _vectors.decode(b"" if output is UNSET else output)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"Its vectors do not read: {str(error)[:120]}.") from None
    width = width or (len(found.vectors[0]) if found.vectors else 0)
    if not 1 <= width <= MOST_WIDTH or [len(row) for row in found.vectors] != [width] * inputs:
        raise BadFrame(f"It gave {len(found.vectors)} vectors for {inputs} inputs, or not all of one width.")
    if len(found.tokens) != inputs or any(not 0 <= tokens < 1 << 24 for tokens in found.tokens):
        raise BadFrame("It did not count the tokens of each input.")
    return [_row(row) for row in found.vectors], found.tokens


def _row(numbers: list[float]) -> bytes:
    try:
        row = array("f", numbers)
    except OverflowError:
        raise BadFrame("A vector holds a number that no float32 can hold.") from None
    if not all(map(isfinite, row)):
        raise BadFrame("A vector holds a number that is none.")
    if array("H", [1]).tobytes() == b"\0\1":
        row.byteswap()
    return row.tobytes()
