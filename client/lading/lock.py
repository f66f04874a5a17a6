"""A lock on a file, held by one program at a time; the system lets go of it whatever ends the program."""

import fcntl
import os
from pathlib import Path

from lading.errors import FolderBusy


class FolderLock:
    """Raises FolderBusy when another program, or another owner in this one, holds it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise FolderBusy(f"Another program works in {path.parent} right now.") from None

    def release(self) -> None:
        os.close(self._file)
