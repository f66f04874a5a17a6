"""Reads the JSON Schemas that an answer can be held to: a schema becomes a Plan, a table of plain shapes.

Owns what the subset has, and says in words what it lacks. Nothing that would narrow an answer is ignored. How a shape
looks in bytes is the business of whoever writes masks; docs/protocol.md, section 6, has both.
"""

import json
from math import inf
from typing import Any, Final

import msgspec

from lading_protocol.errors import BadSchema
from lading_protocol.nesting import depth
from lading_protocol.shapes import Choice, Literals, Number, Plan, Rows, Shape, Table, Text, Whole

MAX_SCHEMA = 1 << 14
MAX_SCHEMA_DEPTH = 64
MAX_SHAPES = 2048
MAX_OPTIONS = 64
MAX_COUNT = 4096
MAX_TEXT = 1 << 16
# Of a name or a fixed value, in bytes: what has been written of it is part of a state.
MAX_WORD = 512
# Values nest at most so deep in an answer; what could not be finished within that is never begun.
MAX_DEPTH = 64
MAX_WHOLE = 10**18 - 1

ANY_OBJECT: Final = b'{"type":"object"}'
"""The schema of a JSON answer about whose shape nothing is said."""

TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")
_NOTES: Final = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
    }
)
_OF_TYPE: Final = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
}
_TYPED: Final[frozenset[str]] = frozenset[str]().union(*_OF_TYPE.values())
_KNOWN: Final = _NOTES | _TYPED | {"type", "enum", "const", "anyOf", "allOf", "$ref"}
_HINTS: Final = {"oneOf": "Use anyOf.", "nullable": 'Use "type": [..., "null"].', "format": "Say it in the prompt."}


def read_schema(data: bytes) -> Plan:
    """Raises BadSchema."""
    if len(data) > MAX_SCHEMA:
        raise BadSchema(f"The schema has {len(data)} bytes; {MAX_SCHEMA} are allowed.")
    if depth(data) > MAX_SCHEMA_DEPTH:
        raise BadSchema(f"The schema nests more than {MAX_SCHEMA_DEPTH} deep.")
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadSchema(f"The schema is not valid JSON: {error}.") from None
    return _Reader(tree).plan()


