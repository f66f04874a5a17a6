"""Reads the tools of a request: functions that a model may call, whether it must, and the grammar of such a call."""

import re
from typing import Any

import msgspec

from lading_coordinator.errors import ApiError, bad_request
from lading_protocol.errors import BadSchema
from lading_protocol.messages import MAX_TOOLS
from lading_protocol.nesting import deeper
from lading_protocol.schema import read_schema

MOST_TOOLS = 64
MAX_DEPTH = 48
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_VALUES = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "$defs", "definitions"})


class Tools(msgspec.Struct, frozen=True):
    """`listed` is what hosts are sent: functions as JSON. With a `grammar` the answer is a call of one of `names`."""

    names: tuple[str, ...]
    listed: bytes
    grammar: bytes = b""


def read_tools(tools: Any, choice: Any) -> Tools | None:
    """`tools` and `tool_choice`, as chats or as Responses have them. None: nothing may be called. Raises ApiError."""
    if tools is None and choice is None:
        return None
    if not isinstance(tools, list | None):
        raise bad_request("'tools' must be a list of functions.", param="tools", code="invalid_type")
    named = _chosen(choice)
    if not tools:
        if named not in ("auto", "none"):
            raise bad_request("'tool_choice' asks for a call, and there are no 'tools'.", param="tool_choice")
        return None
    if len(tools) > MOST_TOOLS:
        raise bad_request(f"'tools' has {len(tools)} functions; {MOST_TOOLS} are allowed.", param="tools")
    functions = [_function(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    names = tuple(function["name"] for function in functions)
    if len(set(names)) < len(names):
        raise bad_request("Two of the 'tools' have the same name.", param="tools")
    if isinstance(named, tuple):
        if named[0] not in names:
            raise bad_request(f"'tool_choice' names {named[0][:64]!r}, which is not in 'tools'.", param="tool_choice")
        functions = [function for function in functions if function["name"] == named[0]]
    listed = msgspec.json.encode([{"type": "function", "function": function} for function in functions])
    if len(listed) > MAX_TOOLS:
        raise bad_request(f"'tools' has {len(listed)} bytes; {MAX_TOOLS} are allowed.", param="tools")
    if named == "none":
        return None
    grammar = b"" if named == "auto" else _grammar(functions)
    return Tools(tuple(function["name"] for function in functions), listed, grammar)


def _chosen(choice: Any) -> str | tuple[str]:
    """A word, or the name of one function."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return str(choice)
        case {"type": "function", "function": {"name": str() as name}} | {"type": "function", "name": str() as name}:
            return (name,)
        case _:
            raise bad_request(
                "'tool_choice' is 'auto', 'none', 'required' or names a function.",
                param="tool_choice",
                code="invalid_value",
            )


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = str(tool.get("type"))[:40] if isinstance(tool, dict) else "nothing"
        raise bad_request(
            f"'{where}' is of type {kind!r}; this network knows functions only.",
            param=where,
            code="unsupported_parameter",
        )
    given = tool.get("function", {name: value for name, value in tool.items() if name != "type"})
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_request(f"'{where}' needs a name of 1 to 64 letters, digits, '_', '-' or '.'.", param=where)
    for key, value in given.items():
        wanted = {"name": str, "description": str, "strict": bool, "parameters": dict}.get(key)
        if wanted is None or (value is not None and not isinstance(value, wanted)):
            raise bad_request(f"'{where}' has a {str(key)[:40]!r} that is not known or of another type.", param=where)
    if deeper(msgspec.json.encode(given), MAX_DEPTH):
        raise bad_request(f"'{where}' nests more than {MAX_DEPTH} deep.", param=where)
    kept = {key: given[key] for key in ("name", "description", "parameters") if given.get(key) is not None}
    return {"parameters": _NOTHING} | kept


def _grammar(functions: list[dict[str, Any]]) -> bytes:
    """The schema of a call of one of them: its name, then its arguments. Raises ApiError."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": one["name"]}, "arguments": {"$ref": f"#/$defs/{one['name']}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for one in functions
    ]
    parts = {one["name"]: _moved(one["parameters"], f"#/$defs/{one['name']}") for one in functions}
    written = msgspec.json.encode({"$defs": parts, "anyOf": calls})
    try:
        read_schema(written)
    except BadSchema as error:
        raise _held(error) from error
    return written


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references to itself hold where it stands now."""
    if isinstance(schema, list):
        return [_moved(one, to) for one in schema]
    return {key: _part(key, value, to) for key, value in schema.items()} if isinstance(schema, dict) else schema


def _part(key: str, value: Any, to: str) -> Any:
    if key == "$ref" and isinstance(value, str) and value.startswith("#"):
        return to + value[1:]
    if key in _NAMED and isinstance(value, dict):
        return {name: _moved(one, to) for name, one in value.items()}
    return value if key in _VALUES else _moved(value, to)


def _held(error: BadSchema) -> ApiError:
    why = f"A call of 'tools' that must be made is held to its parameters' schema: {error.message}"
    return bad_request(why, param="tools", hint=error.hint or "Use tool_choice 'auto'.")
