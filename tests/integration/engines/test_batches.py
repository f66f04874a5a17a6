"""Several streams by one forward pass of the torch engine: what each gives is what it gives alone, whoever else comes,
goes, fails or is broken; and audits find it honest. In this process, through the engine's own loop.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from integration.engines import chat_agents, tiny_torch
from integration.engines.asking import Answer, ask
from lading_node.engines import wire
from lading_node.engines.errors import EngineError
from lading_node.engines.load import Loaded, language_model, load
from lading_node.engines.model import LanguageModel
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Run, Score, Scored
from lading_node.engines.serving import Runner
from lading_protocol.audit import EXACT_MARGIN, TOLERANCES, Rerun, Tolerance, Verdict, judge
from lading_protocol.calibration import LEAST_CHUNK
from lading_protocol.messages import ChatRequest, Message, RichChat, Sampler
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import SKETCH_BYTES

IDS = [0, 3, 7, 290, 12, 8, 4, 100, 55, 200, 31, 9]
STREAMS = 16
HOWS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 0.0},
    {"temperature": 1.0, "top_k": 20, "min_p": 0.02},
    {"temperature": 0.9, "presence": 0.8, "frequency": 0.3, "repetition": 1.2},
)
FORM = json.dumps({"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 2, "maxItems": 4})
# Of bf16; as tests/gpu/test_audits_on_gpu.py has them.
WIDE = Tolerance(margin=0.3, relative=0.0, chunk=0.05, prompt=0.2)
EXACT = msgspec.structs.replace(TOLERANCES["onnx-f32-cpu"], margin=EXACT_MARGIN)


@pytest.fixture(scope="module")
def torch() -> Any:
    tiny_torch.require_torch()
    import torch

    return torch


@pytest.fixture(scope="module")
def spec(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    return msgspec.structs.replace(chat_agents.torch_chat(tmp_path_factory.mktemp("hf")), slots=STREAMS)


@pytest.fixture(scope="module")
def precise(spec: EngineSpec) -> Callable[[str], Loaded]:
    made: dict[str, Loaded] = {}

    def loaded(precision: str) -> Loaded:
        if precision not in made:
            made[precision] = load(msgspec.structs.replace(spec, precision=precision), Path())
        return made[precision]

    return loaded


@pytest.fixture
def exact(precise: Callable[[str], Loaded]) -> Iterator[Loaded]:
    """In f32; no stack outlives the streams that were in it."""
    yield precise("f32")
    assert stacks() == []


def stacks() -> list[Any]:
    """Those that are alive, without the collector's help."""
    import gc

    from lading_node.engines.torch_stack import Stack

    return [one for one in gc.get_objects() if type(one) is Stack]


class Box(Outbox):
    """Keeps what the loop says."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.said: list[wire.FromEngine] = []

    def put(self, events: Any) -> None:
        self.said += events

    def flush(self) -> None:
        pass


class Loop:
    """The engine's loop, driven by hand: `turn` goes on until it would look at its pipes."""

    def __init__(self, loaded: Loaded, orders: Sequence[Generate] = ()) -> None:
        self._ends = os.pipe()
        self._box = Box()
        self.runner = Runner(loaded, STREAMS, 0.0, self._ends[0], self._box)
        for one in orders:
            self.runner._admit(one)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.runner._advance()
            self.runner._flush()

    def end(self) -> dict[str, Answer]:
        while self.runner._turns:
            self.turn()
        for end in self._ends:
            os.close(end)
        answers: dict[str, Answer] = {}
        for event in self._box.said:
            assert not isinstance(event, wire.Pong | wire.Vector | Scored)
            answers.setdefault(event.id, Answer(event.first if isinstance(event, Run) else 0))
            if isinstance(event, Run) and not answers[event.id].ids:
                answers[event.id]._first = event.first
            answers[event.id].add(event)
        return answers


def talk(number: int) -> tuple[Message, ...]:
    """A held-out conversation of the chat model's that asks for a story at last, as only those have long answers."""
    from chat_recipe import corpus

    rng = Random(f"batches {number}")
    while "story" not in (said := corpus.conversation(rng)[:-1])[-1][1]:
        pass
    return tuple(Message(role, words) for role, words in said)


def order(number: int, emitted: Sequence[int] = ()) -> Generate:
    """Mixed prompts, lengths and samplers; every fifth tells its chances, one writes by a grammar."""
    how = HOWS[number % len(HOWS)] | ({"grammar": FORM.encode()} if number == 11 else {})
    sampler = Sampler(bytes([number]) * 32, **how)
    request: ChatRequest = ChatRequest(talk(number), 20 + 9 * (number % 6), sampler)
    if number % 5 == 1:
        request = RichChat(request.messages, request.max_tokens, sampler, logprobs=3)
    return Generate(str(number), request, tuple(emitted), job=bytes([number, 1] * 16))


