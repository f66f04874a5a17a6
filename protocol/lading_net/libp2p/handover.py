"""Passing items from one thread to another's event loop, bounded: when the receiver lags, the oldest are lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """One producer thread, one consumer thread.

    `wake` runs in the producer's thread and must get `drain` called in the consumer's soon; it is called once per
    batch, however many items the batch grows to.
    """

    def __init__(self, size: int, wake: Callable[[Callable[[], None]], None], take: Callable[[T], None]) -> None:
        self._items: deque[T] = deque(maxlen=size)
        self._wake = wake
        self._take = take
        self._woken = False
        self.lost = 0

    def put(self, item: T) -> None:
        if len(self._items) == self._items.maxlen:
            self.lost += 1
        self._items.append(item)
        if not self._woken:
            self._woken = True
            self._wake(self.drain)

    def drain(self) -> None:
        # The flag falls before the items are taken: whatever is put after this line wakes us again, so nothing stays.
        self._woken = False
        while self._items:
            self._take(self._items.popleft())
