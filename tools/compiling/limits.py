"""What mypyc compiles into something else than Python does, without a word, so that no compiled module may have it."""

import ast
from collections.abc import Iterator


def oddities(source: str) -> list[str]:
    """Where a coroutine waits while it handles an exception: in `except` and in `finally`. Compiled, it does not keep
    the exception meanwhile: what is raised again afterwards may be another one, or none."""
    return [
        f"line {line}: it awaits while it handles an exception"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Try)
        for part in (*node.handlers, *node.finalbody)
        for line in _waits(part)
    ]


def _waits(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
        yield node.lineno
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _waits(child)