def alone(loaded: Loaded, one: Generate) -> Answer:
    return Loop(loaded, [one]).end()[one.id]


def agrees(one: Answer, other: Answer) -> None:
    assert isinstance(one.end, Finished), one.end
    assert (one.ids, one.text, one.end) == (other.ids, other.text, other.end)
    assert max(errors(one.sketch, other.sketch)) < LEAST_CHUNK
    assert max(errors(one.prompt_sketch, other.prompt_sketch)) < LEAST_CHUNK
    for mine, theirs in zip(one.chances, other.chances, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def widest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every pass that is made from now on."""
    from lading_node.engines.torch_lm import TorchLanguageModel

    found: list[int] = []
    forward = TorchLanguageModel.forward

    def watched(self: Any, ids: Sequence[Sequence[int]], *given: Any, **more: Any) -> Any:
        found.append(len(ids))
        return forward(self, ids, *given, **more)

    monkeypatch.setattr(TorchLanguageModel, "forward", watched)
    return found


def test_in_f32_every_answer_is_the_one_given_alone(exact: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin at different times, and end as they come to it."""
    orders = [order(number) for number in range(STREAMS)]
    expected = {one.id: alone(exact, one) for one in orders}
    passes = widest(monkeypatch)
    loop = Loop(exact, orders[:5])
    for one in orders[5:]:
        loop.turn(5)
        loop.runner._admit(one)
    found = loop.end()
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        agrees(answer, expected[id])
    assert max(passes) > 6
    assert sum(len(answer.ids) for answer in found.values()) > 3 * len(passes)
    assert json.loads(found["11"].text) if found["11"].end.finish == "stop" else True  # type: ignore[union-attr]


def test_whoever_leaves_or_takes_over_an_answer_does_not_touch_the_others(exact: Loaded) -> None:
    """Cancelled, stopped for another's sake (which is a cancel, too) and resumed: at any token."""
    expected = [alone(exact, order(number)) for number in range(6)]
    loop = Loop(exact, [order(number) for number in range(4)])
    loop.turn(20)
    loop.runner._cancel("1")
    loop.turn(3)
    loop.runner._admit(order(4, expected[4].ids[:9]))
    loop.turn(4)
    loop.runner._cancel("2")
    loop.runner._admit(order(5, expected[5].ids[:1]))
    found = loop.end()
    for number in (0, 3):
        agrees(found[str(number)], expected[number])
    for number in (4, 5):
        begun = len(expected[number].ids) - len(found[str(number)].ids)
        assert begun == (9 if number == 4 else 1)
        assert found[str(number)].ids == expected[number].ids[begun:]
    for number in (1, 2):
        part = found[str(number)]
        assert part.end == Finished(str(number), "cancelled", len(part.ids))
        assert part.ids == expected[number].ids[: len(part.ids)]
        assert part.ids
    # What was stopped in the middle goes on by itself, beside others.
    rest = Loop(exact, [order(number, found[str(number)].ids) for number in (1, 2)]).end()
    for number in (1, 2):
        assert found[str(number)].ids + rest[str(number)].ids == expected[number].ids


def test_who_waits_for_its_reader_holds_nobody_elses_memory(exact: Loaded) -> None:
    held = msgspec.structs.replace(order(0), ahead=4)
    loop = Loop(exact, [held, order(5), order(10)])
    loop.turn(25)
    (waiting,) = [turn.work for turn in loop.runner._turns if turn.id == "0"]
    assert waiting.made == 4
    assert sorted(stack.rows for stack in stacks()) == [1, 2]
    del waiting
    for taken in range(4, 60, 4):
        loop.turn(4)
        for turn in loop.runner._turns:
            turn.taken = taken if turn.id == "0" else 0
    found = loop.end()
    for number in (0, 5, 10):
        agrees(found[str(number)], alone(exact, order(number)))


def audited(loaded: Loaded, one: Generate, answer: Answer, limits: Tolerance) -> tuple[Any, tuple[float, ...]]:
    """By a score, as an auditor makes it, and the protocol's judge."""
    work = loaded.begin(Score("s", one.request, tuple(answer.ids), job=one.job, exact=limits is EXACT))
    work.step()
    (scored,) = work.take()
    assert isinstance(scored, Scored), scored
    assert answer.started is not None
    apart = errors(scored.sketch, answer.prompt_sketch + answer.sketch)
    before = len(scored.sketch) // SKETCH_BYTES - len(answer.ids)
    chunks = chunk_means(apart[before:])
    rerun = Rerun(scored.prompt_hash, scored.prompt_tokens, scored.margins, chunks=chunks, prompt=tuple(apart[:before]))
    return judge(rerun, answer.started.prompt_hash, answer.started.prompt_tokens, limits), chunks


@pytest.mark.parametrize("streams", [4, STREAMS])
@pytest.mark.parametrize(("precision", "limits"), [("f32", EXACT), ("bf16", WIDE)])
def test_an_honest_host_of_several_streams_is_honest(
    precise: Callable[[str], Loaded], precision: str, limits: Tolerance, streams: int
) -> None:
    """And in bf16, where rounding shows, no further off than one that serves them one after the other."""
    loaded = precise(precision)
    beside, apart = [], []
    for first in range(0, STREAMS, streams):
        orders = [order(number) for number in range(first, first + streams)]
        for id, answer in Loop(loaded, orders).end().items():
            judged, chunks = audited(loaded, order(int(id)), answer, limits)
            assert (judged.verdict, judged.suspect) == (Verdict.HONEST, False), judged
            beside += chunks
            apart += audited(loaded, order(int(id)), alone(loaded, order(int(id))), limits)[1]
    assert np.mean(beside) < 1.25 * np.mean(apart) or precision == "f32"


@pytest.mark.parametrize("architecture", tiny_torch.KINDS)
def test_every_architecture_takes_them_together_or_says_that_it_cannot(
    torch: Any, tmp_path: Path, architecture: str
) -> None:
    model = language_model(tiny_torch.write_architecture(tmp_path, architecture)[0], Path())
    if "sliding_window" in tiny_torch.KINDS[architecture]:
        assert model.advance is None
        return
    assert model.advance is not None
    whole = model.rows(IDS, len(IDS))
    contexts = [model.open(IDS[:at], 20) for at in (1, 4, 6)]
    for step in range(6):
        assert model.advance(contexts, [IDS[at + step] for at in (1, 4, 6)]) == [None] * 3
        for context, at in zip(contexts, (1, 4, 6), strict=True):
            assert np.abs(context.logits() - whole[at + step]).max() < 2e-5
            assert context.states().shape == (1, model.states)


TURNINGS: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 2.0},
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
}


