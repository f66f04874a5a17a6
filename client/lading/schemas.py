"""Schemas and test vectors of a project, checked before it is published. Owns jsonschema, which no daemon imports.

A schema refers only to itself: nothing is looked up anywhere.
"""

from collections.abc import Sequence
from typing import Any

from lading.errors import BadProject
from lading.project import VectorEntry
from lading_protocol.parts import Operation

_OWN = frozenset({"chat", "embed"})


def check_operations(api: Sequence[Operation]) -> None:
    """Raises BadProject for what is no JSON Schema."""
    for operation in api:
        for side, schema in (("input", operation.input), ("output", operation.output)):
            if schema:
                _validator(operation.name, side, schema)


def check_vectors(api: Sequence[Operation], vectors: Sequence[VectorEntry]) -> None:
    """Raises BadProject for a vector whose operation is unknown or whose input its schema refuses."""
    known = {operation.name: operation for operation in api}
    for number, vector in enumerate(vectors, 1):
        operation = known.get(vector.operation)
        if operation is None:
            why = f"The test vector {number} is for {vector.operation!r}, which the agent does not do."
            raise BadProject(why, hint=f"It does: {', '.join(known)}.")
        if vector.operation not in _OWN:
            check_input(operation, vector.input, f"The input of test vector {number}")


def check_input(operation: Operation, given: Any, what: str = "The input") -> None:
    """Raises BadProject when the operation's schema does not take it."""
    if not operation.input:
        return
    from jsonschema.exceptions import best_match

    error = best_match(_validator(operation.name, "input", operation.input).iter_errors(given))
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the whole"
        why = f"{what} is not what {operation.name!r} takes ({where}): {error.message[:200]}."
        raise BadProject(why, hint="Correct the input, or the schema in agent.toml.")


def _validator(name: str, side: str, schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if _refers_outside(schema):
        raise BadProject(f"The {side} schema of {name!r} refers to another document; it must be whole.")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the whole"
        why = f"The {side} schema of {name!r} is no JSON Schema ({where}): {error.message[:200]}."
        raise BadProject(why) from error
    except RecursionError:
        raise BadProject(f"The {side} schema of {name!r} is nested too deeply.") from None
    return Draft202012Validator(schema)


def _refers_outside(schema: Any) -> bool:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$id") and isinstance(value, str) and not value.startswith("#"):
                return True
            if _refers_outside(value):
                return True
        return False
    return isinstance(schema, list) and any(map(_refers_outside, schema))
