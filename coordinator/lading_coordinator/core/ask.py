"""Reads the body of an OpenAI request into what the network can be asked, or says which parameter it cannot honour.

Each field is read by core.fields; this module knows which fields a call has.
"""

import msgspec

from lading.core.options import Sampling
from lading.core.request import seed_bytes
from lading_coordinator.core.fields import (
    MAX_TEXT,
    check_known,
    read_flag,
    read_inputs,
    read_messages,
    read_model,
    read_object,
    read_sampling,
    read_stops,
    read_whole,
)
from lading_coordinator.errors import bad_request
from lading_protocol.ids import AgentId
from lading_protocol.messages import MAX_TOKENS, CallRequest, ChatRequest, EmbedRequest, Message

CHAT = frozenset(
    {
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
    }
)
EMBED = frozenset({"model", "input", "encoding_format", "dimensions"})
CALL = frozenset({"model", "operation", "input", "max_tokens", "stream"})


class ChatAsk(msgspec.Struct, frozen=True):
    """A chat request as the consumer wrote it; `max_tokens` is None when it set no bound."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    sampling: Sampling = Sampling()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False


class EmbedAsk(msgspec.Struct, frozen=True):
    model: str
    inputs: tuple[str, ...]
    base64: bool = False
    dimensions: int | None = None


class CallAsk(msgspec.Struct, frozen=True):
    """A call of any other operation; `input` is JSON as it goes to the agent."""

    model: str
    operation: str
    input: bytes
    max_tokens: int | None = None
    stream: bool = False


def parse_chat(body: bytes) -> ChatAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, CHAT)
    stream = read_flag(tree, "stream")
    options = tree.get("stream_options")
    if options is not None:
        if not stream:
            raise bad_request("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
            raise bad_request("'stream_options' takes only 'include_usage'.", param="stream_options")
    limit = read_whole(tree, "max_completion_tokens", 1, MAX_TOKENS)
    older = read_whole(tree, "max_tokens", 1, MAX_TOKENS)
    return ChatAsk(
        model=read_model(tree),
        messages=read_messages(tree.get("messages")),
        max_tokens=older if limit is None else limit,
        sampling=read_sampling(tree),
        seed=read_whole(tree, "seed", -(2**63), 2**64 - 1),
        stop=read_stops(tree.get("stop")),
        stream=stream,
        include_usage=options is not None and read_flag(options, "include_usage"),
    )


def parse_embed(body: bytes) -> EmbedAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, EMBED)
    form = tree.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise bad_request("'encoding_format' is 'float' or 'base64'.", param="encoding_format")
    return EmbedAsk(
        read_model(tree), read_inputs(tree.get("input")), form == "base64", read_whole(tree, "dimensions", 1, 65536)
    )


def parse_call(body: bytes) -> CallAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, CALL)
    operation = tree.get("operation")
    if not isinstance(operation, str) or not 0 < len(operation) <= 64:
        raise bad_request(
            "'operation' must name what the agent should do.", param="operation", hint="See GET /v1/models."
        )
    given = msgspec.json.encode(tree.get("input"))
    if len(given) > MAX_TEXT:
        raise bad_request(f"'input' has {len(given)} bytes, over the limit of {MAX_TEXT}.", param="input")
    limit = read_whole(tree, "max_tokens", 1, MAX_TOKENS)
    return CallAsk(read_model(tree), operation, given, limit, read_flag(tree, "stream"))


def chat_request(ask: ChatAsk, agent: AgentId, fresh: bytes, default_tokens: int) -> ChatRequest:
    """What is sent to hosts. `fresh` is 32 random bytes, used when the consumer gave no seed."""
    sampler = ask.sampling.sampler(seed_bytes(agent, ask.seed, fresh))
    return ChatRequest(ask.messages, ask.max_tokens or default_tokens, sampler, ask.stop)


def call_request(ask: CallAsk, default_tokens: int) -> CallRequest:
    return CallRequest(ask.operation, ask.input, ask.max_tokens or default_tokens)


def embed_request(ask: EmbedAsk) -> EmbedRequest:
    return EmbedRequest(ask.inputs)
