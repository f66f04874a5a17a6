"""A host whose answers all flow at one pace, for thousands of streams: what they say is made before they begin.

One clock serves every answer, a fiftieth of them at a time, so that a token costs the load little more than its write.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from lading_protocol.elder import ElderOpen
from lading_protocol.messages import Chunk, Open, encode
from unit.coordinator.host import Host

_PHASES = 50


class PacedHost(Host):
    """`pause` seconds between two tokens of an answer; it may change while answers flow."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pause = 1.0
        self._phases: list[set[_Answer]] = [set() for _ in range(_PHASES)]
        self._next = itertools.cycle(self._phases)

    async def beat_time(self) -> None:
        """Runs until cancelled. What cannot be said in time is said late, not all at once."""
        clock = asyncio.get_running_loop().time
        due = clock()
        for phase in itertools.cycle(self._phases):
            for answer in tuple(phase):
                if not answer.go_on():
                    phase.discard(answer)
            due = max(due + self.pause / _PHASES, clock() - self.pause)
            await asyncio.sleep(max(0.0, due - clock()))

    async def _work(self, attempt: Any, opening: Open) -> None:
        written = _Written()
        signed = Open(
            **{name: getattr(opening, name) for name in ElderOpen.__struct_fields__}
        )  # each receipt by itself
        await type(attempt)(self, written, signed, attempt.known, attempt.stopped).chat()
        answer = _Answer(attempt.messages.stream, written.frames)
        answer.go_on()
        answer.go_on()  # that it accepts, and the first token
        phase = next(self._next)
        phase.add(answer)
        try:
            await attempt.stopped.wait()
        finally:
            phase.discard(answer)


class _Written:
    """Keeps what an attempt says, a token a frame."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, message: msgspec.Struct) -> None:
        data = encode(message)
        data = len(data).to_bytes(4, "big") + data
        if isinstance(message, Chunk):
            self.frames[-1] += data
        else:
            self.frames.append(data)

    async def drain(self) -> None: ...


class _Answer:
    def __init__(self, stream: Any, frames: list[bytes]) -> None:
        self._stream = stream
        self._frames = iter(frames)

    def go_on(self) -> bool:
        """Says one thing more; False at its end."""
        if (frame := next(self._frames, None)) is None:
            return False
        self._stream.write(frame)
        return True
