"""The Jinja environment of chat templates: nothing that a template computes can grow beyond MAX_TEXT.

Every operation that makes something larger than what went in is measured before it is made: a single one of them can
fill the memory faster than any deadline is noticed. Knows no messages.
"""

import functools
import json
from collections.abc import Callable, Iterable, Sized
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import identity
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT = 4 << 20
_MOST_INDENT = 16
_MOST_SEPARATORS = 8
# Methods of strings that pad or map: no template needs them, and each can fill the memory.
_GROWING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "translate", "maketrans", "encode"})
_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse"),
    *("round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
)


def weight(*values: Any) -> int:
    """Characters of all strings in `values`, and one for anything else; nested ones counted as often as they show.

    Raises SecurityError over MAX_TEXT, so that it takes no longer than that either.
    """
    total, waiting = 0, list(values)
    while waiting:
        value = waiting.pop()
        total += len(value) if isinstance(value, str | bytes) else 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        if total + len(waiting) > MAX_TEXT:
            raise _too_large()
    return total


class _Generator(CodeGenerator):
    """Writes `a ~ b` as a call of the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])
    code_generator_class = _Generator

    def __init__(self, **globals: Any) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=_weighed)
        self.globals = {**globals, **{name: self.globals[name] for name in ("range", "namespace")}}
        made = {**self.filters, "tojson": _tojson}
        self.filters = {name: _bounded(name, made[name]) for name in _FILTERS}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _GROWING)

    def wrap_str_format(self, value: Any) -> Any:
        """Jinja lets `format` through before it asks whether an attribute is safe; a width can fill the memory."""
        return _no_format if super().wrap_str_format(value) is not None else None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Only numbers multiply: repeating a string, and padding by a format, are ways to fill the memory."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "+":
            if not numbers:
                weight(left, right)
        elif not numbers:
            raise SecurityError(f"{operator} of anything but numbers is not allowed in a chat template")
        elif operator == "**" and (abs(left) > 1000 or abs(right) > 16):
            raise SecurityError("the power is too large")
        elif abs(left) > 10**300 or abs(right) > 10**300:
            raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            _measure(name, owner, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def joined(self, parts: Iterable[Any]) -> str:
        values = tuple(parts)
        weight(values)
        return "".join(map(str, values))

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """What Jinja gathers the text of a block with."""
        texts = list(parts)
        weight(texts)
        return "".join(texts)


def _measure(name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises SecurityError when a filter or a method would make something too large out of `value`."""
    size = weight(value, *args, *kwargs.values())
    if name == "replace" and isinstance(value, str) and len(args) >= 2:
        old, new = str(args[0]), str(args[1])
        if len(value) + (value.count(old) if old else len(value) + 1) * len(new) > MAX_TEXT:
            raise _too_large()
    if name == "join":
        joints = max((len(each) for each in (value, *args) if isinstance(each, Sized)), default=0)
        widest = max((len(each) for each in (value, *args, *kwargs.values()) if isinstance(each, str)), default=0)
        if size + joints * widest > MAX_TEXT:
            raise _too_large()
    indent = kwargs.get("indent", args[0] if args else None) if name == "tojson" else None
    if isinstance(indent, str) or (isinstance(indent, int) and indent > _MOST_INDENT):
        raise SecurityError("an indent so wide is not allowed in a chat template")


def _tojson(
    value: Any,
    indent: int | None = None,
    *,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: models were trained on keys in their order, and on text that is not escaped for HTML."""
    if separators is not None and weight(*separators) > _MOST_SEPARATORS:
        raise SecurityError("separators so long are not allowed in a chat template")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    leading = 1 if hasattr(made, "jinja_pass_arg") else 0

    @functools.wraps(made)
    def measured(*args: Any, **kwargs: Any) -> Any:
        if len(args) > leading:
            _measure(name, _whole(args[leading]), args[leading + 1 :], kwargs)
        return made(*args, **kwargs)

    return measured


def _whole(value: Any) -> Any:
    """A generator cannot be weighed; what it gives was bounded when it was made."""
    return value if isinstance(value, str | bytes | list | tuple | dict | set | frozenset) else ""


def _weighed(value: Any) -> Any:
    weight(value)
    return identity(value)


def _too_large() -> SecurityError:
    return SecurityError(f"more than {MAX_TEXT} characters are not allowed in a chat template")


def _no_format(*_: Any, **__: Any) -> str:
    raise SecurityError("str.format is not allowed in a chat template")
