"""Tokens a second of the torch engine on a card, through its confined process, against a bare loop over the same model
that takes all streams through one pass.

Bare is the library's forward pass over sequences of one length, prompts included, the rows brought to the processor,
the same sampler, and nobody listening: no text, no pipe, no states. Rounds alternate, and medians count.
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
    bare, through = list[float](), list[float]()
    for round_ in range(rounds + 1):
        ours.send(load)
        bare.append(await asyncio.to_thread(ours.recv))
        through.append(await _through(engine, load, round_))
    say(
        f"gpu_{subject.name}_tokens_{load.streams}",
        statistics.median(through[1:]),
        "token/s",
        reference=("bare torch loop, one pass for all streams", statistics.median(bare[1:])),
        ratio=statistics.median(a / b for a, b in zip(through[1:], bare[1:], strict=True)),
        bar=f">= {0.95 if load.streams == 1 else 0.8} of the reference",
        n=rounds,
        note=f"{subject.words}; {load.streams} at once, {load.tokens} tokens each, with sketches",
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
    while (load := pipe.recv()) is not None:
        pipe.send(loop.run(load))


class Loop:
    """The library's model without the engine's hook, and one cache for all sequences."""

    def __init__(self, engine: Any) -> None:
        self._model = engine._model
        self._model.base_model._forward_hooks.clear()
        self._device = next(self._model.parameters()).device
        self._prompt = engine.prompt(ASK)
        self._ends = frozenset(engine.ends)

    def run(self, load: Load) -> float:
        """Sequences that have ended leave the cache."""
        import torch

        began, made = time.perf_counter(), 0
        left, cache, fed = list(range(load.streams)), None, [self._prompt] * load.streams
        for at in range(load.tokens):
            rows, cache = self._pass(fed, cache)
            tokens = [choose(row, at, request(1, n).sampler) for n, row in zip(left, rows, strict=True)]
            made += len(left)
            on = [i for i, token in enumerate(tokens) if token not in self._ends]
            if not on:
                break
            if len(on) < len(left):
                cache.batch_select_indices(torch.tensor(on, device=self._device))
            left, fed = [left[i] for i in on], [[tokens[i]] for i in on]
        return made / (time.perf_counter() - began)

    def _pass(self, ids: list[list[int]], cache: Any) -> tuple[Any, Any]:
        import torch

        with torch.inference_mode():
            tokens = torch.tensor(ids, device=self._device)
            made = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return made.logits[:, -1].float().cpu().numpy(), made.past_key_values


def with_slots(spec: EngineSpec, device: str, slots: int = 16) -> EngineSpec:
    return msgspec.structs.replace(spec, device=device != "cpu", slots=slots)
