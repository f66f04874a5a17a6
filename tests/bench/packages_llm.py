"""Language models: what the engine's process costs a token, and whether two engines say the same.

Part of bench_packages; `rows` prints. Bare is the same model's loop alone in a process, in the same rounds.
"""

import importlib.util
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from integration.engines import chat_agents
from lading_node.core.sampler import choose
from lading_node.engines.child import ChildEngine
from lading_node.engines.model import LanguageModel
from lading_node.engines.port import EngineSpec, Generate, Run
from lading_protocol.messages import ChatRequest, Message, Sampler

from .processes import cpu_seconds
from .report import say

PROMPTS, TOKENS = 80, 80
SPEED_TOKENS = 800
# So hot that the model does not come to an end: what counts is a token, not how a request begins.
HOT = Sampler(bytes(32), 2.0)
Speed = tuple[float, float]


def rows(folder: Path, rounds: int) -> None:
    """`folder` is empty, and the caller's to remove."""
    if importlib.util.find_spec("torch") is None:
        say(
            "same_greedy_tokens",
            None,
            "prompts",
            bar=f">= {PROMPTS}",
            note="torch is not installed (the `torch` extra)",
        )
        return
    torch = chat_agents.torch_chat(folder / "hf")
    for kind, spec, answers in (("llm_onnx", chat_agents.onnx_chat(), 2), ("torch", torch, 1)):
        (folder / kind).mkdir()
        uvloop.run(_overhead(kind, spec, folder / kind, (rounds, answers)))
    _equality(torch, folder)


def _request() -> ChatRequest:
    return ChatRequest((Message("user", "Tell me a story about a fox and a lantern."),), SPEED_TOKENS, HOT)


async def _overhead(kind: str, spec: EngineSpec, scratch: Path, times: tuple[int, int]) -> None:
    """Rounds of so many answers, one after the other; the median over pairs of rounds."""
    rounds, answers = times
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    bare = multiprocessing.get_context("spawn").Process(target=_bare, args=(spec, str(scratch), sys.path, theirs))
    bare.start()
    engine = ChildEngine(spec, scratch)
    pid = (await engine.start()).pid
    pairs: list[tuple[Speed, Speed]] = []
    for i in range(rounds + 1):
        ours.send(answers)
        alone = ours.recv()
        pairs.append((alone, await _through(engine, pid, [f"{i}:{j}" for j in range(answers)])))
    ours.send(None)
    bare.join()
    await engine.stop()
    clocks = (
        (0, "wall", None, "wall clock; the reader shares the machine's cores"),
        (1, "cpu", ">= 0.97 of the reference", "per processor second of the engine's process"),
    )
    for at, clock, bar, note in clocks:
        alone, through = (statistics.median(pair[which][at] for pair in pairs[1:]) for which in (0, 1))
        ratio = statistics.median(pair[1][at] / pair[0][at] for pair in pairs[1:])
        reference = ("the model's bare loop", alone)
        say(
            f"{kind}_tokens_{clock}", through, "token/s", reference=reference, ratio=ratio, bar=bar, n=rounds, note=note
        )


def _bare(spec: EngineSpec, scratch: str, path: list[str], pipe: Any) -> None:
    """A process that runs the bare loop once for every message."""
    sys.path[:] = path
    from lading_node.engines.load import language_model

    model = language_model(spec, Path(scratch))
    request = _request()
    prompt = model.prompt(request.messages)
    while (answers := pipe.recv()) is not None:
        wall, busy, made = time.perf_counter(), time.process_time(), 0
        for _ in range(answers):
            made += len(_answer(model, prompt, request.sampler))
        pipe.send((made / (time.perf_counter() - wall), made / (time.process_time() - busy)))


def _answer(model: LanguageModel, prompt: list[int], sampler: Sampler) -> list[int]:
    state = model.open(prompt, SPEED_TOKENS)
    out = [choose(state.logits(), 0, sampler)]
    while out[-1] not in model.ends and len(out) < SPEED_TOKENS:
        state.append(out[-1])
        out.append(choose(state.logits(), len(out), sampler))
    return out


async def _through(engine: ChildEngine, pid: int, ids: list[str]) -> Speed:
    wall, busy, made = time.perf_counter(), cpu_seconds(pid), 0
    for id in ids:
        async for event in engine.generate(Generate(id, _request())):
            if isinstance(event, Run):
                made += len(event.ids)
    return made / (time.perf_counter() - wall), made / (cpu_seconds(pid) - busy)


def _equality(torch: EngineSpec, scratch: Path) -> None:
    from chat_recipe import measure

    from lading_node.engines.load import language_model

    models = [language_model(spec, scratch) for spec in (torch, chat_agents.onnx_chat())]
    how = measure.sampler(0, 0.0)
    asks = chat_agents.prompts(PROMPTS)
    ours, theirs = ([measure.answer(model, ask, how, TOKENS) for ask in asks] for model in models)
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    made = sum(map(len, ours))
    note = f"greedy f32 answers of torch that are those of llm-onnx, {made:,} tokens in all; llama.cpp is not installed"
    say("same_greedy_tokens", equal, "prompts", bar=f">= {PROMPTS}", n=PROMPTS, note=note)
