"""Tokens a second of the torch engine on a card, through its confined process, against a bare loop over the same model.

Bare is the library's forward pass, the row brought to the processor, the same sampler, and nobody listening: no text,
no pipe, no states. Rounds alternate, and medians count. What one pass for all streams would give stands beside it:
the engine makes one for each, so that an answer does not hang on who is served beside it.
"""

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lading_node.core.sampler import choose
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import EngineSpec, Generate, Run
from lading_node.hardware.discover import discover
from lading_protocol.messages import ChatRequest, Message, Sampler

from .report import say

ASK = (Message("user", "Tell me a story about a fox and a lantern."),)
JOB = bytes(range(32))
GIB = 1 << 30


class Load(NamedTuple):
    """How many streams at once, and tokens of each."""

    streams: int
    tokens: int


class Subject(NamedTuple):
    """A model under a name. `stated` are the bytes that its shape says it takes on a card; 0 for not compared."""

    name: str
    spec: EngineSpec
    words: str
    loads: tuple[Load, ...]
    stated: int = 0


def request(tokens: int, number: int = 0) -> ChatRequest:
    return ChatRequest(ASK, tokens, Sampler(number.to_bytes(32, "big")))


async def measure(subject: Subject, rounds: int) -> None:
    """Both sides of every load, and the memory that the engine took."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    bare = multiprocessing.get_context("spawn").Process(target=_bare, args=(subject.spec, theirs))
    bare.start()
    theirs.close()  # so that a bare loop that dies is noticed
    assert ours.recv() == "ready"
    before = await _used()
    with tempfile.TemporaryDirectory() as scratch:
        engine = ChildEngine(subject.spec, Path(scratch), load_deadline=180)
        ready = await engine.start()
        say(
            f"gpu_{subject.name}_load",
            ready.load_ms / 1e3,
            "s",
            note=f"{ready.version}; held: {', '.join(ready.confinement)}",
        )
        try:
            for load in subject.loads:
                await _both(subject, engine, ours, load, rounds)
            if subject.stated:
                _memory(subject, await _used() - before)
        finally:
            ours.send(None)
            await engine.stop()
            await asyncio.to_thread(bare.join)


async def _both(subject: Subject, engine: ChildEngine, ours: Any, load: Load, rounds: int) -> None:
    speeds: dict[str, list[float]] = {"bare": [], "engine": [], "together": []}
    for round_ in range(rounds + 1):
        for how in ("bare", "together") if load.streams > 1 else ("bare",):
            ours.send((how, load))
            speeds[how].append(await asyncio.to_thread(ours.recv))
        speeds["engine"].append(await _through(engine, load, round_))
    found = {how: statistics.median(times[1:]) for how, times in speeds.items() if times}
    say(
        f"gpu_{subject.name}_tokens_{load.streams}",
        found["engine"],
        "token/s",
        reference=("bare torch loop, a pass for each stream", found["bare"]),
        ratio=statistics.median(a / b for a, b in zip(speeds["engine"][1:], speeds["bare"][1:], strict=True)),
        bar=">= 0.95 of the reference",
        n=rounds,
        note=f"{subject.words}; {load.streams} at once, {load.tokens} tokens each, with sketches",
    )
    if "together" in found:
        say(
            f"gpu_{subject.name}_together_{load.streams}",
            found["engine"],
            "token/s",
            reference=("bare torch loop, one pass for all streams", found["together"]),
            n=rounds,
            note="what the engine leaves by giving each stream a pass of its own",
        )


def _memory(subject: Subject, used: int) -> None:
    say(
        f"gpu_{subject.name}_memory",
        used / GIB,
        "GiB",
        reference=("weights, head in f32, keys and values, by the shape", subject.stated / GIB),
        bar="<= 1.5 of the reference",
        note="on the card, as the driver tells of it, after all of the above",
    )


async def _used() -> int:
    """Bytes in use on all cards."""
    inventory = await discover(vendors=("nvidia",))
    return sum(device.memory_used for device in inventory.devices)


async def _through(engine: ChildEngine, load: Load, round_: int) -> float:
    async def one(number: int) -> int:
        made = 0
        order = Generate(f"{round_}:{load.streams}:{number}", request(load.tokens, number), job=JOB)
        async for event in engine.generate(order):
            if isinstance(event, Run):
                made += len(event.ids)
        return made

    began = time.perf_counter()
    made = sum(await asyncio.gather(*(one(number) for number in range(load.streams))))
    return made / (time.perf_counter() - began)


# --- in a process of its own


def _bare(spec: EngineSpec, pipe: Any) -> None:
    """Runs a loop for every message, and answers tokens a second."""
    from lading_node.engines.load import language_model

    engine: Any = language_model(spec, Path())
    loop = Loop(engine)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        how, load = asked
        pipe.send((loop.apart if how == "bare" else loop.together)(load))


class Loop:
    """The library's model without the engine's hook, its sequences one by one or all in one pass."""

    def __init__(self, engine: Any) -> None:
        self._model = engine._model
        self._model.base_model._forward_hooks.clear()
        self._device = next(self._model.parameters()).device
        self._prompt = engine.prompt(ASK)
        self._ends = frozenset(engine.ends)

    def apart(self, load: Load) -> float:
        began, made = time.perf_counter(), 0
        caches: list[Any] = [None] * load.streams
        fed = [[self._prompt] for _ in caches]
        for at in range(load.tokens):
            for n in range(load.streams):
                if not fed[n]:
                    continue
                rows, caches[n] = self._pass(fed[n], caches[n])
                token = choose(rows[0], at, request(1, n).sampler)
                made += 1
                fed[n] = [] if token in self._ends else [[token]]
        return made / (time.perf_counter() - began)

    def together(self, load: Load) -> float:
        """Sequences that have ended go on, and are not counted."""
        began, made = time.perf_counter(), 0
        cache, fed, over = None, [self._prompt] * load.streams, set[int]()
        for at in range(load.tokens):
            rows, cache = self._pass(fed, cache)
            fed = [[choose(row, at, request(1, n).sampler)] for n, row in enumerate(rows)]
            made += load.streams - len(over)
            over |= {n for n, (token,) in enumerate(fed) if token in self._ends}
        return made / (time.perf_counter() - began)

    def _pass(self, ids: list[list[int]], cache: Any) -> tuple[Any, Any]:
        import torch

        with torch.inference_mode():
            tokens = torch.tensor(ids, device=self._device)
            made = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return made.logits[:, -1].float().cpu().numpy(), made.past_key_values


def with_slots(spec: EngineSpec, device: str, slots: int = 16) -> EngineSpec:
    return msgspec.structs.replace(spec, device=device != "cpu", slots=slots)
