"""What can be asked of an agent: the requests that a job carries, as msgpack arrays with a leading tag.

Sizes are bounded in the types; what is left at its default asks for nothing.
"""

from typing import Annotated, Final, final

import msgspec
from msgspec import Meta

MAX_FRAME: Final = 1 << 20
MAX_TOKENS: Final = 1 << 17
MAX_LIKELY: Final = 20
MAX_TOOLS: Final = 1 << 16

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Whatever goes over a stream between peers. A tree of values, so that the collector need not look at it."""


class Message(Wire, frozen=True):
    """One turn of a chat."""

    role: Annotated[str, Meta(max_length=16)]
    content: Annotated[str, Meta(max_length=MAX_FRAME // 2)]


class Sampler(Wire, frozen=True):
    """How the next token is chosen; protocol.md, section 6, has the rule. What is left at its default is off.

    `temperature` 0 means greedy. `presence` and `frequency` count the output, `repetition` the prompt too. `bias` are
    ids in rising order and what is added to their logits. `grammar` is a JSON Schema (schema.py) that the answer obeys.
    """

    seed: Hash
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=2**20)] = 0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    presence: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    repetition: Annotated[float, Meta(ge=0.5, le=2)] = 1.0
    bias: Annotated[tuple[tuple[Count, Annotated[float, Meta(ge=-100, le=100)]], ...], Meta(max_length=300)] = ()
    grammar: Annotated[bytes, Meta(max_length=1 << 14)] = b""


class ChatRequest(Wire, frozen=True, tag="chat"):
    """`max_tokens` counts all output tokens of the job, those emitted by earlier attempts included."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=1024)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
    sampler: Sampler
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=4)] = ()


@final
class RichChat(ChatRequest, frozen=True, tag="rich"):
    """A chat that asks for what few do; it has a tag of its own, so that all others cost what they did.

    `logprobs` is 0, or one more than how many of the likeliest tokens are told with each. `tools` is JSON: a list of
    functions as OpenAI writes them; with a grammar the answer is one call, `{"name": ..., "arguments": ...}`. `turns`
    are what the messages with these indexes have beside their text: JSON with `tool_calls` (their arguments as
    objects), or with `tool_call_id`. `prompt` stands in place of all chat markup, as text or as token ids; the messages
    are one without text then.
    """

    logprobs: Annotated[int, Meta(ge=0, le=1 + MAX_LIKELY)] = 0
    tools: Annotated[bytes, Meta(max_length=MAX_TOOLS)] = b""
    turns: Annotated[tuple[tuple[Count, Annotated[bytes, Meta(max_length=MAX_TOOLS)]], ...], Meta(max_length=1024)] = ()
    prompt: (
        Annotated[str, Meta(min_length=1, max_length=MAX_FRAME // 2)]
        | Annotated[tuple[Count, ...], Meta(min_length=1, max_length=MAX_TOKENS)]
        | None
    ) = None


@final
class EmbedRequest(Wire, frozen=True, tag="embed"):
    """One vector is returned for each input."""

    inputs: Annotated[tuple[Annotated[str, Meta(max_length=MAX_FRAME // 2)], ...], Meta(min_length=1, max_length=256)]


@final
class CallRequest(Wire, frozen=True, tag="call"):
    """Any other operation of an agent: JSON in, text or JSON out. `max_tokens` counts work tokens (work.py)."""

    operation: Annotated[str, Meta(min_length=1, max_length=64)]
    input: Annotated[bytes, Meta(max_length=MAX_FRAME // 2)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]


Streamed = ChatRequest | RichChat | CallRequest
Request = ChatRequest | RichChat | EmbedRequest | CallRequest


def operation_of(request: Request) -> str:
    """The name of what is asked, as a manifest's `api` names it."""
    if type(request) is CallRequest:
        return request.operation
    return "embed" if type(request) is EmbedRequest else "chat"
