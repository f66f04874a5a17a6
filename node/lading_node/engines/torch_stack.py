"""Keys and values of several sequences side by side, so that one forward pass appends a token to each of them.

All end at the same column; what lies before a sequence's first column is masked, and zero. A row holds nothing of
another, not even of one that stood in its place before. Knows columns, no model and no token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lading_node.engines.quiet_torch import Cache, DynamicLayer, torch

# Columns that are set aside at once; attention kernels want a mask whose rows are aligned.
BLOCK = 64
Cut = tuple[slice, slice, slice]


class Part(NamedTuple):
    """Where the keys and values of one sequence are: the last `length` columns in a row of `cache`."""

    cache: Any
    row: int
    length: int


class Stack(Cache):  # type: ignore[misc]
    """A cache for the library, which gives it keys and values of one more column a pass and gets all of them.

    `mask` and `places` (the lengths) go into the pass with it. What a pass that failed has written is written over by
    the next one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.rows = len(parts)
        self.end = max(part.length for part in parts)
        self.width = (self.end // BLOCK + 1) * BLOCK
        runs, like = _runs(parts), parts[0].cache.layers
        super().__init__(layers=[_Layer(runs, n, self.end, self.width) for n in range(len(like))])
        self.places = torch.tensor([[part.length] for part in parts], device=like[0].keys.device)
        columns = torch.arange(self.width, device=self.places.device)
        hidden = (columns < self.end - self.places) | (columns > self.end)
        self.mask = like[0].keys.new_zeros((self.rows, 1, 1, self.width))
        self.mask.masked_fill_(hidden[:, None, None], float("-inf"))

    def holds(self, parts: Sequence[Part]) -> bool:
        """Whether its rows are just these, in their order, and there is room for another column."""
        return (
            len(parts) == self.rows
            and self.end < self.width
            and all(part.cache is self and part.row == at for at, part in enumerate(parts))
        )

    def grow(self) -> None:
        """After a pass: the column that it wrote counts, and the next one is open."""
        self.end += 1
        self.places += 1
        for layer in self.layers:
            layer.end = self.end
        if self.end < self.width:
            self.mask[..., self.end] = 0


class _Run(NamedTuple):
    """Neighbours in `cache` that stay neighbours, from row `row` there and row `at` here: they are copied at once."""

    cache: Any
    row: int
    at: int
    rows: int
    longest: int

    @property
    def cut(self) -> Cut:
        end = self.cache.get_seq_length()
        return slice(self.row, self.row + self.rows), slice(None), slice(end - self.longest, end)


def _runs(parts: Sequence[Part]) -> list[_Run]:
    runs: list[_Run] = []
    for at, part in enumerate(parts):
        last = runs[-1] if runs else None
        if last is not None and last.cache is part.cache and part.row == last.row + last.rows:
            runs[-1] = last._replace(rows=last.rows + 1, longest=max(last.longest, part.length))
        else:
            runs.append(_Run(part.cache, part.row, at, 1, part.length))
    return runs


class _Layer(DynamicLayer):  # type: ignore[misc]
    def __init__(self, runs: Sequence[_Run], n: int, end: int, width: int) -> None:
        super().__init__()
        self.is_initialized = True
        self.end = end
        self.keys = _laid(runs, [run.cache.layers[n].keys for run in runs], end, width)
        self.values = _laid(runs, [run.cache.layers[n].values for run in runs], end, width)

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        self.keys[:, :, self.end : self.end + 1] = keys
        self.values[:, :, self.end : self.end + 1] = values
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.end


def _laid(runs: Sequence[_Run], given: Sequence[Any], end: int, width: int) -> Any:
    _, heads, _, size = given[0].shape
    made = given[0].new_zeros((sum(run.rows for run in runs), heads, width, size))
    for run, tensor in zip(runs, given, strict=True):
        made[run.at : run.at + run.rows, :, end - run.longest : end] = tensor[run.cut]
    return made
