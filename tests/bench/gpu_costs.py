"""What an audit costs on a card: a prefill against generation, and the host's own part of it. By the wall clock, as
the time is the card's.
"""

import time
from pathlib import Path

from lading_coordinator.core.audits import Policy
from lading_node.core.sketch import directions, project
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel
from lading_node.engines.port import EngineSpec

from .audit_hosts import TOKENS
from .audit_timing import JOB, PROMPT, RATE, Spent, milliseconds, say_commitments, spent, states
from .report import say

_WHOM = {"clean": ": a host with a long clean record", "new": ": a host's first ones"}


def report(name: str, spec: EngineSpec, words: str, rounds: int) -> None:
    """A model as a host generates with it, one at a time, and as an auditor checks it. `name` "large" has the bars."""
    model = language_model(spec, Path())
    prompt = [5 + i % 250 for i in range(PROMPT)]
    _said(name, words, rounds, spent(model, prompt, rounds, 3 * rounds, time.perf_counter))
    _sketches(name, model, rounds)


def _said(name: str, words: str, rounds: int, took: Spent) -> None:
    made, passed, whole = took.made, took.passed, took.whole
    say(
        f"gpu_prefill_{name}",
        made / passed,
        "times cheaper",
        bar=">= 15",
        n=rounds,
        note=f"{words}; generation {made:.3g} ms a token, prefill {passed:.3g}",
    )
    say(
        f"gpu_verify_{name}",
        made / whole,
        "times cheaper",
        bar=">= 15" if name == "large" else None,
        n=rounds,
        note=f"prefill, margins and sketch: {whole:.3g} ms a token",
    )
    rates = Policy().rates
    for what, rate, bar in (
        ("clean", rates.host_ppm(10**6, False) / 1e6, "<= 0.5"),
        ("2_percent", RATE, "<= 0.5"),
        ("new", rates.host_ppm(0, False) / 1e6, None),
    ):
        say(
            f"gpu_audit_share_{name}_{what}",
            100 * rate * whole / made,
            "% of generation",
            bar=bar,
            n=rounds,
            note=f"{100 * rate:.3g} % of its jobs are audited{_WHOM.get(what, '')}",
        )


def _sketches(name: str, model: LanguageModel, rounds: int) -> None:
    """The states of one token at a time, as they come while an answer is made."""
    rows = states(model.states)
    along = directions(JOB, model.states)

    def one_by_one() -> None:
        for at in range(TOKENS):
            project(rows[at : at + 1], along)

    each = milliseconds(one_by_one, rounds, time.perf_counter) / TOKENS
    say(f"gpu_sketch_{name}_one_by_one", each, "ms/token", n=rounds, note=f"states {model.states} wide, a row a call")


def commitments(rounds: int) -> None:
    """The host's own work for a job, on the processor beside the card: as audit_costs does it, by the wall clock."""
    words = "on the processor, one thread"
    say_commitments("gpu_commitment_build", (2048, 4096), rounds, time.perf_counter, words)