@pytest.mark.parametrize("turning", TURNINGS)
def test_angles_that_follow_the_longest_sequence_take_each_alone(torch: Any, tmp_path: Path, turning: str) -> None:
    """One long stream would turn the positions of the others otherwise."""
    good = tiny_torch.write_chat(tmp_path)
    scaling = TURNINGS[turning] | {"rope_type": turning, "original_max_position_embeddings": 64}
    stated = tiny_torch.config(tmp_path, {"rope_scaling": scaling, "rope_theta": 10000.0})
    spec = msgspec.structs.replace(good, files=(stated, *(one for one in good.files if one.role != "config")))
    assert language_model(spec, Path()).advance is None


@pytest.fixture
def tiny(torch: Any, tmp_path: Path) -> LanguageModel:
    return language_model(tiny_torch.write_chat(tmp_path), Path())


def advanced(model: LanguageModel, contexts: Sequence[Any], tokens: Sequence[int]) -> list[Exception | None]:
    assert model.advance is not None
    return model.advance(contexts, tokens)


def test_no_row_hangs_on_what_is_in_another(torch: Any, tiny: LanguageModel) -> None:
    """Not a bit of it, though another is full of what is no number; and whoever comes in its place finds it clean."""

    def run(poisoned: bool) -> tuple[list[Any], list[Any]]:
        contexts: list[Any] = [tiny.open(IDS[:at], 20) for at in (2, 11, 5)]
        if poisoned:
            with torch.inference_mode():
                for layer in contexts[1].part.cache.layers:
                    layer.keys.fill_(float("nan"))
                    layer.values.fill_(float("inf"))
        for token in IDS[:4]:
            assert advanced(tiny, contexts, [token] * 3) == [None] * 3
        assert np.isfinite(contexts[1].logits()).all() is not poisoned
        others = [contexts[0], tiny.open(IDS[:3], 20), contexts[2]]
        del contexts
        for token in IDS[:4]:
            assert advanced(tiny, others, [token] * 3) == [None] * 3
        return [one.logits() for one in others], [one.states() for one in others]

    for clean, beside in zip(run(False), run(True), strict=True):
        assert np.array_equal(clean, beside)
        assert np.isfinite(beside).all()


