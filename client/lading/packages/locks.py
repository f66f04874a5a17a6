"""Who may touch which file of a store when several programs share it: advisory locks that end with their program."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def share(file: int) -> None:
    """Says that the open file is in use, by any number of programs. Waits while one has it for itself."""
    fcntl.flock(file, fcntl.LOCK_SH)


def unused(path: Path) -> bool:
    """Whether no program has the file in use just now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


class Hold:
    """Keeps a file from being collected until it is released or its program ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        share(self._file)

    def release(self) -> None:
        os.close(self._file)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One program, and one thread of it, at a time. Held for moments: to count, to rename, to clean up."""
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
