"""Mappings that can be taken back to an earlier block. Knows no contract."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ABSENT = object()


class Journal:
    """What every change replaced, by block. `block` is the one whose events are being applied."""

    def __init__(self) -> None:
        self.block = 0
        self._replaced: deque[tuple[int, dict[Any, Any], Any, Any]] = deque()
        self._pages: list[dict[Any, Any]] = []

    def page(self) -> dict[Any, Any]:
        """A new mapping under this journal."""
        self._pages.append({})
        return self._pages[-1]

    def write(self, page: dict[Any, Any], key: Any, value: Any) -> None:
        self._replaced.append((self.block, page, key, page.get(key, _ABSENT)))
        page[key] = value

    def undo_above(self, block: int) -> None:
        while self._replaced and self._replaced[-1][0] > block:
            _, page, key, before = self._replaced.pop()
            if before is _ABSENT:
                del page[key]
            else:
                page[key] = before

    def settle(self, block: int) -> None:
        """Nothing up to `block` will be taken back any more: forget how."""
        while self._replaced and self._replaced[0][0] <= block:
            self._replaced.popleft()

    def clear(self) -> None:
        self._replaced.clear()
        for page in self._pages:
            page.clear()

    def __len__(self) -> int:
        return len(self._replaced)


class Ledger(Generic[K, V]):
    """A mapping with a default, as Solidity has them. Values are immutable."""

    def __init__(self, journal: Journal, default: V) -> None:
        self._journal = journal
        self._default = default
        self._page: dict[K, V] = journal.page()

    def __getitem__(self, key: K) -> V:
        return self._page.get(key, self._default)

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.write(self._page, key, value)

    def __contains__(self, key: K) -> bool:
        return key in self._page

    def items(self) -> Iterator[tuple[K, V]]:
        return iter(self._page.items())

    def values(self) -> Iterator[V]:
        return iter(self._page.values())


class Amounts(Ledger[K, int]):
    """A ledger of wei. Zero means nothing is there."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, 0)

    def add(self, key: K, amount: int) -> None:
        if amount:
            self[key] = self[key] + amount

    def total(self) -> int:
        return sum(self.values())

    def shown(self) -> dict[K, int]:
        """Those that are not zero."""
        return {key: amount for key, amount in self.items() if amount}
