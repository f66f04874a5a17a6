"""The writing end of an engine's process: token runs are joined while they come fast, and written when they are due.

A write and the reader's wake-up cost more than a token of a small model. So tokens wait for company, but never longer
than JOIN_S plus one step; a model slower than that has every token written at once.
"""

import os
from collections.abc import Callable

from lading_node.engines.port import Run
from lading_node.engines.wire import FromEngine, encode

JOIN_S = 0.002


class Outbox:
    def __init__(self, writing: int, clock: Callable[[], float], join_s: float = JOIN_S) -> None:
        """`clock` gives seconds. `join_s` 0 writes every token by itself."""
        self._writing = writing
        self._clock = clock
        self._join_s = join_s
        self._runs: dict[str, list[Run]] = {}
        self._flushed = 0.0
        self._last = 0.0

    def run(self, event: Run) -> None:
        """One more run of tokens; ids and texts of a request are joined in order."""
        waiting = self._runs.get(event.id)
        if waiting is None:
            self._runs[event.id] = [event]
        else:
            waiting.append(event)
        now = self._clock()
        if now - self._flushed >= self._join_s or now - self._last >= self._join_s / 2:
            self.flush(now)
        self._last = now

    def send(self, message: FromEngine) -> None:
        """Write at once, after all that waits."""
        data = self._take() + encode(message)
        self._write(data)
        self._flushed = self._clock()

    def flush(self, now: float | None = None) -> None:
        if self._runs:
            self._write(self._take())
            self._flushed = self._clock() if now is None else now

    def _take(self) -> bytes:
        frames = []
        for runs in self._runs.values():
            first = runs[0]
            if len(runs) > 1:
                ids = tuple([run.ids[0] for run in runs])
                first = Run(first.id, first.first, ids, "".join([run.text for run in runs]))
            frames.append(encode(first))
        self._runs.clear()
        return b"".join(frames)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._writing, view) :]
