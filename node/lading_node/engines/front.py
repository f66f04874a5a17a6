"""The front of an engine that runs elsewhere: requests go out as orders, their events come back by their ids.

Whoever holds the way there (a process's pipes, a seat in a pool) says how an order, a count and a cancel get through,
and hands in what comes back.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing

from lading_node.engines.errors import EngineError
from lading_node.engines.inbox import Arrival, Inbox, gathered, room_of, scored, streamed
from lading_node.engines.port import Embed, Embedded, Event, Failed, Generate, Run, Score, Scored, Started
from lading_protocol.errors import BadMessage

Order = Generate | Embed | Score


class Front(ABC):
    """Whatever happens to the engine, every request gets an end: call `_fail_all` when it is gone."""

    def __init__(self) -> None:
        self._inboxes: dict[str, Inbox] = {}
        self._prompt_tokens = 0
        self._output_tokens = 0

    async def generate(self, order: Generate) -> AsyncIterator[Event]:
        inbox = self._submit(order)
        try:
            async with aclosing(streamed(inbox, order.ahead, lambda count: self.take(order.id, count))) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(inbox)

    async def embed(self, order: Embed) -> Embedded | Failed:
        inbox = self._submit(order)
        try:
            return await gathered(inbox)
        finally:
            self._leave(inbox)

    async def score(self, order: Score) -> Scored | Failed:
        inbox = self._submit(order)
        try:
            return await scored(inbox)
        finally:
            self._leave(inbox)

    def cancel(self, id: str) -> None:
        if id in self._inboxes:
            self._send_cancel(id)

    @abstractmethod
    def take(self, id: str, count: int) -> None:
        """The caller of a generation has taken `count` of its tokens."""

    @abstractmethod
    def _running(self) -> bool:
        """Whether the engine can take an order."""

    @abstractmethod
    def _send(self, order: Order) -> None:
        """Raises BadMessage when the order is too large."""

    @abstractmethod
    def _send_cancel(self, id: str) -> None: ...

    def _left(self, id: str) -> None:
        """A request is given up before its end."""
        self._send_cancel(id)

    def _submit(self, order: Order) -> Inbox:
        """Hand the order on; a refusal takes the place of its events."""
        inbox = Inbox(order.id, room_of(order))
        if not self._running():
            inbox.put(EngineError("engine_died", "The engine is not running.").as_event(order.id))
        elif order.id in self._inboxes:
            inbox.put(Failed(order.id, "invalid_request", f"A request {order.id!r} is already running."))
        else:
            try:
                self._send(order)
            except BadMessage as error:
                inbox.put(Failed(order.id, "invalid_request", f"The request is too large. {error.message}"))
            else:
                self._inboxes[order.id] = inbox
        return inbox

    def _leave(self, inbox: Inbox) -> None:
        if self._inboxes.get(inbox.id) is inbox:
            del self._inboxes[inbox.id]
            if not inbox.ended:
                self._left(inbox.id)

    def _hand_in(self, event: Arrival) -> Inbox | None:
        """Count what came, and give it to its request; None when nobody waits for it any more."""
        if isinstance(event, Run):
            self._output_tokens += len(event.ids)
        elif isinstance(event, Started):
            self._prompt_tokens += event.prompt_tokens
        inbox = self._inboxes.get(event.id)
        if inbox is not None:
            inbox.put(event)
        return inbox

    def _fail_all(self, error: EngineError) -> None:
        for inbox in self._inboxes.values():
            inbox.put(error.as_event(inbox.id))
