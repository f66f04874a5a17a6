#!/usr/bin/env python3
"""Writes the event and error reference into docs/contracts.md, from the interfaces' own prose.

`--check` writes nothing and fails when the page differs. Needs no compiler: it reads the sources as text.
"""

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from forge import ROOT

PAGE = ROOT.parent / "docs" / "contracts.md"
BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
ENTRY = re.compile(
    r"(?P<doc>(?:    ///[^\n]*\n)*)    (?P<kind>event|error) (?P<name>\w+)\((?P<inputs>[^)]*)\);", re.MULTILINE
)


class Entry(NamedTuple):
    kind: str
    name: str
    inputs: str
    prose: str


def entries(source: str) -> Iterator[Entry]:
    for found in ENTRY.finditer(source):
        words = re.sub(r"\s*///\s?(@notice |@dev )?", " ", found["doc"]).strip()
        yield Entry(found["kind"], found["name"], " ".join(found["inputs"].split()), words)


def render() -> str:
    parts = []
    for path in sorted((ROOT / "src" / "interfaces").glob("I*.sol")):
        found = list(entries(path.read_text()))
        if not found:
            continue
        parts.append(f"### {path.stem.removeprefix('I')}\n")
        for kind, title in (("event", "Event"), ("error", "Error")):
            rows = [one for one in found if one.kind == kind]
            if not rows:
                continue
            parts.append(f"| {title} | Meaning |\n| --- | --- |")
            for one in rows:
                shown = f"`{one.name}({one.inputs})`" if kind == "event" else f"`{one.name}`"
                parts.append(f"| {shown} | {one.prose} |")
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{render()}{END}{tail}"
    if page == wanted:
        return 0
    if "--check" in sys.argv:
        print("docs/contracts.md is out of date; run `python contracts/tools/reference.py`")
        return 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
