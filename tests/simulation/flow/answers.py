"""What the answers must be: computed by one engine with nothing in its way, outside of any market."""

import functools

from factories import chat_request
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Finished, Generate, Run
from lading_protocol.messages import ChatRequest, Streamed

Whole = tuple[str, tuple[int, ...], str]


@functools.cache
def unbroken(request: Streamed, seed: str = "toy") -> Whole:
    """Text, ids and finish. `seed` names the weights."""
    talk = _read_out(MemoryEngine(EngineSpec("memory", context=1024, slots=1, seed=seed)), request)
    while True:  # without a delay the engine waits for nothing, so no loop is needed: this may run within one
        try:
            talk.send(None)
        except StopIteration as done:
            whole: Whole = done.value
            return whole


async def _read_out(engine: MemoryEngine, request: Streamed) -> Whole:
    await engine.start()
    text, ids, finish = "", tuple[int, ...](), ""
    async for event in engine.generate(Generate("whole", request, (), 0)):
        if isinstance(event, Run):
            text, ids = text + event.text, (*ids, *event.ids)
        elif isinstance(event, Finished):
            finish = event.finish
    return text, ids, finish


@functools.cache
def question(least: int, most: int, max_tokens: int = 200) -> ChatRequest:
    """A request whose answer has between `least` and `most` tokens."""
    for attempt in range(10_000):
        request = chat_request(f"Tell me of the sea, {attempt}.", max_tokens=max_tokens)
        if least <= len(unbroken(request)[1]) <= most:
            return request
    raise AssertionError("no such answer is found")
