"""Random bytes of the system, fetched many at a time: to ask it for each id takes longer than to use one."""

import os

AT_ONCE = 4096


class Entropy:
    """In place of os.urandom. Of a process that is forked each half would say the same: ours never are."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._bytes):
            self._bytes, self._at, end = os.urandom(max(AT_ONCE, size)), 0, size
        taken = self._bytes[self._at : end]
        self._at = end
        return taken
