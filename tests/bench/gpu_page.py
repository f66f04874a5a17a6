"""Writes the tables of docs/verification.md about graphics cards from what `make bench-gpu` left in build/audit.

    python -m tests.bench.gpu_page

What stands outside of the marks is a person's, and stays.
"""

import re
from collections.abc import Sequence

import msgspec

from . import ROOT
from .audit_page import PAGE, table
from .gpu_audit import Caught, Outcome, Pair

BEGIN, END = "<!-- gpu -->", "<!-- end gpu -->"
KEPT = ROOT / "build" / "audit" / "gpu.json"


class Kept(msgspec.Struct, frozen=True):
    machine: str
    outcome: Outcome


def main() -> None:
    kept = msgspec.json.decode(KEPT.read_bytes(), type=Kept)
    text = "\n\n".join([f"- {kept.machine}", honest(kept.outcome.pairs), detection(kept.outcome.caught)])
    page = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    PAGE.write_text(page.sub(lambda _: f"{BEGIN}\n{text}\n{END}", PAGE.read_text()))
    print(f"{len(kept.outcome.pairs)} pairs of classes, written to {PAGE}")


def honest(pairs: Sequence[Pair]) -> str:
    head = ["host", "auditor", "jobs", "tokens that differ, %", "largest margin of a job: 50 / 99 / 99.9 % / all"]
    head += ["largest chunk error: 50 / 99 % / all", "prompt error", "fresh jobs: guilty / flagged of all"]
    rows = []
    for one in pairs:
        margins = " / ".join(f"{value:.2g}" for value in one.margins)
        chunks = " / ".join(f"{one.chunks[i]:.2g}" for i in (0, 1, 3))
        fresh = f"{one.guilty} / {one.flagged} of {one.fresh}"
        rows.append(
            [
                one.host,
                one.auditor,
                str(one.jobs),
                f"{100 * one.flips:.2g}",
                margins,
                chunks,
                f"{one.prompt:.2g}",
                fresh,
            ]
        )
    return "Honest hosts:\n\n" + table(head, rows)


def detection(caught: Sequence[Caught]) -> str:
    """Per audited job by an auditor of the host's own class, and in records of several."""
    rows = []
    for one in caught:
        pooled = " / ".join(f"{100 * one.pooled[count]:.3g}" for count in (5, 20, 120))
        single = f"{100 * one.guilty:.3g} / {100 * one.flagged:.3g}"
        rows.append([one.host, one.case, one.kind, str(one.jobs), single, f"{100 * one.changed:.3g}", pooled])
    head = ["host's class", "what it does", "sketches", "jobs", "guilty / flagged, %", "other tokens, %"]
    head += ["flagged by 5 / 20 / 120 audits, %"]
    return f"Cheats, each audited by a card:\n\n{table(head, rows)}"


if __name__ == "__main__":
    main()