class _Reader:
    """Each schema gets a number when it is met and is read later, so that no chain of references fills the stack; one
    that is referred to has one number."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._shapes: list[Shape | None] = []
        self._known: dict[int, int] = {}
        self._anything: int | None = None
        self._waiting: list[tuple[int, dict[str, Any], str]] = []

    def plan(self) -> Plan:
        root = self._read(self._tree, "the schema")
        while self._waiting:
            at, tree, where = self._waiting.pop()
            self._shapes[at] = self._shape(tree, where)
        shapes = _flat([shape for shape in self._shapes if shape is not None])
        heights = _heights(shapes)
        if heights[root] > MAX_DEPTH:
            raise BadSchema(f"No answer that nests at most {MAX_DEPTH} deep meets the schema.")
        return Plan(tuple(shapes), heights, root)

    def _read(self, tree: Any, where: str) -> int:
        if tree is True or tree == {}:
            return self._any()
        if not isinstance(tree, dict):
            raise BadSchema(f"A schema is an object or true; {where} is {_short(tree)}.")
        if (known := self._known.get(id(tree))) is not None:
            return known
        at = self._known[id(tree)] = self._place()
        self._waiting.append((at, tree, where))
        return at

    def _place(self) -> int:
        if len(self._shapes) >= MAX_SHAPES:
            raise BadSchema(f"The schema has more than {MAX_SHAPES} parts.")
        self._shapes.append(None)
        return len(self._shapes) - 1

    def _add(self, shape: Shape) -> int:
        at = self._place()
        self._shapes[at] = shape
        return at

    def _any(self) -> int:
        if self._anything is None:
            self._anything = self._place()
            kinds = [self._of_type({}, kind, "the schema") for kind in TYPES if kind != "integer"]
            self._shapes[self._anything] = Choice(tuple(map(self._add, kinds)))
        return self._anything

    def _shape(self, tree: dict[str, Any], where: str) -> Shape:
        for key in tree:
            if key not in _KNOWN:
                raise BadSchema(
                    f"{where} has {_short(key)}, which is not supported.", hint=_HINTS.get(key, "Leave it out.")
                )
        rules = [key for key in tree if key not in _NOTES]
        for key in ("$ref", "anyOf", "allOf"):
            if key in tree:
                if len(rules) > 1:
                    other = next(name for name in rules if name != key)
                    raise BadSchema(f"{where} has {key!r} beside {other!r}; only notes may stand beside it.")
                return self._elsewhere(tree, key, where)
        if "enum" in tree or "const" in tree:
            return _literals(tree, rules, where)
        kinds = _kinds(tree, where)
        for key in rules:
            if key in _TYPED and not any(key in _OF_TYPE.get(kind, ()) for kind in kinds):
                raise BadSchema(f"{where} has {key!r}, which says nothing about its type.", hint="Leave it out.")
        if len(kinds) == 1:
            return self._of_type(tree, kinds[0], where)
        return Choice(tuple(self._add(self._of_type(tree, kind, where)) for kind in kinds))

    def _elsewhere(self, tree: dict[str, Any], key: str, where: str) -> Shape:
        if key == "$ref":
            return Choice((self._follow(tree[key], where),))
        options = tree[key]
        if not isinstance(options, list) or not 0 < len(options) <= MAX_OPTIONS:
            raise BadSchema(f"{key!r} of {where} is a list of 1 to {MAX_OPTIONS} schemas.")
        if key == "allOf" and len(options) > 1:
            raise BadSchema(f"{where} has 'allOf' with several schemas, which is not supported.", hint="Merge them.")
        return Choice(tuple(self._read(option, f"{key}[{i}] of {where}") for i, option in enumerate(options)))

    def _follow(self, ref: Any, where: str) -> int:
        """Only within the schema: "#", or a JSON pointer after it."""
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise BadSchema(f"{where} refers to {_short(ref)}; only '#' and '#/...' are supported.")
        tree = self._tree
        for part in ref.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(tree, dict) or name not in tree:
                raise BadSchema(f"{where} refers to {_short(ref)}, which is not there.")
            tree = tree[name]
        return self._read(tree, _short(ref))

    def _of_type(self, tree: dict[str, Any], kind: str, where: str) -> Shape:
        match kind:
            case "object":
                return self._table(tree, where)
            case "array":
                return self._rows(tree, where)
            case "string":
                least, most = _count(tree, "minLength", MAX_TEXT, where), _count(tree, "maxLength", MAX_TEXT, where)
                return Text(least or 0, _above(least or 0, most, "maxLength", where))
            case "integer":
                return _whole(tree, where)
            case "number":
                return Number()
            case "boolean":
                return Literals((b"false", b"true"))
            case _:
                return Literals((b"null",))

    def _table(self, tree: dict[str, Any], where: str) -> Table:
        fields, needed = tree.get("properties", {}), tree.get("required", [])
        if not isinstance(fields, dict):
            raise BadSchema(f"'properties' of {where} must be an object.")
        if not isinstance(needed, list) or not all(isinstance(name, str) for name in needed):
            raise BadSchema(f"'required' of {where} must be a list of names.")
        if missing := [name for name in needed if name not in fields]:
            raise BadSchema(f"{where} requires {_short(missing[0])}, which is not among its 'properties'.")
        must = frozenset(needed)
        names = tuple(_written(name, where) for name in fields)
        shapes = tuple(self._read(one, f"{_short(name)} of {where}") for name, one in fields.items())
        return Table(names, shapes, tuple(name in must for name in fields), self._rest(tree, "additionalProperties"))

    def _rows(self, tree: dict[str, Any], where: str) -> Rows:
        first = tree.get("prefixItems", [])
        if not isinstance(first, list) or len(first) > MAX_OPTIONS:
            raise BadSchema(f"'prefixItems' of {where} is a list of at most {MAX_OPTIONS} schemas.")
        least, most = _count(tree, "minItems", MAX_COUNT, where) or 0, _count(tree, "maxItems", MAX_COUNT, where)
        shapes = tuple(self._read(one, f"prefixItems[{i}] of {where}") for i, one in enumerate(first))
        rest = self._rest(tree, "items")
        most = _above(least, most, "maxItems", where)
        if rest is None:
            if least > len(shapes):
                raise BadSchema(f"{where} needs {least} items and has schemas for {len(shapes)}.")
            most = len(shapes) if most is None else min(most, len(shapes))
        return Rows(shapes, rest, least, most)

    def _rest(self, tree: dict[str, Any], key: str) -> int | None:
        given = tree.get(key, True)
        return None if given is False else self._read(given, f"'{key}'")


def _kinds(tree: dict[str, Any], where: str) -> tuple[str, ...]:
    given = tree.get("type")
    if given is None:
        rules = [key for key in tree if key in _TYPED]
        if rules:
            raise BadSchema(f"{where} has {rules[0]!r} and no 'type'.", hint="Say which type it is.")
        return tuple(kind for kind in TYPES if kind != "integer")
    kinds = tuple(given) if isinstance(given, list) else (given,)
    if not kinds or len(kinds) > len(TYPES) or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise BadSchema(f"The type of {where} is {_short(given)}; the types are {', '.join(TYPES)}.")
    return tuple(dict.fromkeys(kinds))


def _literals(tree: dict[str, Any], rules: list[str], where: str) -> Literals:
    values = tree.get("enum", [tree.get("const")])
    if not isinstance(values, list) or not values:
        raise BadSchema(f"'enum' of {where} must be a list of values.")
    if wrong := [key for key in rules if key not in ("enum", "const", "type")]:
        raise BadSchema(f"{where} has {wrong[0]!r} beside fixed values.", hint="Leave it out.")
    kinds = _kinds(tree, where) if "type" in tree else TYPES
    fit = [value for value in values if _is_of(value, kinds)]
    if "enum" in tree and "const" in tree:
        fit = [value for value in fit if _written(value, where) == _written(tree["const"], where)]
    if not fit:
        raise BadSchema(f"None of the fixed values of {where} is of its type.")
    return Literals(tuple(dict.fromkeys(_written(value, where) for value in fit)))


def _is_of(value: Any, kinds: tuple[str, ...]) -> bool:
    match value:
        case None:
            return "null" in kinds
        case bool():
            return "boolean" in kinds
        case int():
            return "integer" in kinds or "number" in kinds
        case float():
            return "number" in kinds
        case str():
            return "string" in kinds
        case list():
            return "array" in kinds
        case _:
            return "object" in kinds


def _whole(tree: dict[str, Any], where: str) -> Whole:
    low, high = -MAX_WHOLE, MAX_WHOLE
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        given = tree.get(key)
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, int) or abs(given) > MAX_WHOLE:
            raise BadSchema(f"'{key}' of {where} must be a whole number of at most 18 digits.")
        inner = given + (key == "exclusiveMinimum") - (key == "exclusiveMaximum")
        if key in ("minimum", "exclusiveMinimum"):
            low = max(low, inner)
        else:
            high = min(high, inner)
    if low > high:
        raise BadSchema(f"No whole number is within the bounds of {where}.")
    return Whole(low, high)


def _count(tree: dict[str, Any], key: str, most: int, where: str) -> int | None:
    given = tree.get(key)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
        raise BadSchema(f"'{key}' of {where} must be a whole number of at most {most}.")
    return given


def _above(least: int, most: int | None, key: str, where: str) -> int | None:
    if most is not None and most < least:
        raise BadSchema(f"'{key}' of {where} is less than its minimum of {least}.")
    return most


def _written(value: Any, where: str) -> bytes:
    """How a fixed value or a name is written in an answer: compact JSON, as short as it can be."""
    try:
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise BadSchema(f"{where} has a fixed value that cannot be written as JSON.") from None
    if len(written) > MAX_WORD:
        raise BadSchema(f"{where} has a name or fixed value of {len(written)} bytes; {MAX_WORD} are allowed.")
    return written


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _flat(shapes: list[Shape]) -> list[Shape]:
    """Choices hold no choices, and each option once. One that leads only back to itself has no options."""
    flat: list[Shape] = []
    for shape in shapes:
        if not isinstance(shape, Choice):
            flat.append(shape)
            continue
        seen: dict[int, None] = {}
        waiting = list(reversed(shape.options))
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen[at] = None
            one = shapes[at]
            if isinstance(one, Choice):
                waiting.extend(reversed(one.options))
        options = tuple(at for at in seen if not isinstance(shapes[at], Choice))
        if len(options) > MAX_OPTIONS:
            raise BadSchema(f"A part of the schema has {len(options)} alternatives; {MAX_OPTIONS} are allowed.")
        flat.append(Choice(options))
    return flat


def _heights(shapes: list[Shape]) -> tuple[float, ...]:
    """How deep the shallowest value of each shape nests; infinite where there is none."""
    found = [inf] * len(shapes)
    # Each round settles at least the shapes of one more height, and no shape above MAX_DEPTH is ever begun.
    for _ in range(MAX_DEPTH + 2):
        fresh = [_height(shape, found) for shape in shapes]
        if fresh == found:
            break
        found = fresh
    return tuple(height if height <= MAX_DEPTH else inf for height in found)


def _height(shape: Shape, known: list[float]) -> float:
    match shape:
        case Choice(options):
            return min((known[at] for at in options), default=inf)
        case Rows():
            return 1 + max((known[shape.item(i)] for i in range(min(shape.least, len(shape.first) + 1))), default=0)
        case Table(_, values, needed):
            return 1 + max((known[at] for at, must in zip(values, needed, strict=True) if must), default=0)
        case _:
            return 0
