"""What the engine process costs: tokens per second of the bare loop against the same model behind the whole port.

Bare is model, sampler and append in one process, with no text, no pipe and nobody listening. Rounds alternate, so noise
of the machine meets both; medians.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from integration.engines import tiny_llama
from lading_node.core.mask import Masks
from lading_node.core.sampler import choose, margin
from lading_node.core.shaping import Shaper
from lading_node.core.vocabulary import Vocabulary
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import EngineSpec, Generate, Run, Score
from lading_protocol.messages import ChatRequest, Message, Sampler

from .processes import cpu_seconds
from .report import say

TOKENS = 400


def request(tokens: int = TOKENS, temperature: float = 0.8) -> ChatRequest:
    return ChatRequest((Message("user", "the fox"),), tokens, Sampler(bytes(32), temperature))


def _bare(spec: EngineSpec, scratch: str, pipe: Any) -> None:
    """A process that runs the bare loop once for every message; answers tokens per second and processor seconds."""
    from lading_node.engines.load import language_model

    model = language_model(spec, Path(scratch))
    while (streams := pipe.recv()) is not None:
        sampler = request().sampler
        prompt = model.prompt(request().messages)
        wall, busy = time.perf_counter(), time.process_time()
        states = [model.open(prompt, TOKENS) for _ in range(streams)]
        for at in range(TOKENS):
            for state in states:
                token = choose(state.logits(), at, sampler)
                if at < TOKENS - 1:
                    state.append(token)
        made = TOKENS * streams
        pipe.send((made / (time.perf_counter() - wall), (time.process_time() - busy) / made))


async def _through(engine: ChildEngine, pid: int, streams: int, round_: int) -> tuple[float, float]:
    async def one(i: int) -> int:
        made = 0
        async for event in engine.generate(Generate(f"{round_}:{i}", request())):
            if isinstance(event, Run):
                made += len(event.ids)
        return made

    wall, busy = time.perf_counter(), cpu_seconds(pid)
    made = sum(await asyncio.gather(*(one(i) for i in range(streams))))
    assert made == TOKENS * streams, "the random model ended early; choose another seed"
    return made / (time.perf_counter() - wall), (cpu_seconds(pid) - busy) / made


async def overhead(spec: EngineSpec, scratch: Path, rounds: int) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    bare = multiprocessing.get_context("spawn").Process(target=_bare, args=(spec, str(scratch), theirs))
    bare.start()
    joined = ChildEngine(spec, scratch)
    single = ChildEngine(spec, scratch, join_s=0)
    pids = (await joined.start()).pid, (await single.start()).pid
    for streams in (1, 4):
        speeds: dict[str, list[tuple[float, float]]] = {"bare": [], "port": [], "each": []}
        for i in range(rounds + 1):
            ours.send(streams)
            speeds["bare"].append(ours.recv())
            speeds["port"].append(await _through(joined, pids[0], streams, i))
            speeds["each"].append(await _through(single, pids[1], streams, i))
        report(streams, {name: pairs[1:] for name, pairs in speeds.items()})
    ours.send(None)
    bare.join()
    await joined.stop()
    await single.stop()


def report(streams: int, speeds: dict[str, list[tuple[float, float]]]) -> None:
    """Tokens per second by the wall clock, and by the processor time of the engine's own process."""
    n = len(speeds["bare"])
    wall = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in speeds.items()}
    busy = {name: statistics.median(1 / pair[1] for pair in pairs) for name, pairs in speeds.items()}
    for kind, found, note in (
        ("wall", wall, "wall clock; the reader shares the machine's cores"),
        ("cpu", busy, "tokens per processor second of the engine's process"),
    ):
        for name, what in (("port", "joined writes"), ("each", "one write a token")):
            say(
                f"engine_{name}_{kind}_{streams}",
                found[name],
                "token/s",
                reference=("bare loop", found["bare"]),
                bar=">= 0.95 of the reference" if name == "port" else None,
                n=n,
                note=f"{what}; {note}",
            )


async def lifecycle(spec: EngineSpec, scratch: Path) -> None:
    loads, kills, scores = [], [], []
    for i in range(5):
        engine = ChildEngine(spec, scratch)
        began = time.perf_counter()
        await engine.start()
        loads.append(time.perf_counter() - began)
        order = request(128)
        ids: list[int] = []
        async for event in engine.generate(Generate(str(i), order)):
            if isinstance(event, Run):
                ids += event.ids
        began = time.perf_counter()
        await engine.score(Score("score", order, tuple(ids)))
        scores.append((time.perf_counter() - began) / len(ids))
        began = time.perf_counter()
        await engine.stop(0)
        kills.append(time.perf_counter() - began)
    say("engine_load", statistics.median(loads) * 1e3, "ms", n=5, note="process, imports, model; ready for a request")
    say("engine_kill", max(kills) * 1e3, "ms", bar="<= 1000", n=5, note="the slowest")
    say("engine_score", statistics.median(scores) * 1e6, "us/token", n=5, note="one prefill and the margins of 128")


