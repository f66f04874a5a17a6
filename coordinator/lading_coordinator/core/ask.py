"""Reads the body of an OpenAI request into what the network can be asked, or says which parameter it cannot honour.

Each field is read by core.fields; this module knows which fields a call has. Chats, completions and responses become
one and the same ChatAsk, and that becomes one request for each answer.
"""

from typing import Any

import msgspec

from lading.core.options import Sampling
from lading.core.request import seed_bytes
from lading_coordinator.core.fields import (
    MAX_TEXT,
    check_known,
    read_flag,
    read_inputs,
    read_model,
    read_object,
    read_prompts,
    read_sampling,
    read_stops,
    read_whole,
)
from lading_coordinator.core.tools import Tools, read_tools
from lading_coordinator.core.turns import Turns, read_turns
from lading_coordinator.core.wishes import Wishes, read_wishes
from lading_coordinator.errors import bad_request
from lading_protocol.ids import AgentId
from lading_protocol.messages import (
    MAX_LIKELY,
    MAX_TOKENS,
    CallRequest,
    ChatRequest,
    EmbedRequest,
    Message,
    RichChat,
)
from lading_protocol.transcript import sha256

MAX_CHOICES = 16
_UNSAID = Turns(())
# A model that may make one call only is stopped behind it.
CALL_END = "</tool_call>"
SAMPLING = frozenset(
    {
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
    }
)
# What a request without any of them asks for.
USUAL = read_sampling({})
SPOKEN = SAMPLING | {"model", "max_tokens", "n", "logprobs", "stream", "stream_options"}
CHAT = SPOKEN | {
    "messages",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "top_logprobs",
    "lading",
}
COMPLETION = SPOKEN | {"prompt", "best_of", "echo", "suffix", "lading"}
EMBED = frozenset({"model", "input", "encoding_format", "dimensions"})
CALL = frozenset({"model", "operation", "input", "max_tokens", "stream", "lading"})

Prompt = str | tuple[int, ...]


class ChatAsk(msgspec.Struct, frozen=True):
    """A chat request as the consumer wrote it; `max_tokens` is None when it set no bound.

    `choices` answers are given to it, or to each of `prompts`, which stand in place of messages. `logprobs` is 0, or
    one more than how many likeliest tokens are told with each. `beside` is that of turns.Turns.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    sampling: Sampling = Sampling()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    logprobs: int = 0
    tools: Tools | None = None
    beside: tuple[tuple[int, bytes], ...] = ()
    prompts: tuple[Prompt, ...] = ()
    wishes: Wishes = Wishes()


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
    wishes: Wishes = Wishes()


def parse_chat(body: bytes) -> ChatAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, CHAT)
    limit = read_whole(tree, "max_completion_tokens", 1, MAX_TOKENS)
    turns = read_turns(tree.get("messages"))
    tops = read_whole(tree, "top_logprobs", 0, MAX_LIKELY)
    told = read_flag(tree, "logprobs")
    if tops and not told:
        raise bad_request("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    ask = _spoken(tree, turns, limit, 1 + (tops or 0) if told else 0)
    return with_tools(ask, tree, "response_format")


def parse_completion(body: bytes) -> ChatAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, COMPLETION)
    if read_flag(tree, "echo"):
        raise _refused("echo", "The prompt is not part of the answer here: 'echo' is not supported.")
    if tree.get("suffix"):
        raise _refused("suffix", "The agents of this network write on, they do not fill in: no 'suffix' is supported.")
    likely = read_whole(tree, "logprobs", 0, MAX_LIKELY)
    ask = _spoken(tree, _UNSAID, None, 0 if likely is None else 1 + likely)
    best = read_whole(tree, "best_of", 1, MAX_CHOICES)
    if best is not None and best != ask.choices:
        raise _refused("best_of", "'best_of' is not supported: all answers that are made are given, as 'n' of them.")
    prompts = read_prompts(tree.get("prompt"))
    if len(prompts) * ask.choices > MAX_CHOICES:
        raise bad_request(f"'prompt' and 'n' ask for more than {MAX_CHOICES} answers.", param="prompt")
    return msgspec.structs.replace(ask, prompts=prompts)


def _spoken(tree: dict[str, Any], turns: Turns, limit: int | None, logprobs: int) -> ChatAsk:
    """What chats and completions have in common. `limit` goes before the limit that both know."""
    stream = read_flag(tree, "stream")
    model, most = read_model(tree), read_whole(tree, "max_tokens", 1, MAX_TOKENS)
    most = most if limit is None else limit
    sampling = USUAL if SAMPLING.isdisjoint(tree) else read_sampling(tree)
    seed, stop = read_whole(tree, "seed", -(2**63), 2**64 - 1), read_stops(tree.get("stop"))
    usage, choices = _wants_usage(tree, stream=stream), read_whole(tree, "n", 1, MAX_CHOICES) or 1
    messages, beside, wishes = turns.messages, turns.beside, read_wishes(tree)
    return ChatAsk(
        model,
        messages,
        most,
        sampling,
        seed,
        stop,
        stream,
        usage,
        choices,
        logprobs,
        beside=beside,
        wishes=wishes,
    )


def with_tools(ask: ChatAsk, tree: dict[str, Any], shape: str) -> ChatAsk:
    """With the functions that the request offers. `shape` names its field for the answer's format. Raises ApiError."""
    tools = read_tools(tree.get("tools"), tree.get("tool_choice"))
    if tools is None:
        return ask
    if ask.sampling.grammar:
        why = f"With '{shape}' an answer is never a call: use it or 'tools'."
        raise bad_request(why, param=shape, code="unsupported_parameter")
    if tools.grammar:
        held = msgspec.structs.replace(ask.sampling, grammar=tools.grammar)
        return msgspec.structs.replace(ask, tools=tools, sampling=held)
    stop = ask.stop
    if tree.get("parallel_tool_calls") is not None and not read_flag(tree, "parallel_tool_calls"):
        stop = read_stops([*stop, CALL_END])
    return msgspec.structs.replace(ask, tools=tools, stop=stop)


