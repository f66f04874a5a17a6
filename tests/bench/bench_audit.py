"""How sure an audit is, and what it costs: every host of the bars, two models, two precisions; TOPLOC beside.

Hosts sample with the node's sampler; audits are one prefill by the node's torch engine, margins, sketches and the
protocol's own judgement by limits that were calibrated on other honest jobs. Each part is a process of its own. What a
configuration shows is kept in build/audit, from where a run that was broken off goes on, and from where
`python -m tests.bench.audit_page` writes docs/verification.md; remove its file there to measure it anew.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .report import emit, say

if TYPE_CHECKING:
    from .audit_run import Outcome, Result

CONFIGURATIONS = ("chat-f32", "chat-bf16", "second-f32", "second-bf16")
# The case, whether with forged sketches, and what must be caught: alone as guilty, flagged, or flagged within N audits.
BARS = (
    ("other model", "plain", "guilty", 99),
    ("smaller model", "plain", "guilty", 99),
    ("wrong seed", "forged", "caught", 99),
    ("replay", "forged", "caught", 99),
    ("temperature 0.7 ignored", "forged", "caught", 99),
    ("temperature 0.9 for 1", "forged", "caught", 99),
    ("greedy for temperature 1", "forged", "caught", 99),
    ("top-k 20 ignored", "forged", "caught", 99),
    ("top-p 0.9 ignored", "forged", "caught", 99),
    ("draft kept in top 3", "forged", "caught", 99),
    ("skipped layer", "plain", "guilty", 99),
    ("skipped layer", "forged", "guilty", 99),
    ("fine-tuned", "forged", "guilty", 99),
    ("hidden system prompt", "plain", "guilty", 99),
    ("dropped context", "plain", "guilty", 99),
    ("int4", "plain", "guilty", 99),
    ("fp8", "plain", "guilty", 99),
    ("KV int4", "plain", "guilty", 99),
    ("int4", "forged", "flagged", 90),
    ("int4", "forged", "by 5", 99),
    ("fp8", "forged", "by 20", 99),
    ("int8", "forged", "by 120, one class", 99),
)


def main() -> None:
    parts = ("costs", "economics", *CONFIGURATIONS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 jobs a case instead of 200, and nothing is kept")
    parser.add_argument("--only", choices=parts, help="measure this part, whatever is kept of it")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1"}
    if args.only:
        part(args.only, args.quick)
        return
    from . import audit_kept as kept

    for name in parts:
        known = None if args.quick or name not in CONFIGURATIONS else kept.valid(name)
        if known is None:
            more = ["--quick"] if args.quick else []
            subprocess.run([sys.executable, "-m", __spec__.name, "--only", name, *more], check=True)
        else:
            print(f"{name}: as it is kept in build/audit", file=sys.stderr, flush=True)
            told(name, known.outcome)


def part(name: str, quick: bool) -> None:
    # torch speaks of an Intel GPU that nobody asked for.
    warnings.filterwarnings("ignore", message="TF32 acceleration")
    import torch

    from . import audit_costs, audit_economics, audit_kept, audit_run

    torch.set_num_threads(1)
    if name == "costs":
        audit_costs.report(quick)
    elif name == "economics":
        for one in audit_economics.rows(quick):
            emit(one)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model, _, precision = name.partition("-")
            outcome = audit_run.run(model, precision, audit_run.QUICK if quick else audit_run.FULL, Path(folder))
        if not quick:
            audit_kept.write(name, outcome)
        told(name, outcome)


def told(name: str, found: "Outcome") -> None:
    honest(name, found.results)
    by_case = {(one.case, one.kind): one for one in found.results}
    for case, kind, what, least in BARS:
        caught(name, by_case[case, kind], what, least)


def honest(name: str, results: "tuple[Result, ...]") -> None:
    """Other kernels are judged by the table that knows of them."""
    own = [one for one in results if one.kind == "honest"]
    every = [one for one in results if one.kind in ("honest", "other kernels")]
    for what, rates in (
        ("own class", [(one, one.narrow) for one in own]),
        ("all kernels", [(one, one.wide) for one in every]),
    ):
        jobs = sum(one.jobs for one, _ in rates)
        slug = f"audit_{name}_honest_{what.replace(' ', '_')}"
        guilty = round(sum(one.jobs * each.guilty for one, each in rates))
        flagged = 100 * sum(one.jobs * each.flagged for one, each in rates) / jobs
        say(f"{slug}_guilty", guilty, "jobs", bar="<= 0", n=jobs, note=f"over {len(rates)} set-ups")
        say(f"{slug}_suspect", flagged, "%", bar="<= 1", n=jobs)
        alone = 100 * max(each.alone[120] for _, each in rates)
        say(f"{slug}_record_of_120", alone, "%", n=jobs, note="suspect by the long record, the worst set-up")


def caught(name: str, one: "Result", what: str, least: int) -> None:
    rates = one.narrow if what.endswith("one class") else one.wide
    unchanged = f"{100 * (1 - (one.changed or 0)):.3g} % of the jobs have the tokens of an honest host"
    note = f"{one.kind}; {100 * rates.flips:.2g} % of tokens differ; {unchanged}"
    match what.split(",")[0].split():
        case ["guilty"]:
            value = rates.guilty
        case ["flagged"]:
            value = rates.flagged
        case ["caught"]:
            value, note = one.caught or 0.0, f"of the jobs that it changed; of all {100 * rates.guilty:.3g} %; {note}"
        case _:
            value = rates.pooled[int(what.split(",")[0].split()[1])]
            note = f"records drawn from these jobs; {note}"
    slug = f"audit_{name}_{one.case}_{one.kind}_{what}".replace(" ", "_").replace(",", "")
    say(slug, 100 * value, "%", bar=f">= {least}", n=one.jobs, note=note)


if __name__ == "__main__":
    main()
