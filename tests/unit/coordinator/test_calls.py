"""Calls in an answer: found wherever the text is cut, and what is no call stays text, word for word."""

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.core.calls import Argued, Called, CallReader, Said

NAMES = ("weather", "stop")


def heard(text: str, cuts: list[int] | None = None, *, forced: bool = False) -> tuple[str, list[tuple[str, str]]]:
    """The words and the calls, each with its arguments."""
    reader = CallReader(NAMES, forced=forced)
    edges = [0, *sorted(cuts or []), len(text)]
    news = [one for a, b in pairwise(edges) for one in reader.feed(text[a:b])] + reader.close()
    words, calls = "", []
    for one in news:
        match one:
            case Said(more):
                words += more
            case Called(at, name):
                assert at == len(calls)
                calls.append((name, ""))
            case Argued(at, more):
                assert at == len(calls) - 1
                calls[at] = (calls[at][0], calls[at][1] + more)
    assert reader.count == len(calls)
    return words, calls


GOOD = '{"name": "weather", "arguments": {"city": "a}\\"{ü", "more": [{}]}}'
ARGUMENTS = '{"city": "a}\\"{ü", "more": [{}]}'
CASES: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("just words", "just words", []),
    (" \n", " \n", []),
    ("a <tool_cal", "a <tool_cal", []),
    (f"<tool_call>\n{GOOD}\n</tool_call>", "", [("weather", ARGUMENTS)]),
    (f"I look.\n<tool_call>{GOOD}</tool_call>", "I look.\n", [("weather", ARGUMENTS)]),
    (
        f"\n<tool_call>{GOOD}</tool_call>\n<tool_call>{GOOD}</tool_call>\n",
        "",
        [("weather", ARGUMENTS), ("weather", ARGUMENTS)],
    ),
    (f"<tool_call>{GOOD}</tool_call> done", " done", [("weather", ARGUMENTS)]),
    (f"<tool_call>{GOOD}", "", [("weather", ARGUMENTS)]),
    ('<tool_call>{"name": "weather", "arguments": {"city": "a', "", [("weather", '{"city": "a')]),
    ('<tool_call>{"arguments": {"b": 1}, "name": "stop"}</tool_call>', "", [("stop", '{"b":1}')]),
    ('<tool_call>{"name": "stop"}</tool_call>', "", [("stop", "{}")]),
    ('<tool_call>{"name": "stop", "arguments": "{}"}</tool_call>', "", [("stop", "{}")]),
    (
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        [],
    ),
    ("<tool_call>nonsense</tool_call> x", "<tool_call>nonsense</tool_call> x", []),
    ('<tool_call>{"name": "st', '<tool_call>{"name": "st', []),
    ("<tool_call>" + "[" * 1100, "<tool_call>" + "[" * 1100, []),
    ("<tool_call>" + "[" * 300 + "]" * 300, "<tool_call>" + "[" * 300 + "]" * 300, []),
]


@pytest.mark.parametrize(("text", "words", "calls"), CASES, ids=range(len(CASES)))
@given(data=st.data())
def test_calls_are_found_wherever_the_text_is_cut(
    text: str, words: str, calls: list[tuple[str, str]], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert heard(text, cuts) == (words, calls)
    assert heard(text, list(range(len(text)))) == (words, calls)


FORCED: list[tuple[str, str, list[tuple[str, str]]]] = [
    (GOOD, "", [("weather", ARGUMENTS)]),
    ('{"name":"stop","arguments":{}}', "", [("stop", "{}")]),
    ('{"name":"weather","arguments":{"city":"Zür', "", [("weather", '{"city":"Zür')]),
    ("no JSON at all", "no JSON at all", []),
    ("", "", []),
]


@pytest.mark.parametrize(("text", "words", "calls"), FORCED, ids=range(len(FORCED)))
@given(data=st.data())
def test_an_answer_that_is_a_call(text: str, words: str, calls: list[tuple[str, str]], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert heard(text, cuts, forced=True) == (words, calls)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), st.booleans(), st.lists(st.integers(0, 400), max_size=9))
def test_any_arguments_arrive_whole(arguments: dict[str, object], ascii_only: bool, cuts: list[int]) -> None:
    call = json.dumps({"name": "stop", "arguments": arguments}, ensure_ascii=ascii_only)
    if "</tool_call>" in call:
        return
    text = f"<tool_call>\n{call}\n</tool_call>"
    words, calls = heard(text, [min(cut, len(text)) for cut in cuts])
    assert words == ""
    assert [(name, json.loads(given)) for name, given in calls] == [("stop", arguments)]


@given(st.text(alphabet='<tolca_>/{}"\\ nmew:,', max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_cuts_never_matter(text: str, cuts: list[int]) -> None:
    assert heard(text, [min(cut, len(text)) for cut in cuts]) == heard(text)


def test_a_long_answer_takes_linear_time() -> None:
    reader = CallReader(NAMES, forced=False)
    for piece in ["<tool_call>", *['{"x": '] * 60_000]:
        assert reader.feed(piece) == []
    assert len(reader.close()) == 1


PARTS = ["<tool_call>", "</tool_call>", GOOD, '{"name": "x"', " ", "\n", "words", " " * 1030, "{", "}"]


@given(st.lists(st.sampled_from(PARTS), max_size=6), st.lists(st.integers(0, 3000), max_size=8), st.booleans())
def test_where_a_text_is_cut_changes_nothing(parts: list[str], cuts: list[int], forced: bool) -> None:
    """Else an answer that goes on at another gateway, which is told its first part in one piece, would not go on."""
    text = "".join(parts)
    whole, inside = heard(text, forced=forced), [cut for cut in cuts if cut <= len(text)]
    assert heard(text, inside, forced=forced) == whole
    assert heard(text, [*range(len(text))], forced=forced) == whole


@pytest.mark.parametrize("part", ["<tool_call></tool_call>", "<tool_call>" + GOOD + "</tool_call>", "<tool_call>{}"])
def test_a_long_text_takes_no_longer_for_each_of_its_letters(part: str) -> None:
    """Ten times as much takes some ten times as long, not a hundred: it is read in the gateway's own turn."""

    def seconds(count: int) -> float:
        began = time.process_time()
        reader = CallReader(NAMES, forced=False)
        reader.feed(part * count)
        reader.close()
        return time.process_time() - began

    seconds(100)
    assert seconds(10_000) < 30 * max(seconds(1_000), 0.002)
