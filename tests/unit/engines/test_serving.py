"""How the engine's loop shares its time: turns, joined writes, and never a token that waits behind a slow step."""

import os
from collections.abc import Iterator

import pytest

from lading_node.engines import serving, wire
from lading_node.engines.generation import Generation, Steps
from lading_node.engines.load import Loaded, load
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
