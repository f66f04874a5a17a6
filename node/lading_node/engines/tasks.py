"""Work of an agent that is no language model: it answers in bytes and is charged for fuel and for models it asks.

A Task says what comes next; here that becomes work tokens, within the request's budget, resumed and scored by running
again: the same ids must come.
"""

import codecs
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lading_node.engines.errors import EngineError, check_fit
from lading_node.engines.generation import as_failed
from lading_node.engines.port import Failed, Finished, Generate, Run, Score, Scored, Started
from lading_node.engines.telling import compared
from lading_node.engines.wire import FromEngine
from lading_protocol.messages import Streamed
from lading_protocol.transcript import prompt_hash
from lading_protocol.work import id_bytes, task_prompt, text_ids

# One Run carries no more ids than this, so that an answer given whole does not hold up the others.
PORTION = 1024


class Charge(NamedTuple):
    """`times` work tokens without text: `id` is work.FUEL or work.MODEL."""

    id: int
    times: int


@dataclass
class Budget:
    """How many work tokens the request may still cost. Kept by the driver of a Task, read by the Task."""

    left: int


Emission = bytes | Charge
Task = Callable[[Streamed, Budget], Iterator[Emission]]


class TaskWork:
    """One attempt at a call (or at a chat with an agent that answers in text)."""

    def __init__(self, task: Task, order: Generate, context: int) -> None:
        self._order = order
        self._ids = _TaskIds(task, order.request, context)
        self._at = 0
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._events: list[FromEngine] = []
        self._begun = False
        self.made = 0
        self.done = False

    def step(self) -> bool:
        order = self._order
        try:
            if not self._begun:
                self._begun = True
                prompt = self._ids.prompt()
                self._events.append(Started(order.id, len(prompt), prompt_hash(prompt)))
                return True
            self._go_on(self._ids.more(PORTION))
        except Exception as error:
            self._end(as_failed(order.id, error))
        return True

    def take(self) -> list[FromEngine]:
        events, self._events = self._events, []
        return events

    def _go_on(self, ids: list[int]) -> None:
        """Ids of earlier attempts are compared, later ones are news."""
        known = self._order.emitted[self._at : self._at + len(ids)]
        if tuple(ids[: len(known)]) != known:
            raise EngineError("invalid_request", "The emitted tokens are not what this agent gives for the request.")
        for token in known:
            self._text.decode(id_bytes(token))
        first = self._at + len(known)
        self._at += len(ids)
        over = self._ids.over
        if over and self._at < len(self._order.emitted):
            raise EngineError("invalid_request", f"The emitted tokens go on after the answer's end at {self._at}.")
        fresh = ids[len(known) :]
        if fresh:
            self.made += len(fresh)
            text = self._text.decode(b"".join(map(id_bytes, fresh)), final=bool(over))
            self._events.append(Run(self._order.id, first, tuple(fresh), text))
        if over:
            self._end(Finished(self._order.id, over, self._at))

    def _end(self, event: Finished | Failed) -> None:
        self._events.append(event)
        self.done = True
        self._ids.close()


class TaskScore:
    """Runs the request again and compares; see port.Scored."""

    def __init__(self, task: Task, order: Score, context: int) -> None:
        self._order = order
        self._ids = _TaskIds(task, order.request, context)
        self._again: list[int] = []
        self._events: list[FromEngine] = []
        self.made = 0
        self.done = False

    def step(self) -> bool:
        try:
            self._again += self._ids.more(PORTION)
            # One more than was emitted, or the end: only then is it known whether the answer ends there.
            if not self._ids.over and len(self._again) <= len(self._order.emitted):
                return False
            self._events.append(self._scored())
        except Exception as error:
            self._events.append(as_failed(self._order.id, error))
        self.done = True
        self._ids.close()
        return True

    def take(self) -> list[FromEngine]:
        events, self._events = self._events, []
        return events

    def _scored(self) -> Scored:
        order, again = self._order, self._again
        if order.first > len(order.emitted):
            raise EngineError("invalid_request", f"Scoring begins at {order.first}, after the last token.")
        prompt = self._ids.prompt()
        started = Started(order.id, len(prompt), prompt_hash(prompt))
        return compared(order, started, again, self._ids.over if len(again) <= len(order.emitted) else "")


class _TaskIds:
    """The ids of a task in order, never more than the request allows. `over` is set with the last of them."""

    def __init__(self, task: Task, request: Streamed, context: int) -> None:
        self._task = task
        self._request = request
        self._context = context
        self._budget = Budget(request.max_tokens)
        self._emissions: Iterator[Emission] | None = None
        self._waiting: deque[int] = deque()
        self._ended: Literal["", "stop", "length"] = ""
        self.over: Literal["", "stop", "length"] = ""

    def prompt(self) -> list[int]:
        """Raises EngineError when the request does not fit."""
        prompt, most = task_prompt(self._request), self._request.max_tokens
        check_fit(len(prompt), most, self._context)
        return prompt

    def more(self, most: int) -> list[int]:
        """The next ids: those of one emission, or up to `most` that wait. Raises what the task raises."""
        if self._emissions is None:
            self.prompt()
            self._emissions = self._task(self._request, self._budget)
        if not self._waiting and not self._ended:
            self._pull()
        ids = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if not self._waiting:
            self.over = self._ended
        return ids

    def close(self) -> None:
        """Let the task end where it stands."""
        close = getattr(self._emissions, "close", None)
        if close is not None:
            close()

    def _pull(self) -> None:
        assert self._emissions is not None
        emission = next(self._emissions, None)
        if emission is None:
            self._ended = "stop"
            return
        left = self._budget.left
        ids = [emission.id] * min(emission.times, left + 1) if isinstance(emission, Charge) else text_ids(emission)
        if len(ids) > left:
            ids, self._ended = ids[:left], "length"
        self._budget.left = left - len(ids)
        self._waiting.extend(ids)
