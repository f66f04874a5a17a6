"""A module in two parts does what it did: its classes of data are the same, and every line keeps its number."""

import ast
import sys
import types
from pathlib import Path

import msgspec
import pytest

from compiling.build import ROOT, modules
from compiling.records import SUFFIX, part

SOURCE = '''"""A module."""

from enum import IntEnum
from typing import Final

import msgspec

LIMIT = 3
SCALE: Final = 2
KINDS = {"a": 1}


class Kind(IntEnum):
    ONE = 1


class Point(msgspec.Struct, frozen=True, tag="p"):
    """With a default that the module computes, and a method that calls a function of it."""

    x: int
    kind: Kind = Kind.ONE
    limit: int = LIMIT + KINDS["a"]

    def doubled(self) -> int:
        return twice(self.x)


class Far(Point, frozen=True, tag="f"):
    z: int = 0


class Held(msgspec.Struct, frozen=True):
    owner: "Owner | None" = None


class Owner:
    def point(self) -> Point:
        return Point(twice(1) + SCALE)


def twice(x: int) -> int:
    return x * SCALE
'''


def parted(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """SOURCE as its two parts, imported as the build has them."""
    found = part(SOURCE, "parted.whole")
    package, records, rest = (types.ModuleType(name) for name in ("parted", f"parted.whole{SUFFIX}", "parted.whole"))
    for module in (package, records, rest):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(found.records, "records", "exec"), records.__dict__)
    exec(compile(found.rest, "rest", "exec"), rest.__dict__)
    return rest


def test_classes_of_data_keep_what_stands_after_their_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parted(monkeypatch)
    config = whole.Point.__struct_config__
    assert config.frozen
    assert (config.tag, whole.Far.__struct_config__.tag) == ("p", "f")
    assert msgspec.json.decode(b'{"type":"f","x":4}', type=whole.Far) == whole.Far(4)


def test_both_parts_use_one_class_and_the_same_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parted(monkeypatch)
    assert type(whole.Owner().point()) is whole.Point
    assert whole.Point(4) == whole.Point(4, whole.Kind.ONE, 4)
    assert whole.Point(4).doubled() == whole.twice(4) == 8


def test_what_is_compiled_has_no_class_of_data_left_and_every_line_where_it_was() -> None:
    found = part(SOURCE, "parted.whole")
    classes = {node.name: node.lineno for node in ast.parse(found.rest).body if isinstance(node, ast.ClassDef)}
    assert classes == {"Owner": SOURCE[: SOURCE.index("class Owner")].count("\n") + 1}
    assert found.rest.count("\n") == SOURCE.count("\n")


def test_a_module_without_classes_of_data_stays_as_it_is() -> None:
    source = "def twice(x: int) -> int:\n    return 2 * x\n"
    assert part(source, "any.where") == ("", source)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_the_parts_of_every_compiled_module_define_all_that_it_does(path: Path) -> None:
    source = (ROOT / path).read_text()
    found = part(source, ".".join(path.with_suffix("").parts[1:]))
    assert top(source) - top(found.rest) <= top(found.records)
    imported = {
        name.name
        for node in ast.parse(found.rest).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(SUFFIX)
        for name in node.names
    }
    assert top(source) == top(found.rest) | imported


def top(source: str) -> set[str]:
    """What a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign(targets=targets):
                found |= {each.id for one in targets for each in ast.walk(one) if isinstance(each, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case _:
                pass
    return found
