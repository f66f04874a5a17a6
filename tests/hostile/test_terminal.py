"""Words of strangers on a terminal: names, answers, errors and refusals are shown, and move nothing."""

import io
import json
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hostile.kit import ESCAPES
from lading.cli import output
from lading_protocol.errors import BadManifest

TRICKS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "sets the title": "\x1b]0;owned\x07",
    "types for the user": "\x1b[6n",
    "makes a link": "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "writes the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "an eight-bit escape": "\x9b2J",
    "turns the text": "invoice\u202egpj.exe",
    "isolates": "\u2066hidden\u2069",
    "goes back": "good\rbad ",
    "rubs out": "good\x08\x08\x08\x08bad",
    "rings": "\x07",
    "a second row": "chat\nchat  0x00  trusted",
    "a line separator": "chat\u2028trusted",
    "markup": "[bold red]trusted[/] [link=http://evil]x[/link]",
    "broken markup": "[/] [/bold] [unclosed",
    "a null": "a\x00b",
    "all of it": ESCAPES,
}


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A terminal that shows colours: what it was sent, with our own colours taken out."""
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, width=4000, highlight=False, color_system=None)
    monkeypatch.setattr(output, "out", console)
    monkeypatch.setattr(output, "err", console)
    return sent.getvalue


def still(text: str, rows: int) -> None:
    """Nothing in it acts on a terminal, and there are so many lines of it."""
    lines = text.rstrip("\n").split("\n")
    assert len(lines) == rows, lines
    for c in "".join(lines):
        assert unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"), (c, text)


@pytest.mark.parametrize("trick", TRICKS)
def test_records_rows_and_errors_show_a_name_and_obey_nothing(screen: Callable[[], str], trick: str) -> None:
    name = TRICKS[trick]
    output.emit({"name": name, name: "value"}, False)
    output.emit_rows([{"name": name, "price": "1"}, {"name": "honest", "price": "2"}], False, "none")
    output.report(BadManifest(f"The package {name} is bad.", hint=name))
    still(screen(), 2 + 3 + 2)


@pytest.mark.parametrize("trick", TRICKS)
def test_an_answer_keeps_its_lines_and_loses_its_commands(trick: str) -> None:
    shown = output.plain(TRICKS[trick])
    assert shown.count("\n") == TRICKS[trick].count("\n")
    assert not {c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"}
    assert "\u202e" not in shown


@given(st.text(max_size=200))
def test_a_line_is_a_line(text: str) -> None:
    shown = output.line(text)
    assert len(shown.splitlines()) <= 1
    assert len(shown) == len(text)


def test_json_output_carries_the_name_and_escapes_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the very name; a terminal that shows it meets escapes in writing only."""
    output.emit({"name": ESCAPES}, True)
    text = capsys.readouterr().out
    assert json.loads(text) == {"name": ESCAPES}
    still(text, 1)