def _wants_usage(tree: dict[str, Any], *, stream: bool) -> bool:
    options = tree.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise bad_request("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise bad_request("'stream_options' takes only 'include_usage'.", param="stream_options")
    return read_flag(options, "include_usage")


def _refused(name: str, why: str) -> Exception:
    return bad_request(why, param=name, code="unsupported_parameter", hint="Leave it out.")


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
    return CallAsk(read_model(tree), operation, given, limit, read_flag(tree, "stream"), read_wishes(tree))


def chat_requests(ask: ChatAsk, agent: AgentId, fresh: bytes, default_tokens: int) -> list[ChatRequest]:
    """What is sent to hosts: a request for each answer. `fresh` is 32 random bytes, for when the consumer gave no seed.

    The first choice of a prompt is what it would be alone; the others have seeds of their own.
    """
    requests = []
    for at, prompt in enumerate(ask.prompts or (None,)):
        for choice in range(ask.choices):
            number = choice if ask.seed is not None else at * ask.choices + choice
            seed = choice_seed(seed_bytes(agent, ask.seed, fresh), number)
            requests.append(_request(ask, prompt, seed, ask.max_tokens or default_tokens))
    return requests


def chat_request(ask: ChatAsk, agent: AgentId, fresh: bytes, default_tokens: int) -> ChatRequest:
    """The first of them."""
    return chat_requests(ask, agent, fresh, default_tokens)[0]


def choice_seed(seed: bytes, number: int) -> bytes:
    """The sampler's seed of the choice with this number, the first being 0."""
    return sha256(b"lading/choice/1" + seed + number.to_bytes(4, "big")) if number else seed


def _request(ask: ChatAsk, prompt: Prompt | None, seed: bytes, max_tokens: int) -> ChatRequest:
    sampler = ask.sampling.sampler(seed)
    if prompt is None and not (ask.logprobs or ask.tools or ask.beside):
        return ChatRequest(ask.messages, max_tokens, sampler, ask.stop)
    listed = ask.tools.listed if ask.tools is not None else b""
    messages = ask.messages if prompt is None else (Message("user", ""),)
    return RichChat(messages, max_tokens, sampler, ask.stop, ask.logprobs, listed, ask.beside, prompt)


def call_request(ask: CallAsk, default_tokens: int) -> CallRequest:
    return CallRequest(ask.operation, ask.input, ask.max_tokens or default_tokens)


def embed_request(ask: EmbedAsk) -> EmbedRequest:
    return EmbedRequest(ask.inputs)
