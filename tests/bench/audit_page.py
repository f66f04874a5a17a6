"""Writes the tables of docs/verification.md from what `make bench-audit` left in build/audit.

    python -m tests.bench.audit_page

The shares that audit_economics goes by are written too.
What stands outside of the marks is a person's, and stays.
"""

import re
from collections.abc import Sequence

from . import ROOT, audit_shares
from .audit_kept import Kept, code, read
from .audit_run import Result
from .audit_shares import Shares
from .bench_audit import CONFIGURATIONS

PAGE = ROOT / "docs" / "verification.md"
BEGIN, END = "<!-- audit -->", "<!-- end audit -->"


def main() -> None:
    kept = {name.replace("-", " "): read(name) for name in CONFIGURATIONS}
    found = {name: one for name, one in kept.items() if one is not None}
    audit_shares.write({name: shares(one) for name, one in found.items()})
    text = "\n\n".join([machines(found), honest(found), detection(found), pooled(found)])
    page = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    PAGE.write_text(page.sub(lambda _: f"{BEGIN}\n{text}\n{END}", PAGE.read_text()))
    print(f"{len(found)} configurations, written to {PAGE}")


def shares(kept: Kept) -> dict[str, Shares]:
    """By the limits over all kernels, as in the table of single audits."""
    cheats = [one for one in kept.outcome.results if one.kind in ("plain", "forged")]
    return {f"{one.case}, {one.kind}": Shares(one.wide.guilty, one.wide.alone) for one in cheats}


def machines(found: dict[str, Kept]) -> str:
    now = code()
    return "\n".join(
        f"- {name}: {one.machine}{'' if one.code == now else ' (by an earlier version of the code)'}"
        for name, one in found.items()
    )


def honest(found: dict[str, Kept]) -> str:
    """The honest set-ups: judged by the table over all kernels."""
    rows = []
    for name, kept in found.items():
        for one in kept.outcome.results:
            if one.kind in ("honest", "other kernels"):
                rates = [one.wide.guilty * one.jobs, one.wide.flagged * one.jobs]
                told = [f"{value:.0f}" for value in rates] + [f"{100 * one.wide.flips:.2g}"]
                own = f"{one.narrow.guilty * one.jobs:.0f}" if one.kind == "honest" else ""
                rows.append([name, one.case, str(one.jobs), *told, own])
    head = ["model", "honest set-up", "jobs", "guilty", "flagged", "tokens that differ, %", "guilty, own class"]
    return "Honest hosts:\n\n" + table(head, rows)


def detection(found: dict[str, Kept]) -> str:
    """Per audited job, for every case of cheating."""
    cells: dict[tuple[str, str], dict[str, Result]] = {}
    for name, kept in found.items():
        for one in kept.outcome.results:
            if one.kind in ("plain", "forged"):
                cells.setdefault((one.case, one.kind), {})[name] = one
    rows = []
    for (case, kind), by in cells.items():
        row = [case, kind, *(_cell(by.get(name)) for name in found)]
        rows.append([*row, _toploc(by)])
    head = ["host", "sketches", *found, "TOPLOC: published / calibrated"]
    why = "Share of single audits, in %: guilty / flagged (jobs whose tokens are not those of an honest host):"
    return f"{why}\n\n{table(head, rows)}"


def _cell(one: Result | None) -> str:
    if one is None:
        return ""
    changed = f" ({100 * one.changed:.3g})" if one.changed is not None else ""
    return f"{100 * one.wide.guilty:.3g} / {100 * one.wide.flagged:.3g}{changed}"


def _toploc(by: dict[str, Result]) -> str:
    """Of the bf16 configurations, the worse of the two models."""
    shares = [(one.wide.published, one.wide.calibrated) for name, one in by.items() if name.endswith("bf16")]
    known = [(a, b) for a, b in shares if a is not None and b is not None]
    if not known:
        return "other shape"
    return f"{100 * min(a for a, _ in known):.3g} / {100 * min(b for _, b in known):.3g}"


def pooled(found: dict[str, Kept]) -> str:
    """The long record, for what a single audit may miss."""
    rows = []
    for name, kept in found.items():
        for one in kept.outcome.results:
            if one.kind == "forged" and one.case in ("int4", "fp8", "int8", "KV int4", "hidden system prompt"):
                for what, rates in (("all kernels", one.wide), ("own class", one.narrow)):
                    shares = [f"{100 * rates.pooled[count]:.3g}" for count in (5, 20, 120)]
                    alone = [f"{100 * rates.alone[count]:.3g}" for count in (5, 20, 120)]
                    rows.append([name, one.case, what, *(f"{a} ({b})" for a, b in zip(shares, alone, strict=True))])
    head = ["model", "forged", "limits of", "by 5 audits", "by 20", "by 120"]
    why = "Share of records in which a job is flagged or the whole is suspect (z > 4.5 alone), in %:"
    return f"{why}\n\n{table(head, rows)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


if __name__ == "__main__":
    main()
