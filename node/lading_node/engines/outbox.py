"""The writing end of an engine's process: events are gathered and written together, whole frames at a time."""

import os
from collections.abc import Iterable

from lading_node.engines.wire import FromEngine, encode


class Outbox:
    """Writes block: the parent reads all the time, and an engine whose parent does not has nothing better to do."""

    def __init__(self, writing: int) -> None:
        self._writing = writing
        self._waiting: list[bytes] = []

    def put(self, events: Iterable[FromEngine]) -> None:
        self._waiting += map(encode, events)

    def flush(self) -> None:
        view = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        while view:
            view = view[os.write(self._writing, view) :]
