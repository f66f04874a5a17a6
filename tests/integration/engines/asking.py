"""Short ways to ask an engine in tests."""

from contextlib import aclosing
from typing import Any

from lading_node.engines.port import Engine, Event, Failed, Finished, Generate, Run, Started, Traced
from lading_protocol.messages import Chance, ChatRequest, Message, Sampler
from lading_protocol.transcript import SKETCH_BYTES

HELLO = (Message("system", "Be brief."), Message("user", "Where does the fox go? 🦊"))


def ask(
    max_tokens: int = 40, *, seed: int = 0, temperature: float = 1.0, stop: tuple[str, ...] = (), **how: Any
) -> ChatRequest:
    """`how` are further fields of the sampler."""
    return ChatRequest(HELLO, max_tokens, Sampler(bytes([seed]) * 32, temperature, **how), stop)


class Answer:
    """All events of one attempt, checked for order and gaps as they are added."""

    def __init__(self, first: int = 0) -> None:
        self.started: Started | None = None
        self.ids: list[int] = []
        self.text = ""
        self.prompt_sketch = b""
        self.sketch = b""
        self.chances: list[Chance] = []
        self.end: Finished | Failed | None = None
        self._first = first

    def add(self, event: Event) -> None:
        assert self.end is None, "nothing may follow the end"
        match event:
            case Started():
                assert self.started is None
                self.started = event
            case Traced():
                assert self.started is not None
                assert not self.ids
                self.prompt_sketch += event.sketch
            case Run():
                assert self.started is not None
                assert not event.sketch or len(event.sketch) == SKETCH_BYTES * len(event.ids)
                self.sketch += event.sketch
                assert event.first == self._first + len(self.ids)
                assert event.ids
                assert len(event.chances) in (0, len(event.ids))
                self.ids += event.ids
                self.chances += event.chances
                self.text += event.text
            case Finished() | Failed():
                self.end = event


async def collect(engine: Engine, order: Generate) -> Answer:
    answer = Answer(len(order.emitted))
    async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
        async for event in events:
            answer.add(event)
    return answer


async def whole(engine: Engine, request: ChatRequest, id: str = "whole") -> Answer:
    answer = await collect(engine, Generate(id, request))
    assert isinstance(answer.end, Finished), answer.end
    return answer
