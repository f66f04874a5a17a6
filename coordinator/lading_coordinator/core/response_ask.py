"""Reads the body of a Responses request into a ChatAsk. What would need an answer that was kept here is refused."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lading_coordinator.core.ask import SAMPLING, ChatAsk, with_tools
from lading_coordinator.core.fields import (
    NEUTRAL,
    check_known,
    read_flag,
    read_model,
    read_object,
    read_sampling,
    read_stops,
    read_whole,
)
from lading_coordinator.core.turns import Turns, read_turns
from lading_coordinator.core.wishes import read_wishes
from lading_coordinator.errors import ApiError, bad_request
from lading_protocol.messages import MAX_LIKELY, MAX_TOKENS, Message

RESPONSE: Final = (SAMPLING - {"response_format"}) | {
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "text",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "top_logprobs",
    "include",
    "stream",
    "stream_options",
    "store",
    "previous_response_id",
    "conversation",
    "lading",
}
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = NEUTRAL | {
    "background": (False,),
    "truncation": ("disabled",),
    "max_tool_calls": (),
    "prompt": (),
    "reasoning": ({}, {"effort": "none"}, {"effort": None, "summary": None}),
    "prompt_cache_retention": ("in-memory", "in_memory"),
}
LOGPROBS: Final = "message.output_text.logprobs"
# What the reply repeats of the request, with the value where it says nothing.
_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
}


class ResponseAsk(msgspec.Struct, frozen=True):
    """`echo` is what the reply repeats of the request."""

    chat: ChatAsk
    echo: Mapping[str, Any]


def parse_response(body: bytes) -> ResponseAsk:
    """Raises ApiError."""
    tree = read_object(body)
    check_known(tree, RESPONSE, _NEUTRAL)
    _check_kept(tree)
    turns = _turns(tree.get("input"), tree.get("instructions"))
    options = tree.get("stream_options")
    if options is not None and (not isinstance(options, dict) or set(options) - {"include_obfuscation"}):
        raise bad_request("'stream_options' takes only 'include_obfuscation'.", param="stream_options")
    ask = ChatAsk(
        model=read_model(tree),
        messages=turns.messages,
        max_tokens=read_whole(tree, "max_output_tokens", 1, MAX_TOKENS),
        sampling=read_sampling(tree | {"response_format": _format(tree.get("text"))}, "text.format"),
        seed=read_whole(tree, "seed", -(2**63), 2**64 - 1),
        stop=read_stops(tree.get("stop")),
        stream=read_flag(tree, "stream"),
        logprobs=_logprobs(tree),
        beside=turns.beside,
        wishes=read_wishes(tree),
    )
    echo = {name: usual if tree.get(name) is None else tree[name] for name, usual in _ECHOED.items()}
    return ResponseAsk(with_tools(ask, tree, "text.format"), echo)


def _check_kept(tree: dict[str, Any]) -> None:
    """OpenAI keeps answers where nothing is said; here nothing is kept, and only who asks for it is refused."""
    if read_flag(tree, "store"):
        raise _refused("store", "This network keeps no answers.", "Leave 'store' out, or set it to false.")
    for name in ("previous_response_id", "conversation"):
        if tree.get(name) is not None:
            raise _refused(
                name,
                "This network keeps no answers that another could follow.",
                "Send the whole conversation as 'input'.",
            )


def _refused(name: str, why: str, hint: str) -> ApiError:
    return bad_request(f"'{name}' is not supported: {why}", param=name, code="unsupported_parameter", hint=hint)


def _turns(given: Any, instructions: Any) -> Turns:
    if not isinstance(instructions, str | None):
        raise bad_request("'instructions' must be a text.", param="instructions", code="invalid_type")
    if isinstance(given, str):
        turns = read_turns([{"role": "user", "content": given}], "input")
    elif isinstance(given, list):
        turns = read_turns([_turn(item, f"input[{i}]") for i, item in enumerate(given)], "input")
    else:
        raise bad_request("'input' must be a text or a list of items.", param="input", code="invalid_type")
    if not instructions:
        return turns
    beside = tuple((at + 1, extra) for at, extra in turns.beside)
    return Turns((Message("system", instructions), *turns.messages), beside)


def _turn(item: Any, where: str) -> Any:
    """An item as the message of a chat."""
    if not isinstance(item, dict):
        return item
    match item.get("type"):
        case None | "message":
            return {key: value for key, value in item.items() if key not in ("type", "id", "status", "phase")}
        case "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls = [{"id": item.get("call_id"), "type": "function", "function": call}]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        case "function_call_output":
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
        case kind:
            raise bad_request(
                f"'{where}' is a {str(kind)[:40]!r}; this network takes messages, function calls and their outputs.",
                param=where,
                code="unsupported_content",
            )


def _format(text: Any) -> Any:
    """The answer's format as chats have it: there the schema stands one level deeper."""
    if text is None:
        return None
    if (
        not isinstance(text, dict)
        or set(text) - {"format", "verbosity"}
        or text.get("verbosity") not in (None, "medium")
    ):
        raise bad_request("'text' takes only 'format'.", param="text")
    given = text.get("format")
    if isinstance(given, dict) and given.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}
    return given


def _logprobs(tree: dict[str, Any]) -> int:
    wanted = tree.get("include") or []
    if not isinstance(wanted, list) or any(one != LOGPROBS for one in wanted):
        raise bad_request(f"'include' takes only {LOGPROBS!r}.", param="include", code="unsupported_parameter")
    tops = read_whole(tree, "top_logprobs", 0, MAX_LIKELY) or 0
    return 1 + tops if wanted or tops else 0
