"""Tools and their calls as an agent's prompt shows them: read from the request, or written out as plain messages. Pure.

The written form is that of Hermes, which many models know: calls are JSON between <tool_call> and </tool_call>.
"""

import json
from typing import Any

import msgspec

from lading_protocol.messages import ChatRequest, Message, RichChat
from lading_protocol.nesting import deeper

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_DEPTH = 64
_HEAD = "You can call these functions, each described by a JSON Schema of its arguments:"
_HOW = 'Answer with one call and nothing else, as JSON: {"name": <name of the function>, "arguments": <its arguments>}.'


class BadTools(ValueError):
    """What a request says of tools does not read; the text is a sentence about it."""


def tools_of(request: RichChat) -> list[dict[str, Any]]:
    """Raises BadTools."""
    if not request.tools:
        return []
    tools = _read(request.tools)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadTools("The tools are no list of functions.")
    return tools


def turns_of(request: ChatRequest) -> list[dict[str, Any]]:
    """Every message as a chat template in the transformers style takes it. Raises BadTools."""
    turns: list[dict[str, Any]] = [{"role": one.role, "content": one.content} for one in request.messages]
    for at, data in request.turns if isinstance(request, RichChat) else ():
        beside = _read(data)
        if at >= len(turns) or not isinstance(beside, dict) or not set(beside) <= {"tool_calls", "tool_call_id"}:
            raise BadTools(f"What stands beside the message {at} is no tool call.")
        turns[at] |= beside
    return turns


def written(request: RichChat) -> tuple[Message, ...]:
    """The messages for an agent whose markup knows no tools: tools go into a first system message. Raises BadTools."""
    try:
        messages = [_plain(turn) for turn in turns_of(request)]
    except (LookupError, TypeError) as error:
        raise BadTools("A tool call has no function with a name and arguments.") from error
    tools = tools_of(request)
    if tools:
        lines = [json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools]
        said = "\n".join([_HEAD, *lines, _HOW])
        if messages[0].role == "system":
            said = f"{messages.pop(0).content}\n\n{said}"
        messages.insert(0, Message("system", said))
    return tuple(messages)


def _plain(turn: dict[str, Any]) -> Message:
    if turn["role"] == "tool":
        return Message("user", f"<tool_response>\n{turn['content']}\n</tool_response>")
    calls = [one["function"] for one in turn.get("tool_calls", ())]
    shown = [json.dumps({"name": one["name"], "arguments": one["arguments"]}, ensure_ascii=False) for one in calls]
    parts = [turn["content"]] if turn["content"] else []
    return Message(turn["role"], "\n".join([*parts, *(f"{OPEN}\n{one}\n{CLOSE}" for one in shown)]))


def _read(data: bytes) -> Any:
    try:
        if deeper(data, MAX_DEPTH):
            raise BadTools(f"The tools nest more than {MAX_DEPTH} deep.")
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTools("The tools are not valid JSON.") from error
