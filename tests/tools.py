"""Tools that a test needs beside Python: where one is absent the test is skipped with a reason, but fails in CI."""

import atexit
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from lading_images.base import BuildError
from lading_images.build import Built, build
from lading_images.engine import NoEngine, ensure

_kept = ExitStack()
_engine: list[str] = []


def missing(reason: str) -> NoReturn:
    """In CI every tool must be there, elsewhere its absence is a reason to skip."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError("both end the test")


def require_program(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    return found if found is not None else missing(f"{name} is not installed")


def require_docker() -> str:
    """The URL of a container engine: one that answers, or one of our own that ends with this run of the tests."""
    if not _engine:
        try:
            _engine.append(_kept.enter_context(ensure()))
        except NoEngine as error:
            missing(str(error))
        atexit.register(_kept.close)
    return _engine[0]


def require_image(name: str, folder: Path | None = None) -> Built:
    """An image of docker/, built when it is not there yet or was built from something else."""
    try:
        return build(name, folder) if folder else build(name)
    except BuildError as error:
        missing(str(error))
