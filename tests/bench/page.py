"""The page of benchmark results: one table a benchmark, between marks, each with the machine it was measured on.

What stands outside of the marks is a person's, and stays.
"""

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import ROOT
from .report import Line, shown, verdict

PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Measured by `make bench`, and written here by `.venv/bin/python -m tests.bench --write`. Values are medians over n
samples. A reference is measured in the same run unless the row says otherwise. A ratio is value to reference, the
median over pairs of rounds where the machine may drift. A bar is the project's own budget; one that does not hold is
shown as such.
"""
TITLES = {
    "audit": "How sure an audit is, and what it costs",
    "demo": "The demo",
    "discovery": "Finding hosts, homes behind routers, and what control costs",
    "engine": "The engine's process against the bare loop",
    "failover": "Streams whose hosts die, stall and lie",
    "gas": "Gas of the settlement's verbs",
    "gateway": "The gateway beside nginx, the Rust routers, LiteLLM and aiohttp",
    "gpu": "On a graphics card: audits, and the torch engine against a bare loop",
    "match": "Choosing among 100,000 offers against a numpy scan",
    "network": "The network against TLS over TCP and py-libp2p",
    "node": "A node against the bare engine loop",
    "packages": "Agent packages: how they start, answer and travel",
    "regions": "A coordinator of one region against one that has every offer",
    "sign": "Signing and checking vouchers against eth-account",
}


def hardware() -> str:
    """The machine in a line, and how busy it was before the measuring began."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {cores} cores, {memory:.0f} GiB of memory, {_cards()}{platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; {time.strftime('%Y-%m-%d')}, "
        f"load average before: {load}"
    )


def write(path: Path, outcomes: Mapping[str, Sequence[Line]], machine: str) -> None:
    """Replace the tables of these benchmarks, add those that are new, and leave the rest as it is."""
    text = path.read_text() if path.exists() else HEAD
    for name, lines in outcomes.items():
        begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
        section = f"{begin}\n{machine}\n\n{markdown(lines)}\n{end}"
        known = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if known.search(text):
            text = known.sub(lambda _: section, text)  # noqa: B023
        else:
            text = f"{text.rstrip()}\n\n## {TITLES.get(name, name)}\n\n{section}\n"
    path.write_text(text)


def markdown(lines: Sequence[Line]) -> str:
    """What was measured, what it is compared with, and the words about how."""
    rows = ["| measured | value | reference | ratio | bar | n |", "| --- | ---: | --- | ---: | --- | ---: |"]
    for one in lines:
        value = f"{shown(one.value)} {one.unit}"
        reference = f"{shown(one.reference_value)} {one.unit}: {one.reference}" if one.reference else ""
        ratio = f"{one.ratio:.3g}" if one.ratio is not None else ""
        bar = f"{one.bar}: {verdict(one)}" if one.bar else ""
        what = f"`{one.name}`" + (f"<br>{one.note}" if one.note else "")
        cells = (what, value, reference, ratio, bar, str(one.n))
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


def _cards() -> str:
    """The graphics cards whose driver is loaded, each with a comma behind it."""
    models = []
    for told in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        models += [row.partition(":")[2].strip() for row in told.read_text().splitlines() if row.startswith("Model")]
    return "".join(f"{model}, " for model in models)


def _processor() -> str:
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            return " ".join(row.partition(":")[2].split())
    return platform.processor() or platform.machine()
