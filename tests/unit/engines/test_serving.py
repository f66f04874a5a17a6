"""How the engine's loop shares its time: turns, joined writes, and never a token that waits behind a slow step."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lading_node.engines import serving, wire
from lading_node.engines.generation import Generation, Steps
from lading_node.engines.load import Loaded, Order, load
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_node.engines.serving import Runner
from lading_node.engines.toy import ToyModel
from lading_protocol.framing import Frames
from lading_protocol.messages import ChatRequest, Message, Sampler

Pipes = tuple[int, int, int, int]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Read and write ends to the engine, then from it."""
    ends = (*os.pipe(), *os.pipe())
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


@pytest.fixture
def toy(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(EngineSpec("memory", context=4000), tmp_path_factory.mktemp("toy"))


def order(id: str = "a", tokens: int = 40, ahead: int = 0) -> Generate:
    return Generate(id, ChatRequest((Message("user", "hi"),), tokens, Sampler(bytes(32), 0.0)), (), ahead)


def serve(loaded: Loaded, pipes: Pipes, *messages: wire.ToEngine, join_s: float = 10.0) -> list[wire.FromEngine]:
    """All that an engine says to messages that lie in its pipe, followed by silence and the end of the parent."""
    to_read, to_write, from_read, from_write = pipes
    os.write(to_write, b"".join(map(wire.encode, messages)))
    os.close(to_write)
    runner = Runner(loaded, 4, join_s, to_read, Outbox(from_write))
    runner._listen()
    while runner._turns:
        runner._advance()
        runner._flush()
    runner.serve()
    os.close(from_write)
    data = b""
    while part := os.read(from_read, 1 << 20):
        data += part
    return [wire.from_engine.decode(payload) for payload in Frames().feed(data)]


def test_tokens_of_a_fast_model_are_joined_but_the_first_is_not_kept_waiting(toy: Loaded, pipes: Pipes) -> None:
    events = serve(toy, pipes, order())
    kinds = [type(event) for event in events]
    assert kinds == [Started, Run, Run, Finished]
    runs = [event for event in events if isinstance(event, Run)]
    assert len(runs[0].ids) == 1
    assert [run.first for run in runs] == [0, 1]


def test_every_token_is_written_when_steps_take_as_long_as_the_joining(
    toy: Loaded, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves 3 ms a look; joining waits for 4 ms, so half of it has always passed."""
    now = iter(range(10**6))
    monkeypatch.setattr(serving, "clock", lambda: next(now) * 0.003)
    events = serve(toy, pipes, order(), join_s=0.004)
    assert all(len(event.ids) == 1 for event in events if isinstance(event, Run))


def test_requests_take_turns_token_by_token(toy: Loaded, pipes: Pipes) -> None:
    events = serve(toy, pipes, order("a"), order("b"), join_s=0.0)
    runs = [event.id for event in events if isinstance(event, Run)]
    assert runs[:8] in (["a", "b"] * 4, ["b", "a"] * 4)


def test_cancel_tells_what_was_made_before_it(toy: Loaded, pipes: Pipes) -> None:
    events = serve(toy, pipes, order("a"), wire.Cancel("a"), wire.Cancel("a"))
    assert events == [Finished("a", "cancelled", 0)]


def test_the_fifth_request_of_four_slots_is_busy_and_pings_are_answered(toy: Loaded, pipes: Pipes) -> None:
    events = serve(toy, pipes, *(order(str(i), 2) for i in range(5)), wire.Ping())
    assert [event.id for event in events if isinstance(event, Failed)] == ["4"]
    assert wire.Pong() in events


def test_a_model_that_breaks_ends_its_own_request_only(pipes: Pipes) -> None:
    class Broken(ToyModel):
        def prompt(self, messages: object) -> list[int]:
            raise RuntimeError("no\nluck")

    toy, broken = ToyModel("toy"), Broken("toy")

    def begin(asked: object) -> Generation:
        assert isinstance(asked, Generate)
        return Generation(broken if asked.id == "broken" else toy, asked, 4000)

    events = serve(Loaded("x", "1", begin), pipes, order("broken"), order("fine"))
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert (failed.id, failed.code) == ("broken", "engine_error")
    assert "no luck" in failed.message
    assert any(isinstance(event, Finished) and event.id == "fine" for event in events)


def test_steps_end_with_their_last_event() -> None:
    work = Steps(iter([Scored("a", 1, bytes(32), (), "", 0)]))
    assert work.step()
    assert work.done
    assert len(work.take()) == 1
    assert work.take() == []


def test_scoring_takes_a_slot_for_one_step(toy: Loaded, pipes: Pipes) -> None:
    request = order(tokens=5).request
    (made,) = serve(toy, pipes, Score("s", request, (1, 2)))
    assert isinstance(made, Scored)
    assert len(made.margins) == 2


class Joined(ToyModel):
    """Takes all contexts through one pass, and counts how many went through each."""

    def __init__(self) -> None:
        super().__init__("toy")
        self.passes: list[int] = []
        self.fault: Exception | None = None

    def advance(self, contexts: Sequence[Any], tokens: Sequence[int]) -> list[Exception | None]:  # type: ignore[override]
        self.passes.append(len(contexts))
        for context, token in zip(contexts, tokens, strict=True):
            context.append(token)
        return [self.fault, *[None] * (len(contexts) - 1)]


@pytest.fixture
def joined() -> Joined:
    return Joined()


def loaded(model: Joined) -> Loaded:
    def begin(asked: Order) -> Generation | Steps:
        if isinstance(asked, Generate):
            return Generation(model, asked, 4000)
        return Steps(iter([Scored(asked.id, 1, bytes(32), (), "", 0)]))

    return Loaded("x", "1", begin, advance=model.advance)


def told(events: list[wire.FromEngine]) -> dict[str, tuple[list[int], wire.FromEngine]]:
    """Of each request the ids of its runs, and its end."""
    ids: dict[str, list[int]] = {}
    ends: dict[str, wire.FromEngine] = {}
    for event in events:
        if isinstance(event, Run):
            ids.setdefault(event.id, []).extend(event.ids)
        elif isinstance(event, Finished | Failed):
            ends[event.id] = event
    return {id: (ids.get(id, []), end) for id, end in ends.items()}


def test_what_is_midway_goes_on_by_one_pass(joined: Joined, toy: Loaded, pipes: Pipes) -> None:
    found = told(serve(loaded(joined), pipes, *(order(id) for id in "abc")))
    assert set(joined.passes) == {3}
    assert len(joined.passes) <= 40
    answers = [ids for ids, _ in found.values()]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) > 20


def test_one_alone_takes_no_pass_for_several(joined: Joined, pipes: Pipes) -> None:
    serve(loaded(joined), pipes, order())
    assert joined.passes == []


def test_who_comes_and_who_goes_does_not_change_the_others(joined: Joined, pipes: Pipes) -> None:
    """Of different lengths, one cancelled, one that begins in the middle of its answer, a score in between."""
    ((whole, _),) = told(serve(loaded(Joined()), pipes, order("whole"))).values()
    begun = Generate("begun", order().request, tuple(whole[:7]))
    news = (order("whole"), order("short", 5), begun, order("gone"), wire.Cancel("gone"))
    with_pipes = (*os.pipe(), *os.pipe())
    found = told(serve(loaded(joined), with_pipes, *news))
    assert found["whole"][0] == whole
    assert found["short"][0] == whole[:5]
    assert found["begun"][0] == whole[7:]
    assert found["gone"] == ([], Finished("gone", "cancelled", 0))
    assert max(joined.passes) == 3


def test_who_may_not_go_ahead_of_its_reader_is_left_out(joined: Joined, pipes: Pipes) -> None:
    to_read, to_write, _, from_write = pipes
    runner = Runner(loaded(joined), 4, 0.0, to_read, Outbox(from_write))
    for one in (order("a"), order("b"), order("held", ahead=3)):
        runner._admit(one)
    for _ in range(60):
        runner._advance()
        runner._flush()
    assert [turn.id for turn in runner._turns] == ["held"]
    assert runner._turns[0].work.made == 3
    assert 3 in joined.passes
    assert joined.passes[-1] == 2
    os.write(to_write, wire.encode(wire.Taken("held", 3)))
    runner._listen()
    while runner._advance():
        pass
    assert runner._turns[0].work.made == 6


def test_between_two_tokens_of_the_others_a_newcomer_takes_one_step(joined: Joined, pipes: Pipes) -> None:
    """A long prompt is one; so nobody waits for more of them than before."""
    steps: list[str] = []

    class Watched(Joined):
        def open(self, ids: Sequence[int], room: int) -> Any:
            steps.append("prefill")
            return super().open(ids, room)

        def advance(self, contexts: Sequence[Any], tokens: Sequence[int]) -> list[Exception | None]:  # type: ignore[override]
            steps.append("pass")
            return super().advance(contexts, tokens)

    runner = Runner(loaded(Watched()), 4, 0.0, pipes[0], Outbox(pipes[3]))
    for id in "ab":
        runner._admit(order(id))
    for _ in range(6):
        runner._advance()
    runner._admit(order("c"))
    steps.clear()
    for _ in range(6):
        runner._advance()
    assert steps.count("prefill") == 1
    assert steps.index("prefill") in (1, 2)


def test_a_fault_of_one_is_that_of_no_other(joined: Joined, pipes: Pipes) -> None:
    joined.fault = MemoryError()
    found = told(serve(loaded(joined), pipes, order("a"), order("b"), order("c")))
    ends = [end for _, end in found.values()]
    assert [end.code for end in ends if isinstance(end, Failed)] == ["resource_exhausted"] * 2
    (whole,) = [ids for ids, end in found.values() if isinstance(end, Finished)]
    assert len(whole) > 20  # it was alone at last


def test_a_pass_that_breaks_altogether_ends_those_that_it_was_for(joined: Joined, pipes: Pipes) -> None:
    class Broken(Joined):
        def advance(self, contexts: Sequence[Any], tokens: Sequence[int]) -> list[Exception | None]:  # type: ignore[override]
            raise RuntimeError("no\nluck")

    found = told(serve(loaded(Broken()), pipes, order("a"), order("b"), wire.Ping()))
    assert {end.code for _, end in found.values() if isinstance(end, Failed)} == {"engine_error"}
    assert len(found) == 2
