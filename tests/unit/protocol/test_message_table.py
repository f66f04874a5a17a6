"""The table of messages in docs/protocol.md is what the code says: another client is written from it.

    python tests/unit/protocol/test_message_table.py

writes it anew between its two marks.
"""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from lading_protocol import losses, messages, requests, summaries
from lading_protocol.eip712 import Signable

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
BEGIN, END = "<!-- messages -->\n", "<!-- end of messages -->\n"


def word(hint: Any) -> str:
    """The type of a field in the page's words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return bounded(inside[0], inside[1])
    if origin is tuple:
        many = "*" if Ellipsis in inside else ""
        return f"[{', '.join(word(one) for one in inside if one is not Ellipsis)}{many}]"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return str(hint.__struct_config__.tag or hint.__name__)
    if origin in (Union, UnionType):
        return " or ".join(word(one) for one in inside)
    return {str: "text", int: "uint", bytes: "bytes", float: "float", bool: "bool", type(None): "nothing"}[hint]


def bounded(inner: Any, meta: msgspec.Meta) -> str:
    if inner is bytes and meta.min_length is not None and meta.min_length == meta.max_length:
        return f"bytes{meta.min_length}"
    if inner is int and meta.le == 2**32 - 1:
        return "uint32"
    most = meta.max_length if meta.max_length is not None else meta.le
    return word(inner) + (f" ≤ {most:,}" if most is not None and inner is not float else "")


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else ()
    return f" = {'[]' if value == () else 'empty' if value == b'' else str(value).lower()}"


def row(struct: type[msgspec.Struct]) -> str:
    hints = get_type_hints(struct, include_extras=True)
    fields = [f"{one.name}: {word(hints[one.name])}{default(one)}" for one in msgspec.structs.fields(struct)]
    tag = struct.__struct_config__.tag
    name = f"`{tag}`" if tag is not None else f"{struct.__name__} (no tag)"
    return f"| {name} | {', '.join(fields) or 'nothing'} |"


def table() -> str:
    here = [
        one
        for module in (requests, messages, losses, summaries)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct)
        if one.__module__.removesuffix("_records") == module.__name__  # where they are when it is compiled
        if one.__struct_config__.array_like and not issubclass(one, Signable)
    ]
    here = [one for one in here if one.__struct_fields__ or one.__struct_config__.tag is not None]
    return "\n".join(["| tag | fields in order |", "| --- | --- |", *map(row, dict.fromkeys(here))]) + "\n"


def test_the_page_has_every_message_as_it_is() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.split(BEGIN)[1].split(END)[0] == table()


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1])
