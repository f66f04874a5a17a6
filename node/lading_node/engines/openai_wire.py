"""What is asked of an OpenAI-compatible server, and what its answers say. Pure; a server is a stranger to be read with
care, and whatever is not exactly an answer to what was asked is a BadStream in words.
"""

from array import array
from math import isfinite
from typing import Any, Literal, NamedTuple

import msgspec

from lading_node.core.asked import extras
from lading_node.core.tools import BadTools, written
from lading_node.engines.errors import EngineError, check_extras
from lading_node.engines.sse import BadStream
from lading_protocol.errors import BadSchema
from lading_protocol.messages import ChatRequest, Message, RichChat, Sampler
from lading_protocol.schema import ANY_OBJECT, read_schema

MOST_WIDTH = 1 << 16
DONE = b"[DONE]"
_encode = msgspec.json.Encoder().encode
# No logit_bias: its ids are those of a vocabulary that nobody here knows.
Parameter = Literal["top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "response_format"]
# A server that is given the beginning of an answer counts it as prompt, and begins its grammar anew behind it.
_OF_OUTPUT = ("presence_penalty", "frequency_penalty", "response_format")


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server that the operator named. `url` is where its API begins, such as http://127.0.0.1:8000/v1.

    `continues`: it goes on with an answer that another began (`continue_final_message`, as vLLM has it). Nobody can
    tell then whether that beginning was this model's own.
    `takes` are parameters that it honours; what is asked beyond them is refused.
    """

    url: str
    model: str
    key: str = ""
    continues: bool = False
    takes: tuple[Parameter, ...] = ("presence_penalty", "frequency_penalty", "response_format")

    def __repr__(self) -> str:
        """Without the key: it would end up in a log."""
        return f"Endpoint(url={self.url!r}, model={self.model!r})"


class News(NamedTuple):
    """`finish` is "" until the server ends the answer."""

    text: str
    finish: str


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    model: str
    choices: tuple[_Choice, ...] = ()


class _Row(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Rows(msgspec.Struct, frozen=True):
    model: str
    data: list[_Row]


class _Listed(msgspec.Struct, frozen=True):
    id: str


class _List(msgspec.Struct, frozen=True):
    data: list[_Listed]


_chunk = msgspec.json.Decoder(_Chunk)
_rows = msgspec.json.Decoder(_Rows)
_list = msgspec.json.Decoder(_List)


def chat_body(endpoint: Endpoint, request: ChatRequest, begun: str) -> bytes:
    """`begun` is what the assistant has said already. The seed keeps 53 bits, which every language's numbers hold.

    Raises EngineError.
    """
    sampler = request.sampler
    # A call that is asked for by name is an answer under a grammar; a server's own ways with tools are not used.
    called = ("tools",) if sampler.grammar and "response_format" in endpoint.takes else ()
    check_extras(request, (*endpoint.takes, *called), "This agent's server")
    if begun and (asked := [name for name in extras(sampler) if name in _OF_OUTPUT]):
        raise EngineError("invalid_request", f"An answer of this agent with {asked[0]} cannot be resumed.")
    messages = [{"role": one.role, "content": one.content} for one in _messages(request)]
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": sampler.temperature,
        "top_p": sampler.top_p,
        "seed": int.from_bytes(sampler.seed[:8], "big") >> 11,
        "stream": True,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    body |= {name: _value(sampler, name) for name in extras(sampler)}
    if begun:
        messages.append({"role": "assistant", "content": begun})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return _encode(body)


def _messages(request: ChatRequest) -> tuple[Message, ...]:
    """Raises EngineError."""
    try:
        return written(request) if isinstance(request, RichChat) else request.messages
    except BadTools as error:
        raise EngineError("invalid_request", str(error)) from error


def _value(sampler: Sampler, name: str) -> Any:
    match name:
        case "top_k":
            return sampler.top_k
        case "min_p":
            return sampler.min_p
        case "presence_penalty":
            return sampler.presence
        case "frequency_penalty":
            return sampler.frequency
        case "repetition_penalty":
            return sampler.repetition
        case _:
            return _response_format(sampler.grammar)


def _response_format(grammar: bytes) -> dict[str, Any]:
    """Raises EngineError."""
    try:
        read_schema(grammar)
    except BadSchema as error:
        raise EngineError("invalid_request", error.message, hint=error.hint) from error
    if grammar == ANY_OBJECT:
        return {"type": "json_object"}
    schema = {"name": "answer", "strict": True, "schema": msgspec.Raw(grammar)}
    return {"type": "json_schema", "json_schema": schema}


def embed_body(endpoint: Endpoint, texts: list[str]) -> bytes:
    return _encode({"model": endpoint.model, "input": texts, "encoding_format": "float"})


def read_chunk(endpoint: Endpoint, data: bytes) -> News:
    """One event of a streamed chat. Raises BadStream."""
    chunk = _read(_chunk, data)
    _check_model(endpoint, chunk.model)
    if len(chunk.choices) > 1 or any(choice.index for choice in chunk.choices):
        raise BadStream("It gives several answers at once.")
    if not chunk.choices:
        return News("", "")
    (choice,) = chunk.choices
    return News(choice.delta.content or "", choice.finish_reason or "")


def read_rows(endpoint: Endpoint, data: bytes, inputs: int, width: int) -> list[bytes]:
    """Rows of little-endian float32 in the order of the inputs. `width` 0 takes any. Raises BadStream."""
    found = _read(_rows, data)
    _check_model(endpoint, found.model)
    if sorted(row.index for row in found.data) != list(range(inputs)):
        raise BadStream(f"It gives {len(found.data)} vectors for {inputs} inputs.")
    width = width or len(found.data[0].embedding)
    if not 1 <= width <= MOST_WIDTH or any(len(row.embedding) != width for row in found.data):
        raise BadStream("Its vectors are not all of one width.")
    return [_row(row.embedding) for row in sorted(found.data, key=lambda row: row.index)]


def read_models(data: bytes) -> tuple[str, ...]:
    """Raises BadStream."""
    return tuple(one.id for one in _read(_list, data).data)


def _read(decoder: "msgspec.json.Decoder[Any]", data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode errors are ValueErrors
        raise BadStream(f"It sends what is no answer: {' '.join(str(error).split())[:120]}.") from None


def _check_model(endpoint: Endpoint, model: str) -> None:
    if model != endpoint.model:
        raise BadStream(f"It answers as {model[:80]!r}, and was asked for {endpoint.model!r}.")


def _row(numbers: list[float]) -> bytes:
    try:
        row = array("f", numbers)
    except OverflowError:
        raise BadStream("A vector holds a number that no float32 can hold.") from None
    if not all(map(isfinite, row)):
        raise BadStream("A vector holds a number that is none.")
    if array("H", [1]).tobytes() == b"\0\1":
        row.byteswap()
    return row.tobytes()
