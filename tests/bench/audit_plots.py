"""The pictures of docs/economics.md: `python -m tests.bench.audit_plots` writes them to docs/plots.

Plain SVG by hand; the colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from lading_protocol.economics import SHIPPED, Temptation, detection, gain, share
from lading_protocol.ids import Wei

from . import ROOT
from .audit_strategies import (
    CHEATS,
    CLEARING,
    FORGETFUL,
    HOME,
    HONEST_HOST,
    INT4,
    INT8,
    LARGE,
    SHIPS,
    careers,
    found,
)
from .audit_world import Career, Cheat, Rules

FOLDER = ROOT / "docs" / "plots"
WIDTH, LEFT, RIGHT = 720, 60, 130
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f } .thin { stroke: #8c959f; stroke-width: 1 }
.a { fill: #1a7f37 } .b { fill: #cf222e } .c { fill: #0969da } polyline { fill: none !important; stroke-width: 2.5 }
polyline.a { stroke: #1a7f37 } polyline.b { stroke: #cf222e } polyline.c { stroke: #0969da }
@media (prefers-color-scheme: dark) { text { fill: #d1d7e0 } .a { fill: #57ab5a } .b { fill: #f47067 }
.c { fill: #6cb6ff } polyline.a { stroke: #57ab5a } polyline.b { stroke: #f47067 } polyline.c { stroke: #6cb6ff } }
</style>"""
Curve = tuple[str, str, Sequence[tuple[float, float]]]


def svg(height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    return "\n".join([head, STYLE, f'<text x="8" y="20" font-weight="600">{title}</text>', *parts, "</svg>\n"])


def bars(title: str, rows: Sequence[tuple[str, float]]) -> str:
    """Names with a number each, from a common zero; the first is what the others are compared with."""
    low, high = min(0.0, *(value for _, value in rows)), max(value for _, value in rows)
    left, scale = 190, (WIDTH - 190 - 70) / (high - low)
    zero, parts = left - low * scale, []
    for n, (name, value) in enumerate(rows):
        y, x = 34 + 24 * n, zero + min(value, 0) * scale
        kind = "c" if n == 0 else "b" if value > rows[0][1] else "a"
        parts += [
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(abs(value) * scale, 1):.1f}" height="16" rx="2"/>',
            f'<text x="{max(zero, zero + value * scale) + 6:.1f}" y="{y + 13}">{value:.0f}</text>',
        ]
    bottom = 34 + 24 * len(rows)
    parts.append(f'<line class="thin" x1="{zero:.1f}" y1="28" x2="{zero:.1f}" y2="{bottom}"/>')
    return svg(bottom + 8, title, parts)


def curves(title: str, across: str, lines: Sequence[Curve]) -> str:
    """Lines over a common axis; each is named at its end."""
    points = [point for _, _, line in lines for point in line]
    most_x = max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    wide, tall, top = WIDTH - LEFT - RIGHT, 240, 36

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * x / most_x, top + tall * (high - y) / (high - low)

    zero = at(0, 0)[1]
    parts = [f'<line class="thin" x1="{LEFT}" y1="{zero:.1f}" x2="{LEFT + wide}" y2="{zero:.1f}"/>']
    for y in sorted({low, 0.0, high}):
        parts.append(f'<text x="{LEFT - 8}" y="{at(0, y)[1] + 4:.1f}" text-anchor="end">{y:,.0f}</text>')
    for x in (0.0, most_x / 2, most_x):
        parts.append(f'<text x="{at(x, 0)[0]:.1f}" y="{top + tall + 18}" text-anchor="middle">{x:,.0f}</text>')
    parts.append(f'<text x="{LEFT + wide / 2}" y="{top + tall + 38}" text-anchor="middle">{across}</text>')
    for name, kind, line in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        x, y = at(*line[-1])
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        parts.append(f'<text class="{kind}" x="{x + 6:.1f}" y="{y + 4:.1f}">{name}</text>')
    return svg(top + tall + 48, title, parts)


def profits(runs: int) -> str:
    rows = []
    for cheat in (HONEST_HOST, *CHEATS):
        result = found(careers(cheat, CLEARING, SHIPS, LARGE, runs), cheat, LARGE, SHIPS)
        rows.append((cheat.name.replace("_", " ").replace(" percent", " %"), 100 * result.mean))
    return bars("Profit in % of an honest host's turnover; 30 % of auditors and operators collude", rows)


def hit_and_run() -> str:
    caught = share(SHIPPED.rates.floor_ppm) * detection(INT4.caught_ppm, 300_000)
    lines: list[Curve] = []
    for name, kind, escrowed in (("pay at once", "b", 0), ("pay in escrow", "a", 1000)):
        tempted = Temptation(Wei(500), SHIPPED.court.slash(Wei(10_000 * 1000)), Wei(escrowed), caught)
        lines.append((name, kind, [(n, float(gain(tempted, n)) / 1000) for n in range(0, 20_001, 200)]))
    return curves(
        "Gain from N jobs of forged int4 (in job prices), stake of 10,000 job prices", "jobs before the verdict", lines
    )


def long_record(runs: int) -> str:
    def earned(cheat: Cheat, rules: Rules, per_job: float) -> list[tuple[float, float]]:
        served = []
        for seed in range(1, runs + 1):
            career = Career(cheat, CLEARING, rules, seed)
            whole = career.run(HOME.jobs, HOME.days).jobs
            at = dict(career.marks)
            jobs = [0]
            for day in range(HOME.days - 1):
                later = [count for begun, count in at.items() if begun > day]
                jobs.append(min(later) if later else whole)
            served.append([*jobs, whole])
        return [(day, per_job * fmean(one[day] for one in served)) for day in range(HOME.days + 1)]

    lines: list[Curve] = [
        ("honest", "c", earned(HONEST_HOST, SHIPS, 0.1)),
        ("int8, as shipped", "a", earned(INT8, SHIPS, 0.5)),
        ("int8, short memory", "b", earned(INT8, FORGETFUL, 0.5)),
    ]
    return curves("What an honest host and a forged int8 one have earned (job prices; 1,000 jobs a day)", "day", lines)


def write(folder: Path = FOLDER, runs: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "economics-hit-and-run.svg").write_text(hit_and_run())
    (folder / "economics-long-record.svg").write_text(long_record(max(runs // 2, 1)))
    (folder / "economics-profit.svg").write_text(profits(runs))


if __name__ == "__main__":
    write()
