"""The front of an engine whose agent speaks in text: its answer told in work tokens, as fast as its caller takes them.

Whoever holds the way to the agent (a container's streams, a server's HTTP) says how a request begins, how more of its
answer is had, and how it is left.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import inf
from typing import Generic, Literal, Protocol, TypeVar, cast

from lading_node.engines.answer import Answer
from lading_node.engines.errors import EngineError
from lading_node.engines.port import Event, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_protocol.transcript import prompt_hash
from lading_protocol.work import task_prompt, task_prompt_size

# No Run is larger, so that it fits a frame of the network.
PORTION = 1024


class Talk(Protocol):
    """A request that is being answered. `end` is set when it ended otherwise than with its answer."""

    @property
    def end(self) -> Finished | Failed | None: ...


T = TypeVar("T", bound=Talk)


class Teller(ABC, Generic[T]):
    def __init__(self, repeats: bool) -> None:
        """`repeats`: the publisher promises that the same request gets the same answer."""
        self._repeats = repeats
        self._prompt_tokens = 0
        self._output_tokens = 0

    async def generate(self, order: Generate) -> AsyncGenerator[Event, None]:
        """What was said before an agent failed is told first; a caller that cancels wants no more of it."""
        try:
            talk, answer = self._begin(order, task_prompt_size(order.request))
        except EngineError as error:
            yield error.as_event(order.id)
            return
        most = min(PORTION, order.ahead or PORTION)
        try:
            prompt = task_prompt(order.request)  # the agent is at work meanwhile
            self._prompt_tokens += len(prompt)
            yield Started(order.id, len(prompt), prompt_hash(prompt))
            while not isinstance(talk.end, Finished):
                if answer.over:
                    yield talk.end or Finished(order.id, answer.over, answer.count)
                    return
                first = answer.count
                ids, text = answer.take(most)
                if ids:
                    self._output_tokens += len(ids)
                    self._took(talk)
                    yield Run(order.id, first, tuple(ids), text)
                elif not answer.over:
                    if talk.end is not None:
                        yield talk.end
                        return
                    await self._more(talk)
            yield talk.end
        finally:
            await self._close(talk)

    async def score(self, order: Score) -> Scored | Failed:
        """Runs the request again, no further than one token past the answer, and compares."""
        if not self._repeats:
            why = "An answer of this agent cannot be checked by running it again."
            hint = "Compare it with the agent's test vectors."
            return EngineError("invalid_request", why, hint=hint).as_event(order.id)
        if order.first > len(order.emitted):
            why = f"Scoring begins at {order.first}, after the last token."
            return EngineError("invalid_request", why).as_event(order.id)
        again: list[int] = []
        started, finish = Started(order.id, 0, b""), ""
        async with aclosing(self.generate(Generate(order.id, order.request))) as events:
            async for event in events:
                match event:
                    case Started():
                        started = event
                    case Run(ids=ids):
                        again += ids
                    case Finished():
                        finish = event.finish
                    case Failed():
                        return event
                if len(again) > len(order.emitted):
                    break
        return compared(order, started, again, "" if len(again) > len(order.emitted) else finish)

    @abstractmethod
    def _begin(self, order: Generate, prompt: int) -> tuple[T, Answer]:
        """`prompt` is in tokens. Raises EngineError."""

    @abstractmethod
    async def _more(self, talk: T) -> None:
        """Wait for more of the answer, or its end."""

    @abstractmethod
    async def _close(self, talk: T) -> None:
        """Nobody waits for this answer any more."""

    def _took(self, talk: T) -> None:
        """The caller has taken some of it."""


def compared(order: Score, started: Started, again: Sequence[int], finish: str) -> Scored:
    """What a second run, which ended with `finish` ("" when it went on), says of the answer. See port.Scored."""
    margins = tuple(
        0.0 if at < len(again) and again[at] == order.emitted[at] else inf
        for at in range(order.first, len(order.emitted))
    )
    ending = cast(Literal["", "stop", "length"], finish)
    return Scored(order.id, started.prompt_tokens, started.prompt_hash, margins, ending, len(again) if finish else 0)


def check_free(id: str, running: bool, taken: bool, slots: int) -> None:
    """Raises EngineError when a request of this id is `running` or every slot is `taken`."""
    if running:
        raise EngineError("invalid_request", f"A request {id!r} is already running.", hint="Use another id.")
    if taken:
        raise EngineError("busy", f"All {slots} slots of the engine are taken.")
