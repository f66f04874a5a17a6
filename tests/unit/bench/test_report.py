"""The form of a benchmark's result: bars are judged, false claims are refused, a page keeps what is not its own."""

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import page
from bench.__main__ import commands, run
from bench.report import BadLine, Line, judge, read, table

GOOD = Line("speed", 4.0, "1/s", "floor", 5.0, 0.8, ">= 0.95 of the reference", False, 3, "two | words")


@pytest.mark.parametrize(
    ("bar", "value", "ratio", "holds"),
    [
        ("<= 60", 60, None, True),
        ("<= 60", 60.1, None, False),
        (">= 4096", 4096, 0.0, True),
        (">= 0.95 of the reference", 1.0, 0.949, False),
        (">= 0.95 of the reference", 0.0, 0.95, True),
        ("<= 60", None, None, False),
        (">= 0.95 of the reference", 9.0, None, False),
    ],
)
def test_a_bar_is_judged_on_what_it_names(bar: str, value: float | None, ratio: float | None, holds: bool) -> None:
    assert judge(bar, value, ratio) is holds


@pytest.mark.parametrize("bar", ["", "< 60", "<= 60 ms", "about 60", ">= -1"])
def test_a_bar_that_cannot_be_judged_is_refused(bar: str) -> None:
    with pytest.raises(BadLine):
        judge(bar, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"holds": True},
        {"holds": None},
        {"bar": None},
        {"reference": None},
        {"value": "fast"},
        {"unit": None},
        {"extra": 1},
    ],
)
def test_a_line_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadLine):
        read(msgspec.json.encode(msgspec.to_builtins(GOOD) | change))


@given(st.floats(0, 1e9), st.floats(0.001, 1e9))
def test_what_was_judged_here_reads_back(value: float, reference: float) -> None:
    ratio, bar = value / reference, "<= 1 of the reference"
    made = Line("x", value, "s", "floor", reference, ratio, bar, judge(bar, value, ratio))
    assert read(msgspec.json.encode(made)) == made


def test_a_bar_that_does_not_hold_is_shown_as_such() -> None:
    assert "DOES NOT HOLD" in table([GOOD])
    assert "DOES NOT HOLD" in page.markdown([GOOD])


def test_a_page_keeps_other_tables_and_a_person_s_words(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    page.write(path, {"link": [GOOD], "node": [GOOD]}, "machine one")
    words = path.read_text().replace("<!-- bench node -->", "A person's words: \\1.\n\n<!-- bench node -->")
    path.write_text(words)
    page.write(path, {"node": [msgspec.structs.replace(GOOD, name="slower")]}, "machine two")
    text = path.read_text()
    assert "A person's words: \\1." in text
    assert text.count("machine one") == text.count("machine two") == 1
    assert text.count("`speed`") == text.count("`slower`") == 1
    assert text.index("machine one") < text.index("machine two")


def test_a_benchmark_that_is_not_done_in_time_is_ended_with_all_that_it_began() -> None:
    begun = time.monotonic()
    slow = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    outcome = run(["-c", slow], limit=0.5)
    assert time.monotonic() - begun < 20
    assert "not done after" in outcome.trouble
    assert run(["-c", f"print({msgspec.json.encode(Line('a', 1, 's')).decode()!r})"], limit=60).trouble == ""


def test_a_benchmark_that_was_never_on_the_page_gets_a_section_and_the_rest_stays(tmp_path: Path) -> None:
    """Every benchmark that there is has a title, and one section on the page that is in the repository."""
    path, before = tmp_path / "page.md", page.PAGE.read_text()
    for name in commands():
        path.write_text(before)
        page.write(path, {name: [GOOD]}, "machine three")
        after = path.read_text()
        assert f"## {page.TITLES[name]}\n" in after
        assert after.count(f"<!-- bench {name} -->\nmachine three\n") == 1
        others = [other for other in commands() if other != name]
        assert [section(after, other) for other in others] == [section(before, other) for other in others]


def section(text: str, name: str) -> str:
    return text.partition(f"<!-- bench {name} -->")[2].partition(f"<!-- end {name} -->")[0]
