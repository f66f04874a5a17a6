"""What mypyc compiles into something else than Python does, without a word, so that no compiled module may have it."""

import ast
from collections.abc import Iterator


def oddities(source: str) -> list[str]:
    """Where a coroutine waits while it handles an exception: in `except` and in `finally`. Compiled, it does not keep
    the exception meanwhile: what is raised again afterwards may be another one, or none. Where a class with a base
    has a value of its own: compiled, its objects have the one of a base that is not compiled. And where attributes are
    set together, a later one from what an earlier one was: compiled, it may get what that one becomes."""
    tree = ast.parse(source)
    values = [
        f"line {node.lineno}: a value in a class that has a base"
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef) and each.bases
        for node in each.body
        if _is_value(node)
    ]
    entangled = [
        f"line {node.lineno}: attributes are set together, one from another"
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_entangled(node)
    ]
    return [*values, *entangled] + [
        f"line {line}: it awaits while it handles an exception"
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for part in (*node.handlers, *node.finalbody)
        for line in _waits(part)
    ]


def _is_value(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name != "__slots__"
        case ast.AnnAssign(value=ast.expr(), annotation=annotation):
            return not ast.unparse(annotation).startswith(("Final", "ClassVar"))
        case _:
            return False


def _is_entangled(node: ast.Assign) -> bool:
    if not isinstance(node.value, ast.Tuple):
        return False
    for target in node.targets:
        for at, each in enumerate(target.elts if isinstance(target, ast.Tuple) else ()):
            later = [ast.unparse(one) for value in node.value.elts[at + 1 :] for one in ast.walk(value)]
            if isinstance(each, ast.Attribute) and ast.unparse(each) in later:
                return True
    return False


def _waits(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
        yield node.lineno
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _waits(child)
