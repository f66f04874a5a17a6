"""Work tokens: what they spell, and that a task's stream is one stream however it is cut, resumed or budgeted."""

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_node.engines.port import Failed, Finished, Generate, Run, Score, Scored, Started
from lading_node.engines.tasks import PORTION, Budget, Charge, Emission, TaskScore, TaskWork
from lading_protocol.errors import BadMessage
from lading_protocol.messages import CallRequest, Streamed
from lading_protocol.pricing import prompt_bound, worst_case
from lading_protocol.work import FUEL, MODEL, id_bytes, task_prompt, text_bytes, text_ids

EMISSIONS = st.lists(
    st.one_of(
        st.text(max_size=20).map(str.encode),
        st.builds(Charge, st.sampled_from([FUEL, MODEL]), st.integers(0, 9)),
    ),
    max_size=8,
)
CONTEXT = 1 << 20


class Play:
    """A task that says what it was given, and remembers how much budget it saw and whether it was closed."""

    def __init__(self, emissions: list[Emission]) -> None:
        self.emissions = emissions
        self.seen: list[int] = []
        self.closed = 0

    def __call__(self, request: Streamed, budget: Budget) -> Iterator[Emission]:
        try:
            for emission in self.emissions:
                self.seen.append(budget.left)
                yield emission
        finally:
            self.closed += 1


def drive(work: Any) -> list[Any]:
    events = []
    while not work.done:
        work.step()
        events += work.take()
    return events


def generate(emissions: list[Emission], most: int, emitted: tuple[int, ...] = ()) -> tuple[tuple[int, ...], str, Any]:
    """Ids, text and the last event."""
    play = Play(emissions)
    events = drive(TaskWork(play, Generate("a", CallRequest("do", b"{}", most), emitted), CONTEXT))
    assert isinstance(events[0], Started)
    runs = [event for event in events if isinstance(event, Run)]
    ids: tuple[int, ...] = ()
    for run in runs:
        assert run.first == len(emitted) + len(ids)
        assert 0 < len(run.ids) <= PORTION
        ids += run.ids
    assert play.closed == 1
    return ids, "".join(run.text for run in runs), events[-1]


@given(st.binary(max_size=100))
def test_text_ids_spell_their_bytes_and_no_id_spells_nothing(data: bytes) -> None:
    ids = text_ids(data)
    assert text_bytes(ids) == data
    assert len(ids) == -(-len(data) // 3)
    assert all(id_bytes(token) for token in ids)
    assert text_bytes([*ids, FUEL, MODEL]) == data


@given(st.integers(0, 2**32 - 1))
def test_an_id_is_a_work_token_in_one_way_only(token: int) -> None:
    try:
        data = id_bytes(token)
    except BadMessage:
        return
    assert token in (FUEL, MODEL) if not data else text_ids(data) == [token]


@given(st.text(min_size=1, max_size=64), st.binary(max_size=300), st.integers(1, 2**17), st.integers(1, 500))
def test_a_call_never_bills_beyond_its_worst_case(operation: str, given_: bytes, most: int, context: int) -> None:
    request = CallRequest(operation, given_, most)
    assert prompt_bound(request) == len(task_prompt(request))
    assert worst_case(request, context) == (min(len(task_prompt(request)), context), min(most, context))


@given(EMISSIONS, st.integers(1, 80), st.data())
def test_a_stream_is_the_same_from_wherever_it_goes_on(
    emissions: list[Emission], most: int, data: st.DataObject
) -> None:
    ids, text, end = generate(emissions, most)
    assert len(ids) <= most
    assert isinstance(end, Finished)
    cut = data.draw(st.integers(0, len(ids)))
    rest, tail, again = generate(emissions, most, ids[:cut])
    assert ids[:cut] + rest == ids
    assert text.endswith(tail)
    assert again == end
    whole = text_bytes(ids)
    assert text == whole.decode(errors="replace") if end.finish == "stop" else True


@given(EMISSIONS, st.integers(1, 80), st.data())
def test_other_ids_are_refused_and_score_infinitely(emissions: list[Emission], most: int, data: st.DataObject) -> None:
    ids, _, end = generate(emissions, most)
    request = CallRequest("do", b"{}", most)
    scored = drive(TaskScore(Play(emissions), Score("s", request, ids), CONTEXT))[-1]
    assert isinstance(scored, Scored)
    assert (scored.margins, scored.finish, scored.ended) == ((0.0,) * len(ids), end.finish, len(ids))
    if not ids:
        return
    at = data.draw(st.integers(0, len(ids) - 1))
    other = (*ids[:at], ids[at] ^ 1, *ids[at + 1 :])
    *_, refused = drive(TaskWork(Play(emissions), Generate("a", request, other), CONTEXT))
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_request"
    wrong = drive(TaskScore(Play(emissions), Score("s", request, other), CONTEXT))[-1]
    assert [n for n, margin in enumerate(wrong.margins) if margin == inf] == [at]


def test_a_task_sees_what_is_left_and_is_ended_at_its_budget() -> None:
    play = Play([b"abcdef", Charge(FUEL, 3), b"more", b"never"])
    events = drive(TaskWork(play, Generate("a", CallRequest("do", b"", 6)), CONTEXT))
    assert play.seen == [6, 4, 1]
    assert play.closed == 1
    assert events[-1] == Finished("a", "length", 6)


def test_a_task_that_breaks_ends_in_one_failure() -> None:
    def task(request: Streamed, budget: Budget) -> Iterator[Emission]:
        yield b"so far"
        raise ValueError("no more")

    events = drive(TaskWork(task, Generate("a", CallRequest("do", b"", 60)), CONTEXT))
    assert [type(event) for event in events] == [Started, Run, Failed]
    assert events[-1].code == "agent_error"


@pytest.mark.parametrize("context", [10, 62])
def test_what_does_not_fit_the_context_is_refused_with_numbers(context: int) -> None:
    events = drive(TaskWork(Play([b"x"]), Generate("a", CallRequest("do", b"{}", 62)), context))
    assert [event.code for event in events] == ["context_exceeded"]
    assert str(context) in events[0].message
