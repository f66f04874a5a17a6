"""The work of an audit as it is timed: a host that generates, an auditor's one prefill, the commitment to an answer.

On a processor or on a card: which clock counts is the caller's to say.
"""

import statistics
from collections.abc import Callable

import msgspec
import numpy as np

from lading_node.core import commit
from lading_node.core.sampler import choose
from lading_node.core.sketch import States, directions, project
from lading_node.engines.model import LanguageModel, retraced
from lading_protocol.ids import Digest, JobId
from lading_protocol.messages import Sampler
from lading_protocol.transcript import CHUNK_TOKENS, prompt_mark

from .audit_hosts import TOKENS
from .report import say

PROMPT = 128
JOB = JobId(bytes(range(32)))
RATE = 0.02
Clock = Callable[[], float]


class Spent(msgspec.Struct, frozen=True):
    """Milliseconds a token: to generate it, to read it in one prefill, and with margins and sketch."""

    made: float
    passed: float
    whole: float


def spent(model: LanguageModel, prompt: list[int], rounds: int, passes: int, clock: Clock) -> Spent:
    """As a host generates with it, one job at a time, and as an auditor checks it, `passes` times."""
    sampler, emitted = Sampler(bytes(32)), list[int]()

    def generate() -> None:
        context = model.open(prompt, TOKENS)
        emitted.clear()
        while True:
            emitted.append(choose(context.logits(), len(emitted), sampler))
            if len(emitted) == TOKENS:
                return
            context.append(emitted[-1])

    return Spent(
        made=milliseconds(generate, rounds, clock) / TOKENS,
        passed=milliseconds(lambda: model.traced([*prompt, *emitted[:-1]], TOKENS), passes, clock) / TOKENS,
        whole=milliseconds(lambda: retraced(model, prompt, emitted, 0, sampler, JOB), passes, clock) / TOKENS,
    )


def say_commitments(name: str, widths: tuple[int, ...], rounds: int, clock: Clock, words: str) -> None:
    """The host's own work for a job: directions, sketches of prompt and output, marks, leaves and root."""
    for width in widths:
        rows = states(width)
        say(
            f"{name}_{width}",
            milliseconds(lambda rows=rows, width=width: commitment(rows, width), rounds, clock) / TOKENS,  # type: ignore[misc]
            "ms/token",
            bar="<= 0.005",
            n=rounds,
            note=f"states {width} wide, {PROMPT} prompt and {TOKENS} output tokens, {words}",
        )


def commitment(rows: States, width: int) -> Digest:
    along = directions(JOB, width)
    state = commit.Commitment(JOB, 0)
    state = commit.sketched(state, prompt_mark(JOB, project(rows[: PROMPT - 1], along)))
    for at in range(0, TOKENS, CHUNK_TOKENS):
        chunk = rows[PROMPT - 1 + at : PROMPT - 1 + at + CHUNK_TOKENS]
        state = commit.add(state, tuple(range(at, at + CHUNK_TOKENS)), project(chunk, along))
    return commit.root(state)


def states(width: int) -> States:
    """Of a whole job, as no model made them."""
    return np.random.default_rng(1).normal(size=(PROMPT + TOKENS - 1, width)).astype(np.float32)


def milliseconds(call: Callable[[], object], rounds: int, clock: Clock) -> float:
    """The median of the rounds, after one that warms up."""
    call()
    took = []
    for _ in range(rounds):
        began = clock()
        call()
        took.append(clock() - began)
    return statistics.median(took) * 1e3
