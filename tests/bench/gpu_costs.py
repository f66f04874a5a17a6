"""What an audit costs on a card: a prefill against generation, and the host's own part of it. By the wall clock, as
the time is the card's.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from lading_coordinator.core.audits import Policy
from lading_node.core import commit
from lading_node.core.sampler import choose
from lading_node.core.sketch import directions, project
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel, retraced
from lading_node.engines.port import EngineSpec
from lading_protocol.ids import JobId
from lading_protocol.messages import Sampler
from lading_protocol.transcript import CHUNK_TOKENS, prompt_mark

from . import audit_costs
from .report import say

PROMPT, TOKENS = audit_costs.PROMPT, audit_costs.TOKENS
JOB = JobId(bytes(range(32)))
_WHOM = {"clean": ": a host with a long clean record", "new": ": a host's first ones"}


def report(name: str, spec: EngineSpec, words: str, rounds: int) -> None:
    """A model as a host generates with it, one at a time, and as an auditor checks it. `name` "large" has the bars."""
    model = language_model(spec, Path())
    prompt = [5 + i % 250 for i in range(PROMPT)]
    sampler, emitted = Sampler(bytes(32)), list[int]()

    def generate() -> None:
        context = model.open(prompt, TOKENS)
        emitted.clear()
        while True:
            emitted.append(choose(context.logits(), len(emitted), sampler))
            if len(emitted) == TOKENS:
                return
            context.append(emitted[-1])

    made = _milliseconds(generate, rounds) / TOKENS
    passed = _milliseconds(lambda: model.traced([*prompt, *emitted[:-1]], TOKENS), 3 * rounds) / TOKENS
    whole = _milliseconds(lambda: retraced(model, prompt, emitted, 0, sampler, JOB), 3 * rounds) / TOKENS
    _said(name, words, rounds, made, passed, whole)
    _sketches(name, model, rounds)


def _said(name: str, words: str, rounds: int, made: float, passed: float, whole: float) -> None:
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
        ("2_percent", audit_costs.RATE, "<= 0.5"),
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
    rows = audit_costs._states(model.states)
    along = directions(JOB, model.states)
    each = _milliseconds(lambda: [project(rows[at : at + 1], along) for at in range(TOKENS)], rounds) / TOKENS
    say(f"gpu_sketch_{name}_one_by_one", each, "ms/token", n=rounds, note=f"states {model.states} wide, a row a call")


def commitments(rounds: int) -> None:
    """The host's own work for a job, on the processor beside the card, one thread: as audit_costs does it."""
    for width in (2048, 4096):
        states = audit_costs._states(width)

        def build(states: object = states, width: int = width) -> object:
            along = directions(JOB, width)
            state = commit.Commitment(JOB, 0)
            state = commit.sketched(state, prompt_mark(JOB, project(states[: PROMPT - 1], along)))  # type: ignore[index]
            for at in range(0, TOKENS, CHUNK_TOKENS):
                rows = states[PROMPT - 1 + at : PROMPT - 1 + at + CHUNK_TOKENS]  # type: ignore[index]
                state = commit.add(state, tuple(range(at, at + CHUNK_TOKENS)), project(rows, along))
            return commit.root(state)

        say(
            f"gpu_commitment_build_{width}",
            _milliseconds(build, rounds) / TOKENS,
            "ms/token",
            bar="<= 0.005",
            n=rounds,
            note=f"states {width} wide, {PROMPT} prompt and {TOKENS} output tokens, on the processor, one thread",
        )


def _milliseconds(call: Callable[[], object], rounds: int) -> float:
    call()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3
