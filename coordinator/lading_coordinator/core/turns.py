"""Reads the turns of a conversation: text, calls of functions that an assistant made, and what came of them."""

from typing import Any, Final

import msgspec

from lading_coordinator.core.fields import MAX_TEXT, size_of, too_much
from lading_coordinator.errors import bad_request
from lading_protocol.messages import MAX_TOOLS, Message
from lading_protocol.nesting import deeper

MAX_MESSAGES = 1024
MAX_CALLS = 64
MAX_DEPTH = 32
ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_USUAL: Final = ("role", "content", "name", "refusal")
_KNOWN: Final[dict[str, tuple[str, ...]]] = {"assistant": (*_USUAL, "tool_calls"), "tool": (*_USUAL, "tool_call_id")}
_TEXTS: Final = ("text", "input_text", "output_text")


class Turns(msgspec.Struct, frozen=True):
    """The messages, and what those with these indexes have beside their text (messages.RichChat)."""

    messages: tuple[Message, ...]
    beside: tuple[tuple[int, bytes], ...] = ()


def read_turns(value: Any, name: str = "messages") -> Turns:
    """`name` is what the request calls the list. Raises ApiError."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise bad_request(f"'{name}' must be a list of 1 to {MAX_MESSAGES} messages.", param=name)
    messages, beside = [], []
    for i, entry in enumerate(value):
        message, extra = _message(entry, f"{name}[{i}]")
        messages.append(message)
        if extra:
            beside.append((i, extra))
    size = 0
    for message in messages:
        size += size_of(message.content)
    for _, extra in beside:
        size += len(extra)
    if size > MAX_TEXT:
        raise too_much(name)
    return Turns(tuple(messages), tuple(beside))


def _message(entry: Any, where: str) -> tuple[Message, bytes]:
    if not isinstance(entry, dict):
        raise bad_request(f"'{where}' must be an object with 'role' and 'content'.", param=where, code="invalid_type")
    role = entry.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise bad_request(f"'{where}.role' must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    known = _KNOWN.get(role, _USUAL)
    for name, extra in entry.items():
        if name not in known and extra not in (None, []):
            raise bad_request(
                f"'{where}.{name[:64]}' is not supported.", param=f"{where}.{name[:64]}", code="unsupported_parameter"
            )
    calls = entry.get("tool_calls") if role == "assistant" else None
    given = "" if calls and entry.get("content") is None else entry.get("content")
    message = Message(ROLES[role], given if isinstance(given, str) else read_content(given, f"{where}.content"))
    if role == "tool":
        return message, _answered(entry.get("tool_call_id"), f"{where}.tool_call_id")
    return message, _called(calls, f"{where}.tool_calls") if calls else b""


def read_content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise bad_request(f"'{where}' must be a string or a list of text parts.", param=where, code="invalid_type")
    texts = []
    for i, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) and part.get("type") in _TEXTS else None
        if not isinstance(text, str):
            raise bad_request(
                f"'{where}[{i}]' is not a text part; this network takes text only.",
                param=f"{where}[{i}]",
                code="unsupported_content",
            )
        texts.append(text)
    return "".join(texts)


def _answered(id: Any, where: str) -> bytes:
    if not isinstance(id, str) or not 0 < len(id) <= 128:
        raise bad_request(f"'{where}' must say which call this is the result of.", param=where)
    return msgspec.json.encode({"tool_call_id": id})


def _called(calls: Any, where: str) -> bytes:
    """The calls with their arguments as objects, as chat templates take them."""
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise bad_request(f"'{where}' must be a list of at most {MAX_CALLS} calls.", param=where)
    written = msgspec.json.encode({"tool_calls": [_call(one, f"{where}[{i}]") for i, one in enumerate(calls)]})
    if len(written) > MAX_TOOLS:
        raise bad_request(f"'{where}' has more than {MAX_TOOLS} bytes.", param=where, code="too_long")
    return written


def _call(call: Any, where: str) -> dict[str, Any]:
    match call:
        case {"id": str() as id, "type": "function", "function": {"name": str() as name, "arguments": str() as given}}:
            pass
        case _:
            raise bad_request(f"'{where}' must be a call of a function with id, name and arguments.", param=where)
    data = given.encode()
    try:
        arguments = None if deeper(data, MAX_DEPTH) else msgspec.json.decode(data or b"{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise bad_request(f"'{where}.function.arguments' is not the JSON of an object.", param=where)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