def sampler_costs() -> None:
    rng = np.random.default_rng(0)
    for vocab in (1024, 32768):
        row = (rng.normal(size=vocab) * 3).astype(np.float32)
        for name, settings in (
            ("greedy", Sampler(bytes(32), 0.0)),
            ("plain", Sampler(bytes(32))),
            ("k50_p90", Sampler(bytes(32), 0.7, 0.9, 50)),
            ("min_p05", Sampler(bytes(32), 0.7, min_p=0.05)),
        ):
            say(f"sampler_{name}_{vocab}", _micros(partial(choose, row, 3, settings)), "us/token", n=5)
        say(f"sampler_margin_{vocab}", _micros(partial(margin, row, 5, 3, Sampler(bytes(32)))), "us/token", n=5)


def shaping_costs() -> None:
    """What bias, penalties and a grammar add to a choice, and what a mask costs when a state is new."""
    rng = np.random.default_rng(0)
    for vocab in (1024, 32768, 151936):
        row = (rng.normal(size=vocab) * 3).astype(np.float32)
        settings = Sampler(bytes(32), 0.7, presence=0.5, frequency=0.2, repetition=1.1, bias=((5, 1.0),))
        shaper = Shaper(settings, range(500), vocab, None)
        for token in range(300, 800):
            shaper.push(token)
        for name, how, shape in (("plain", Sampler(bytes(32), 0.7), None), ("penalties", settings, shaper)):
            took = _micros(partial(choose, row, 3, how, shape), 20)
            say(f"shaped_{name}_{vocab}", took, "us/token", n=5, note="500 ids of prompt, 500 of answer")
        pieces = invented_pieces(vocab - 1)
        began = time.process_time()
        masks = Masks(Vocabulary(vocab, pieces, (vocab - 1,)))
        say(f"grammar_vocabulary_{vocab}", (time.process_time() - began) * 1e3, "ms", n=1, note="once per model")
        fresh, kept, dearest = _masks(masks, pieces)
        say(f"grammar_new_state_{vocab}", fresh, "us", note="median over the states of an answer")
        say(f"grammar_dearest_state_{vocab}", dearest, "us", n=1, note="the first string: once per model")
        say(f"grammar_kept_state_{vocab}", kept, "us", note="a state that was met before, by any request")


def invented_pieces(count: int) -> list[bytes]:
    """All bytes, what JSON joins, and words: as a byte-level vocabulary has them."""
    joined = ['{"', '":', '": ', '", ', '",', '"}', '": "', "true", "null", "12", ' "', "\n  "]
    pieces = [bytes([i]) for i in range(256)] + [text.encode() for text in joined]
    rng = np.random.default_rng(1)
    letters = np.frombuffer(b"etaoinshrdlu", np.uint8)
    words = {(b" " * (n % 2) + rng.choice(letters, 2 + n % 9).tobytes()) for n in range(3 * count)}
    return [*pieces, *sorted(words - set(pieces), key=len)][:count]


def _masks(masks: Masks, pieces: list[bytes]) -> tuple[float, float, float]:
    """Microseconds of a new state's mask, of a known one's, and of the dearest."""
    field = {"type": "string", "maxLength": 200}
    person = {"type": "object", "properties": {"name": field, "age": {"type": "integer"}, "tags": {"type": "array"}}}
    text = b'{"name": "tale and tone", "age": 12, "tags": ["rest", 12, {"ton": null}], "end": true}'
    longest = {piece: i for i, piece in enumerate(pieces) if len(piece) < 8}
    took: list[list[float]] = [[], []]
    for times in took:
        guide, at = masks.guide(json.dumps(person).encode()), 0
        while at < len(text):
            size = next(n for n in range(7, 0, -1) if text[at : at + n] in longest)
            began = time.process_time()
            guide.mask()
            times.append((time.process_time() - began) * 1e6)
            guide.advance(longest[text[at : at + size]])
            at += size
    return statistics.median(took[0]), statistics.median(took[1]), max(took[0])


def _micros(call: Callable[[], object], times: int = 100) -> float:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            call()
        took.append((time.perf_counter() - began) / times)
    return statistics.median(took) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a check that it runs")
    rounds = 3 if parser.parse_args().quick else 15
    with tempfile.TemporaryDirectory() as folder:
        spec = tiny_llama.write_chat(Path(folder), size=tiny_llama.CHAT)
        uvloop.run(overhead(spec, Path(folder), rounds))
        uvloop.run(lifecycle(spec, Path(folder)))
    sampler_costs()
    shaping_costs()


if __name__ == "__main__":
    main()
