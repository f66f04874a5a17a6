"""Parts a module in two: its classes of data, which stay Python, and the rest, which is compiled.

mypyc drops what stands after the bases of a class (`frozen=True`, `tag="t"`), so a msgspec Struct that it compiled
would be another one. Such classes, with whatever their definitions need, go into a module beside theirs, which imports
them from there. Nothing is rewritten, and every line keeps its number.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

SUFFIX = "_records"
_BASES = frozenset({"Struct", "Wire", "Signable", "NamedTuple", "Enum", "IntEnum"})


class Parted(NamedTuple):
    """The two sources. `records` is "" where a module has no class of data."""

    records: str
    rest: str


def part(source: str, module: str) -> Parted:
    """`module` is its whole name."""
    body = ast.parse(source).body
    classes = _classes_of_data(body)
    if not classes:
        return Parted("", source)
    taken = _with_needs(body, classes)
    lines = source.splitlines(keepends=True)
    records = _records(body, taken, lines, module)
    moved = [node for node in taken if not _stays_too(node)]
    for node in moved:
        first, last = _span(node)
        lines[first:last] = ["\n"] * (last - first)
    names = ", ".join(f"{name} as {name}" for node in moved for name in _defines(node))
    last = max(node.end_lineno or 0 for node in body if _is_import(node) and not isinstance(node, ast.If))
    lines[last - 1] = f"{lines[last - 1].rstrip()}; from {module}{SUFFIX} import {names}\n"
    return Parted(records, "".join(lines))


def _records(body: list[ast.stmt], taken: list[ast.stmt], lines: list[str], module: str) -> str:
    head = ["from __future__ import annotations\n", "from typing import TYPE_CHECKING\n"]
    head += [_text(node, lines) for node in body if _is_import(node) and not _is_future(node)]
    if names := _types_only(body, taken):
        head.append(f"if TYPE_CHECKING:\n    from {module} import {', '.join(names)}\n")
    return "\n".join([*head, *(_text(node, lines) for node in taken)])


def _classes_of_data(body: list[ast.stmt]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    bases = set(_BASES)
    for node in body:
        if isinstance(node, ast.ClassDef) and (node.keywords or bases.intersection(map(_base, node.bases))):
            bases.add(node.name)
            found.append(node)
    return found


def _base(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _base(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _with_needs(body: list[ast.stmt], classes: list[ast.stmt]) -> list[ast.stmt]:
    """Also what their definitions use of the module, and what that uses, in the module's order. A class that only
    annotations name need not be there."""
    where = {name: node for node in body for name in _defines(node)}
    taken, due = list(classes), list(classes)
    while due:
        node = due.pop()
        needed = set(_names(node, annotations=False))
        for name in sorted(set(_names(node))):
            found = where.get(name)
            if found is None or found in taken or (isinstance(found, ast.ClassDef) and name not in needed):
                continue
            taken.append(found)
            due.append(found)
    return [node for node in body if node in taken]


def _types_only(body: list[ast.stmt], taken: list[ast.stmt]) -> list[str]:
    """Classes of the module that are not taken, and that annotations of what is taken name."""
    named = {name for node in taken for name in _names(node)}
    return [node.name for node in body if isinstance(node, ast.ClassDef) and node not in taken and node.name in named]


def _names(node: ast.AST, *, annotations: bool = True) -> Iterator[str]:
    """What it names, also in annotations that are strings."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") and not annotations:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.Name):
                yield each.id
            elif isinstance(each, ast.Constant) and isinstance(each.value, str) and field in ("annotation", "returns"):
                yield from _names(ast.parse(each.value))
            elif isinstance(each, ast.AST):
                yield from _names(each, annotations=annotations)


def _defines(node: ast.stmt) -> list[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _stays_too(node: ast.stmt) -> bool:
    """Stands in both parts: a plain function, which is quicker compiled, and a constant, whose value is compiled in."""
    match node:
        case ast.FunctionDef(decorator_list=[]) | ast.Assign(value=ast.Constant()):
            return True
        case ast.AnnAssign(annotation=annotation):
            return "Final" in _names(ast.Expr(annotation))
        case _:
            return False


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _span(node: ast.stmt) -> tuple[int, int]:
    """Its lines, decorators and all, as a slice."""
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    return first - 1, node.end_lineno or node.lineno


def _text(node: ast.stmt, lines: list[str]) -> str:
    first, last = _span(node)
    return "".join(lines[first:last])
