"""Hosts of the audit benchmark: batches, caches, padding, drafts; honest or not, each gives tokens and states.

Tokens are chosen by the node's own sampler. A host is a model (audit_models), how it computes, and how it picks.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache

from lading_node.core.sampler import choose
from lading_node.core.sketch import States
from lading_node.engines.model import Logits
from lading_protocol.messages import Sampler

from .audit_models import END, NEVER

TOKENS = 128


class Job(NamedTuple):
    id: bytes
    prompt: list[int]
    sampler: Sampler


class Served(NamedTuple):
    """`states` has a row for each position from the prompt's first on, all but the last output token's."""

    ids: list[int]
    states: States


Rows = Sequence[Logits]
Pick = Callable[[Rows, int, Job], int]
Quantise = Callable[[torch.Tensor], torch.Tensor]


def honest(rows: Rows, t: int, job: Job) -> int:
    return choose(rows[0], t, job.sampler)


def keep_draft(top: int) -> Pick:
    """Sloppy speculation: the draft's token goes out when it is among the true model's `top` likeliest."""

    def pick(rows: Rows, t: int, job: Job) -> int:
        true, draft = rows
        token = choose(draft, t, job.sampler)
        return token if token in np.argpartition(true, -top)[-top:] else choose(true, t, job.sampler)

    return pick


@dataclass(frozen=True)
class Host:
    """`stored` changes keys and values on their way into the cache; the first `cached` positions of a prompt are
    computed on their own, as for somebody else who began alike; `draft` is a second model whose rows come after."""

    model: Any
    batch: int = 50
    pick: Pick = honest
    stored: Quantise | None = None
    cached: int = 0
    draft: Any = None

    def serve(self, jobs: Sequence[Job]) -> list[Served]:
        served: list[Served] = []
        for at in range(0, len(jobs), self.batch):
            served += self._together(jobs[at : at + self.batch])
        return served

    def _together(self, jobs: Sequence[Job]) -> list[Served]:
        width = max(len(job.prompt) for job in jobs)
        padding = [width - len(job.prompt) for job in jobs]
        ids = torch.tensor([[END] * pad + job.prompt for pad, job in zip(padding, jobs, strict=True)])
        runs = [_Run(model, padding, self.stored) for model in (self.model, self.draft) if model is not None]
        if self.cached:
            for run in runs:
                run.go(ids[:, : self.cached])
            ids = ids[:, self.cached :]
        out: list[list[int]] = [[] for _ in jobs]
        for t in range(TOKENS):
            rows = [run.go(ids) for run in runs]
            for i, job in enumerate(jobs):
                out[i].append(self.pick([each[i] for each in rows], t, job))
            ids = torch.tensor([[each[-1]] for each in out])
        states = runs[0].states()
        return [Served(tokens, states[i, pad:]) for i, (tokens, pad) in enumerate(zip(out, padding, strict=True))]


class _Run:
    """One model over one batch, left-padded."""

    def __init__(self, model: Any, padding: Sequence[int], stored: Quantise | None) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._padding = torch.tensor(padding)[:, None]
        self._stored = stored
        self._states: list[States] = []

    def go(self, ids: torch.Tensor) -> Logits:
        """The rows after the last of `ids`."""
        before = self._cache.get_seq_length()
        places = torch.arange(before + ids.shape[1])[None] - self._padding
        mask = (places >= 0).long()
        extra = {"attention_mask": mask} if int(self._padding.max()) else {}
        states, rows = forward(self._model, ids, self._cache, 1, position_ids=places[:, before:].clamp_min(0), **extra)
        if self._stored is not None:
            with torch.inference_mode():
                for kept in (kept for layer in self._cache.layers for kept in (layer.keys, layer.values)):
                    kept[..., before:, :] = self._stored(kept[..., before:, :])
        self._states.append(states)
        return rows[:, -1]

    def states(self) -> States:
        return np.concatenate(self._states, axis=1)


def forward(model: Any, ids: torch.Tensor, cache: Any, count: int, **extra: Any) -> tuple[States, NDArray[np.float32]]:
    """States of all `ids` and the logits after the last `count` of them."""
    with torch.inference_mode():
        states = model.model(ids, past_key_values=cache, use_cache=True, **extra).last_hidden_state
        rows = model.lm_head(states[:, -count:])
    return states.float().numpy(), rows.float().numpy()


def in_blocks(model: Any, job: Job, guess: Sequence[int], size: int) -> Served:
    """Lossless speculation: `size` positions a pass, drafted by `guess`; what the sampler would not choose is dropped.

    With a size of all tokens and a good guess it is one prefill.
    """
    cache, out, states, fed = DynamicCache(), list[int](), [], 0
    while len(out) < TOKENS:
        drafted = list(guess[len(out) : len(out) + size - 1]) if out == list(guess[: len(out)]) else []
        feed = [*job.prompt, *out][fed:] + drafted
        made, rows = forward(model, torch.tensor([feed]), cache, len(drafted) + 1)
        for row, expected in zip(rows[0], [*drafted, None], strict=True):
            out.append(choose(row, len(out), job.sampler))
            if out[-1] != expected or len(out) == TOKENS:
                break
        good = len(job.prompt) + len(out) - 1
        states.append(made[0, : good - fed])
        cache.crop(good - fed - len(feed))
        fed = good
    return Served(out, np.concatenate(states))


def by_engine(model: Any, job: Job) -> Served:
    """Through an engine's own context, one token after the other."""
    context, out, states = model.open(job.prompt, TOKENS), list[int](), []
    while True:
        row = context.logits().copy()
        row[END] = NEVER
        states.append(context.states())
        out.append(choose(row, len(out), job.sampler))
        if len(out) == TOKENS:
            return Served(out, np.concatenate(states))
        context.append(out[-1])


def by_engine_together(model: Any, asked: Sequence[Job], streams: int) -> list[Served]:
    """As an engine serves `streams` at once: each begins a few tokens after the one before it, and when one ends the
    next takes its place. They stand side by side at different lengths."""
    waiting, writing, served = list(enumerate(asked)), list[_Writing](), dict[int, Served]()
    for turn in itertools.count():
        if waiting and len(writing) < streams and turn % 3 == 0:
            number, job = waiting.pop(0)
            writing.append(_Writing(number, job, model.open(job.prompt, TOKENS)))
        for one in writing:
            one.choose()
        served |= {one.number: one.served() for one in writing if len(one.out) == TOKENS}
        writing = [one for one in writing if len(one.out) < TOKENS]
        if len(served) == len(asked):
            return [served[number] for number in range(len(asked))]
        faults = model.advance([one.context for one in writing], [one.out[-1] for one in writing])
        assert not any(faults), faults
    raise AssertionError


class _Writing:
    """One of several jobs that an engine's model is in the middle of."""

    def __init__(self, number: int, job: Job, context: Any) -> None:
        self.number = number
        self.context = context
        self.out: list[int] = []
        self._job = job
        self._states: list[States] = []

    def choose(self) -> None:
        row = self.context.logits().copy()
        row[END] = NEVER
        self._states.append(self.context.states())
        self.out.append(choose(row, len(self.out), self._job.sampler))

    def served(self) -> Served:
        return Served(self.out, np.concatenate(self._states))


def int4_rows(values: torch.Tensor) -> torch.Tensor:
    """Keys and values in four bits, one scale a head and position."""
    scale = values.float().abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
    return ((values.float() / scale).round().clamp(-7, 7) * scale).to(values.dtype)
