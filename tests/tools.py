"""Tools that tests need besides Python: where one is missing a test is skipped, and fails in CI, where none may be."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return found
