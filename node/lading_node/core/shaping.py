"""What a request changes in a row of logits before the choice: bias, penalties, and the mask of a grammar.

One `Shaper` an answer. It follows from the prompt and the ids so far alone, so resume and audits rebuild it; nothing is
counted again for a token. docs/protocol.md, section 6, has the rule and its order.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lading_node.core.mask import Guide
from lading_protocol.messages import Sampler

Reals = NDArray[np.float64]
Ids = NDArray[np.intp]


class Shaper:
    """`vocab` is the length of a row; ids of the prompt beyond it are not counted. The bias is without fault."""

    def __init__(self, sampler: Sampler, prompt: Iterable[int], vocab: int, guide: Guide | None) -> None:
        self._guide = guide
        self._bias = np.array([token for token, _ in sampler.bias], dtype=np.intp)
        self._added = np.array([value for _, value in sampler.bias], dtype=np.float64)
        self._repetition = _Seen(vocab) if sampler.repetition != 1 else None
        self._output = _Seen(vocab) if sampler.presence or sampler.frequency else None
        self._sampler = sampler
        # By how much an error of a logit can grow on the way.
        self.stretch = max(sampler.repetition, 1 / sampler.repetition)
        if self._repetition is not None:
            for token in prompt:
                self._repetition.add(token)

    def push(self, token: int) -> None:
        """The next token of the answer."""
        if self._repetition is not None:
            self._repetition.add(token)
        if self._output is not None:
            self._output.add(token)
        if self._guide is not None:
            self._guide.advance(token)

    def shape(self, logits: NDArray[np.float32]) -> tuple[Reals, Ids | None]:
        """A new row, and the ids that its numbers belong to where a grammar has left out the others; None: all."""
        row = logits.astype(np.float64)
        row[self._bias] += self._added
        if self._repetition is not None:
            ids = self._repetition.ids
            seen, by = row[ids], self._sampler.repetition
            row[ids] = np.where(seen > 0, seen / by, seen * by)
        if self._output is not None:
            ids = self._output.ids
            row[ids] -= self._sampler.frequency * self._output.counts
            row[ids] -= self._sampler.presence
        if self._guide is None:
            return row, None
        allowed = np.flatnonzero(self._guide.mask())
        return row[allowed], allowed


class _Seen:
    """The ids that came up, each once, and how often each did."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._places: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.intp)
        self._counts = np.zeros(64, dtype=np.float64)

    def add(self, token: int) -> None:
        if not 0 <= token < self._vocab:
            return
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> Ids:
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> Reals:
        return self._counts[: len(self._places)]
