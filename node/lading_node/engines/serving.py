"""The loop of an engine's process: requests take turns step by step over one loaded model, or a step together.

One thread. Between steps it listens for cancels; what the requests are about is the business of generation.py.
"""

import os
import select
from collections import deque
from time import perf_counter as clock

from lading_node.engines import wire
from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Generation, Work, together
from lading_node.engines.load import Loaded, Order
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import Embed, Finished, Generate, Score
from lading_protocol.framing import Frames

_READ = 1 << 18


class Turn:
    """A running request: its work, and how far it may go before the caller takes more."""

    __slots__ = ("ahead", "id", "start", "taken", "work")

    def __init__(self, order: Order, work: Work) -> None:
        self.id = order.id
        self.work = work
        self.ahead = order.ahead if isinstance(order, Generate) else 0
        self.start = len(order.emitted) if isinstance(order, Generate) else 0
        self.taken = 0

    @property
    def free(self) -> bool:
        return not self.ahead or self.work.made - self.taken < self.ahead


class Runner:
    """Serves one loaded model until it is told to stop or its parent is gone.

    Looking at the pipes costs as much as a token of a small model, so fast steps go on for `join_s` seconds between
    two looks, tokens joined; a model that takes half of that for a step has every token written at once.
    """

    def __init__(self, loaded: Loaded, slots: int, join_s: float, reading: int, outbox: Outbox) -> None:
        self._loaded = loaded
        self._slots = slots
        self._join_s = join_s
        self._reading = reading
        self._outbox = outbox
        self._frames = Frames()
        self._turns: deque[Turn] = deque()
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)
        self._stopping = False

    def serve(self) -> None:
        while not self._stopping:
            busy = self._advance()
            self._flush()
            if self._poll.poll(0 if busy else None):
                self._listen()

    def _advance(self) -> bool:
        """Go round the requests until it is time to look at the pipes; False when none can go on."""
        began = last = clock()
        while next_ := self._next():
            news = self._step(next_)
            now = clock()
            # Before a slow step nothing may wait: a prefill, or a step of a model that is slow altogether.
            if news or now - began >= self._join_s or now - last >= self._join_s / 2:
                return True
            last = now
        return False

    def _next(self) -> list[Turn]:
        """Whose turn it is: one's, or that of all who are midway where one pass does for them. They go to the end of
        the row, in their order. Empty when none can go on."""
        turns = self._turns
        for _ in range(len(turns)):
            if turns[0].free:
                break
            turns.rotate(-1)
        else:
            return []
        if self._loaded.advance is None or not _midway(turns[0]):
            turns.rotate(-1)
            return [turns[-1]]
        found = [turn for turn in turns if turn.free and _midway(turn)]
        for turn in found:
            turns.remove(turn)
            turns.append(turn)
        return found

    def _step(self, turns: list[Turn]) -> bool:
        if len(turns) == 1:
            return turns[0].work.step()
        assert self._loaded.advance is not None
        return together(self._loaded.advance, [turn.work for turn in turns if isinstance(turn.work, Generation)])

    def _flush(self) -> None:
        for turn in list(self._turns):
            self._outbox.put(turn.work.take())
            if turn.work.done:
                self._turns.remove(turn)
        self._outbox.flush()

    def _listen(self) -> None:
        data = os.read(self._reading, _READ)
        if not data:
            self._stopping = True
        for payload in self._frames.feed(data):
            self._take(wire.to_engine.decode(payload))

    def _take(self, message: wire.ToEngine) -> None:
        match message:
            case Generate() | Embed() | Score():
                self._admit(message)
            case wire.Cancel(id=id):
                self._cancel(id)
            case wire.Taken(id=id, count=count):
                for turn in self._turns:
                    if turn.id == id:
                        turn.taken = count
            case wire.Ping():
                self._outbox.put([wire.Pong()])
            case wire.Stop():
                self._stopping = True
            case wire.Load():
                raise EngineError("engine_error", "A loaded engine was told to load.")

    def _admit(self, order: Order) -> None:
        if len(self._turns) >= self._slots:
            busy = EngineError("busy", f"All {self._slots} slots of the engine are taken.")
            self._outbox.put([busy.as_event(order.id)])
        else:
            self._turns.append(Turn(order, self._loaded.begin(order)))

    def _cancel(self, id: str) -> None:
        for turn in list(self._turns):
            if turn.id == id:
                self._turns.remove(turn)
                self._outbox.put([*turn.work.take(), Finished(id, "cancelled", turn.start + turn.work.made)])


def _midway(turn: Turn) -> bool:
    return isinstance(turn.work, Generation) and turn.work.midway
