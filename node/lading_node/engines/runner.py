"""The engine's process: `python -I -m lading_node.engines.runner PARENT_PID`, driven over its stdin and stdout.

One thread. Requests take turns step by step, so all slots progress together; between two steps it listens for cancels.
It trusts its parent and nothing else, and ends when its parent does.
"""

import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lading_node.engines import wire
from lading_node.engines.confine import confine, die_with, take_stdio
from lading_node.engines.errors import EngineError
from lading_node.engines.generation import as_failed
from lading_node.engines.load import Loaded, load
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import Embed, Finished, Generate, Ready, Run, Score
from lading_protocol.framing import Frames

_READ = 1 << 18


class Turn:
    """A running request: its remaining steps, and how far it may go before the caller takes more."""

    __slots__ = ("ahead", "emitted", "id", "made", "steps", "taken")

    def __init__(self, id: str, steps: Iterator[wire.FromEngine], ahead: int = 0, emitted: int = 0) -> None:
        self.id = id
        self.steps = steps
        self.ahead = ahead
        self.emitted = emitted
        self.made = 0
        self.taken = 0

    @property
    def may_go(self) -> bool:
        return not self.ahead or self.made - self.taken < self.ahead


class Runner:
    """Serves one loaded model until it is told to stop or its parent is gone."""

    def __init__(self, loaded: Loaded, slots: int, reading: int, outbox: Outbox) -> None:
        self._slots = slots
        self._loaded = loaded
        self._reading = reading
        self._outbox = outbox
        self._frames = Frames()
        self._turns: deque[Turn] = deque()
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)
        self._stopping = False

    def serve(self) -> None:
        while not self._stopping:
            turn = self._next()
            if turn is None:
                self._outbox.flush()
            if self._poll.poll(0 if turn else None):
                self._listen()
            elif turn is not None:
                self._step(turn)

    def _next(self) -> Turn | None:
        """The next request whose caller is not behind; it goes to the end of the queue."""
        for _ in range(len(self._turns)):
            turn = self._turns[0]
            self._turns.rotate(-1)
            if turn.may_go:
                return turn
        return None

    def _step(self, turn: Turn) -> None:
        if not turn.made:
            self._outbox.flush()  # a prefill may be long
        event = next(turn.steps, None)
        if isinstance(event, Run):
            turn.made += 1
            self._outbox.run(event)
        elif event is None:
            self._turns.remove(turn)
        else:
            self._outbox.send(event)

    def _listen(self) -> None:
        data = os.read(self._reading, _READ)
        if not data:
            self._stopping = True
        for payload in self._frames.feed(data):
            self._take(wire.to_engine.decode(payload))

    def _take(self, message: wire.ToEngine) -> None:
        match message:
            case Generate():
                self._admit(message, message.ahead, len(message.emitted))
            case Embed() | Score():
                self._admit(message)
            case wire.Cancel(id=id):
                self._cancel(id)
            case wire.Taken(id=id, count=count):
                for turn in self._turns:
                    if turn.id == id:
                        turn.taken = count
            case wire.Ping():
                self._outbox.send(wire.Pong())
            case wire.Stop():
                self._stopping = True
            case wire.Load():
                raise EngineError("engine_error", "A loaded engine was told to load.")

    def _admit(self, order: Generate | Embed | Score, ahead: int = 0, emitted: int = 0) -> None:
        if len(self._turns) >= self._slots:
            busy = EngineError("busy", f"All {self._slots} slots of the engine are taken.")
            self._outbox.send(busy.as_event(order.id))
        else:
            self._turns.append(Turn(order.id, self._loaded.steps(order), ahead, emitted))

    def _cancel(self, id: str) -> None:
        for turn in list(self._turns):
            if turn.id == id:
                self._turns.remove(turn)
                self._outbox.send(Finished(id, "cancelled", turn.emitted + turn.made))


def _first(reading: int) -> wire.Load:
    frames = Frames()
    while data := os.read(reading, _READ):
        for payload in frames.feed(data):
            message = wire.to_engine.decode(payload)
            if not isinstance(message, wire.Load) or frames.pending:
                raise EngineError("engine_error", "The first message must be the only one until the engine is ready.")
            return message
    sys.exit(0)


def main() -> int:
    die_with(int(sys.argv[1]))
    reading, writing = take_stdio()
    message = _first(reading)
    outbox = Outbox(writing, time.perf_counter, message.join_s)
    began = time.perf_counter()
    held = confine(message.spec.memory)
    try:
        loaded = load(message.spec, Path(message.scratch))
    except (EngineError, MemoryError) as error:
        outbox.send(as_failed("", error))
        return 1
    took = round((time.perf_counter() - began) * 1000)
    outbox.send(Ready(loaded.engine, loaded.version, held, os.getpid(), took, loaded.vocab, loaded.width))
    Runner(loaded, message.spec.slots, reading, outbox).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
