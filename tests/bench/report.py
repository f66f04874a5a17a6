"""One result: its value, its reference, its bar and whether that holds. Written as a JSON line, read back, tabled.

Measures nothing. A bar is judged here and nowhere else, so that no benchmark can say "holds" of itself.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

_BAR = re.compile(r"(?P<side><=|>=) (?P<limit>\d+(?:\.\d+)?)(?P<ratio> of the reference)?")


class BadLine(Exception):
    """A line of a benchmark is not what DESIGN.md section 7 says; the text says why."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`value` is None when it could not be measured. `ratio` is value to reference, a bar's text `<= 60`, `>= 0.95 of
    the reference` and the like; `n` counts the samples behind the median."""

    name: str
    value: int | float | None
    unit: str
    reference: str | None = None
    reference_value: int | float | None = None
    ratio: float | None = None
    bar: str | None = None
    holds: bool | None = None
    n: int = 1
    note: str = ""


def judge(bar: str, value: float | None, ratio: float | None) -> bool:
    """Whether a bar holds; nothing that was not measured does. Raises BadLine for a bar that cannot be read."""
    read = _BAR.fullmatch(bar)
    if read is None:
        raise BadLine(f"the bar {bar!r} is neither '<= N' nor '>= N', with or without 'of the reference'")
    judged = ratio if read["ratio"] else value
    if judged is None:
        return False
    limit = float(read["limit"])
    return judged <= limit if read["side"] == "<=" else judged >= limit


def line(
    name: str,
    value: float | None,
    unit: str,
    *,
    reference: tuple[str, float] | None = None,
    ratio: float | None = None,
    bar: str | None = None,
    n: int = 1,
    note: str = "",
) -> Line:
    """One result. `ratio` is for the median over pairs of rounds; by default it is value to reference."""
    if reference is not None and ratio is None and value is not None and reference[1]:
        ratio = value / reference[1]
    return Line(
        name,
        _rounded(value),
        unit,
        reference[0] if reference else None,
        _rounded(reference[1]) if reference else None,
        round(ratio, 4) if ratio is not None else None,
        bar,
        judge(bar, value, ratio) if bar else None,
        n,
        note,
    )


def say(name: str, value: float | None, unit: str, **rest: Any) -> None:
    """Print one result: see `line`."""
    emit(line(name, value, unit, **rest))


def emit(made: Line) -> None:
    print(msgspec.json.encode(made).decode(), flush=True)


def read(text: str | bytes) -> Line:
    """A line of a benchmark's output. Raises BadLine."""
    try:
        found = msgspec.json.decode(text, type=Line)
    except msgspec.DecodeError as error:
        raise BadLine(f"{error}: {text!r}") from error
    if found.bar is None and found.holds is not None:
        raise BadLine(f"{found.name} says whether a bar holds, and has none")
    if found.bar is not None and found.holds is not judge(found.bar, found.value, found.ratio):
        raise BadLine(f"{found.name} says holds={found.holds} of {found.bar!r} at {found.value} (x{found.ratio})")
    if (found.reference is None) is not (found.reference_value is None):
        raise BadLine(f"{found.name} has one of reference and reference_value only")
    return found


def table(lines: Sequence[Line]) -> str:
    """For a terminal: the words about a result stand where it has no reference; the page has them all."""
    rows = [("", "value", "unit", "bar", "", "reference, or what it is", "ratio", "n")]
    rows += [
        (
            one.name,
            shown(one.value),
            one.unit,
            one.bar or "",
            verdict(one),
            f"{shown(one.reference_value)}  {one.reference}" if one.reference else one.note,
            f"{one.ratio:.3g}" if one.ratio is not None else "",
            str(one.n),
        )
        for one in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {1, 6, 7}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def verdict(one: Line) -> str:
    if one.holds is None:
        return ""
    return "holds" if one.holds else "DOES NOT HOLD"


def shown(value: float | None) -> str:
    """Four figures that mean something; gas and other counts in full."""
    if value is None:
        return "not measured"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _rounded(value: float | None) -> int | float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")
