"""What mypyc would compile to something else is named, and stands in no compiled module."""

from pathlib import Path

import pytest

from compiling.build import ROOT, modules
from compiling.limits import oddities
from compiling.records import part

WAITS = "it awaits while it handles an exception"


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("try:\n  await one()\nexcept ValueError:\n  await two()\n", [5]),
        ("try:\n  await one()\nfinally:\n  for each in some:\n    await each\n", [6]),
        ("try:\n  await one()\nfinally:\n  async with lock:\n    pass\n", [5]),
        ("try:\n  await one()\nexcept ValueError:\n  tidy()\nawait two()\n", []),
        ("try:\n  await one()\nexcept ValueError:\n  async def later():\n    await two()\n", []),
        ("async with lock:\n  await one()\n", []),
    ],
)
def test_a_wait_while_an_exception_is_handled_is_named(body: str, lines: list[int]) -> None:
    source = "async def some():\n" + "".join(f"  {line}\n" for line in body.splitlines())
    assert oddities(source) == [f"line {line}: {WAITS}" for line in lines]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_no_compiled_module_has_what_is_compiled_to_something_else(path: Path) -> None:
    parted = part((ROOT / path).read_text(), ".".join(path.with_suffix("").parts[1:]))
    assert oddities(parted.rest) == []


def test_a_value_in_a_class_with_a_base_is_named() -> None:
    source = "class Lie(Failure):\n  code = 'lied'\n  MOST: Final = 3\n\nclass Free:\n  code = 'free'\n"
    assert oddities(source) == ["line 2: a value in a class that has a base"]


def test_an_attribute_that_is_set_from_one_set_before_it_in_the_same_breath_is_named() -> None:
    source = "state.now, state.before = None, state.now\nold, state.now = state.now, None\n"
    assert oddities(source) == ["line 1: attributes are set together, one from another"]
