"""Random schemas of the supported subset, values that meet them, and a plain check that one does: for tests."""

import math
import string
from random import Random
from typing import Any

Tree = dict[str, Any]
_LETTERS = string.ascii_lowercase + ' é€🦊"\\\n'


def schema(rng: Random, deep: int = 3) -> Tree:
    """A schema without references."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "any"]
    kind = rng.choice(kinds + ["object", "array", "anyOf"] * 2 if deep else kinds)
    match kind:
        case "string":
            least = rng.choice([0, 0, 0, 2])
            return {"type": "string"} | ({"minLength": least, "maxLength": least + rng.randint(0, 5)} if least else {})
        case "integer":
            low = rng.randint(-300, 300)
            bounds = [{}, {"minimum": 0}, {"minimum": low, "exclusiveMaximum": low + rng.choice([1, 7, 500])}]
            return {"type": "integer"} | rng.choice(bounds)
        case "enum":
            return {"enum": rng.sample(["a", "ab", "é", 1, 12, 1.5, True, None, 'q"q', {"a": [1]}], rng.randint(1, 6))}
        case "any":
            return {}
        case "object":
            return _object(rng, deep)
        case "array":
            return _array(rng, deep)
        case "anyOf":
            return {"anyOf": [schema(rng, deep - 1) for _ in range(rng.randint(1, 3))]}
        case _:
            return {"type": kind}


def _object(rng: Random, deep: int) -> Tree:
    names = rng.sample(["a", "ab", "é", 'q"q', "b c", "z"], rng.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: schema(rng, deep - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": rng.choice([False, False, schema(rng, deep - 1)]),
    }


def _array(rng: Random, deep: int) -> Tree:
    tree: Tree = {"type": "array", "items": schema(rng, deep - 1)}
    if rng.random() < 0.3:
        tree["prefixItems"] = [schema(rng, deep - 1) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.5:
        least = rng.randint(0, 3)
        tree |= {"minItems": least, "maxItems": least + rng.randint(0, 2)}
    return tree


def value(rng: Random, tree: Tree, deep: int = 4) -> Any:
    """A value that meets the schema, its properties in the order in which they are written."""
    if "anyOf" in tree:
        return value(rng, rng.choice(tree["anyOf"]), deep)
    if "enum" in tree:
        return rng.choice(tree["enum"])
    kind = tree.get("type") or rng.choice(["string", "integer", "boolean"] + ["object", "array"] * (deep > 0))
    match kind:
        case "string":
            least = tree.get("minLength", 0)
            return "".join(rng.choices(_LETTERS, k=rng.randint(least, tree.get("maxLength", least + 4))))
        case "integer":
            low = tree.get("minimum", -(10**6))
            return rng.randint(low, tree.get("exclusiveMaximum", low + 10**7) - 1)
        case "number":
            return rng.choice([0, -3, 2.5, -0.125, 1e20, 3e-7])
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case "array":
            first = tree.get("prefixItems", [])
            least = tree.get("minItems", 0)
            size = rng.randint(least, tree.get("maxItems", least + 2))
            rest = tree.get("items", {})
            return [value(rng, first[i] if i < len(first) else rest, deep - 1) for i in range(size)]
        case _:
            return _filled(rng, tree, deep)


def _filled(rng: Random, tree: Tree, deep: int) -> Tree:
    fields = tree.get("properties", {})
    made = {
        name: value(rng, one, deep - 1)
        for name, one in fields.items()
        if name in tree.get("required", ()) or rng.random() < 0.5
    }
    more = tree.get("additionalProperties", {})
    if more is not False and rng.random() < 0.5:
        made["other"] = value(rng, more, deep - 1)
    return made


def meets(tree: Any, given: Any) -> bool:
    """JSON Schema's own meaning of the subset, read literally."""
    if "anyOf" in tree:
        return any(meets(one, given) for one in tree["anyOf"])
    if "enum" in tree:
        return any(type(one) is type(given) and one == given for one in tree["enum"])
    match tree.get("type"):
        case None:
            return not isinstance(given, float) or math.isfinite(given)
        case "string":
            return isinstance(given, str) and tree.get("minLength", 0) <= len(given) <= tree.get("maxLength", 10**9)
        case "integer":
            if type(given) is not int or given < tree.get("minimum", given):
                return False
            return "exclusiveMaximum" not in tree or given < tree["exclusiveMaximum"]
        case "number":
            return type(given) in (int, float) and math.isfinite(given)
        case "boolean":
            return isinstance(given, bool)
        case "null":
            return given is None
        case "array":
            return isinstance(given, list) and _rows_meet(tree, given)
        case _:
            return isinstance(given, dict) and _table_meets(tree, given)


def _rows_meet(tree: Tree, given: list[Any]) -> bool:
    first = tree.get("prefixItems", [])
    if not tree.get("minItems", 0) <= len(given) <= tree.get("maxItems", 10**9):
        return False
    return all(meets(first[i] if i < len(first) else tree.get("items", {}), one) for i, one in enumerate(given))


def _table_meets(tree: Tree, given: Tree) -> bool:
    fields, more = tree.get("properties", {}), tree.get("additionalProperties", {})
    if not set(tree.get("required", ())) <= set(given):
        return False
    return all(
        meets(fields[name], one) if name in fields else more is not False and meets(more, one)
        for name, one in given.items()
    )