def test_columns_are_added_as_they_are_needed(tiny: LanguageModel) -> None:
    from lading_node.engines.torch_stack import BLOCK

    contexts: list[Any] = [tiny.open(IDS[:at], 200) for at in (3, 9)]
    for token in range(2, 2 * BLOCK + 4):
        assert advanced(tiny, contexts, [token, token]) == [None, None]
    stack = contexts[0].part.cache
    assert (stack.end, stack.width) == (9 + 2 * BLOCK + 2, 3 * BLOCK)
    expected = tiny.rows([*IDS[:3], *range(2, 2 * BLOCK + 4)], 1)[0]
    assert np.abs(contexts[0].logits() - expected).max() < 2e-5


def test_a_short_stream_is_not_made_as_wide_as_a_long_one(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from lading_node.engines import torch_lm

    monkeypatch.setattr(torch_lm, "SHORT", 3)
    contexts: list[Any] = [tiny.open((IDS * 10)[:at], 20) for at in (3, 4, 90, 100, 20)]
    assert advanced(tiny, contexts, [5] * 5) == [None] * 5
    (short, long) = contexts[0].part.cache, contexts[2].part.cache
    assert [context.part.cache is short for context in contexts] == [True, True, False, False, False]
    assert [context.part.cache is long for context in contexts] == [False, False, True, True, False]
    assert [context.part.cache.rows for context in contexts] == [2, 2, 2, 2, 1]
    assert [context.part.length for context in contexts] == [4, 5, 91, 101, 21]


@pytest.mark.parametrize(("most", "reached"), [(1, 1), (3, 2)])
def test_memory_for_fewer_is_used_for_fewer(
    exact: Loaded, monkeypatch: pytest.MonkeyPatch, most: int, reached: int
) -> None:
    """A pass that does not fit fails no stream: they go on in smaller ones, in the end one by one."""
    from lading_node.engines.torch_lm import TorchLanguageModel

    forward, tried = TorchLanguageModel.forward, list[int]()

    def small(self: Any, ids: Sequence[Sequence[int]], *given: Any, **more: Any) -> Any:
        tried.append(len(ids))
        if len(ids) > most:
            raise EngineError("resource_exhausted", "The model does not fit into the memory that the engine has.")
        return forward(self, ids, *given, **more)

    expected = [alone(exact, order(number)) for number in range(8)]
    monkeypatch.setattr(TorchLanguageModel, "forward", small)
    found = Loop(exact, [order(number) for number in range(8)]).end()
    for number in range(8):
        agrees(found[str(number)], expected[number])
    assert sum(rows > most for rows in tried) < 12
    assert sum(rows == reached for rows in tried) > 20


def test_what_cannot_be_chosen_from_ends_its_own_stream(torch: Any, exact: Loaded) -> None:
    loop = Loop(exact, [order(number) for number in (0, 5, 10)])
    loop.turn(20)
    (broken,) = [turn.work._state for turn in loop.runner._turns if turn.id == "5"]  # type: ignore[attr-defined]
    stack, row, _ = broken.part
    with torch.inference_mode():
        stack.layers[0].values[row] = float("nan")
    del broken, stack
    found = loop.end()
    end = found["5"].end
    assert isinstance(end, Failed)
    assert end.code == "agent_error"
    for number in (0, 10):
        agrees(found[str(number)], alone(exact, order(number)))


def test_memory_of_streams_that_ended_is_free_while_others_go_on(exact: Loaded) -> None:
    loop = Loop(exact, [order(number) for number in (3, 4, 5, 9)])
    seen = set()
    while (before := len(loop.runner._turns)) > 1:
        loop.turn()
        if stacks() and len(loop.runner._turns) == before:
            assert [stack.rows for stack in stacks()] == [before]
            seen.add(before)
    assert {2, 4} <= seen
    loop.turn()
    assert [stack.rows for stack in stacks()] == [1]
    loop.end()


def test_answers_through_the_process_are_those_given_alone(spec: EngineSpec, tmp_path: Path) -> None:
    import asyncio

    from integration.engines.asking import collect
    from lading_node.engines.child import ChildEngine

    async def main() -> None:
        engine = ChildEngine(spec, tmp_path)
        await engine.start()
        try:
            orders = [order(number) for number in range(8)]
            single = [await collect(engine, one) for one in orders]
            several = await asyncio.gather(*(collect(engine, one) for one in orders))
            for one, other in zip(single, several, strict=True):
                agrees(other, one)
            slow = msgspec.structs.replace(order(0), id="slow", request=ask(60))
            gone = asyncio.ensure_future(collect(engine, slow))
            rest = [asyncio.ensure_future(collect(engine, one)) for one in orders]
            await asyncio.sleep(0.05)
            engine.cancel("slow")
            cancelled = await gone
            assert isinstance(cancelled.end, Finished)
            for one, other in zip(single, await asyncio.gather(*rest), strict=True):
                agrees(other, one)
        finally:
            await engine.stop()

    asyncio.run(main())
