"""What a gossip peer remembers of messages, by name (`rpc.named`): which it has seen, and the newest ones whole.

Knows no clock: every call brings `now` in seconds, or is the tick itself. Bounded, whatever arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from lading_net.core.rpc import Message, named

_MOST_NOTES = 65_536
"""Of who got which message; nobody else gets any until some of the messages are gone."""


class Seen:
    """Remembers each id for `seconds` to twice that; less where more than `most` come in that time."""

    def __init__(self, seconds: float, most: int = 65_536) -> None:
        self._seconds, self._most = seconds, most
        self._ids: set[bytes] = set()
        self._older: set[bytes] = set()
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._ids) + len(self._older)

    def has(self, name: bytes) -> bool:
        return name in self._ids or name in self._older

    def add(self, name: bytes, now: float) -> None:
        if now - self._since > self._seconds or len(self._ids) >= self._most:
            # What nothing was added to for so long is all forgotten.
            self._older = self._ids if now - self._since < 2 * self._seconds else set()
            self._ids, self._since = set(), now
        self._ids.add(name)


class Shelf:
    """Messages of the last `windows` ticks; the oldest go first when they are more than `most` bytes together."""

    def __init__(self, windows: int, most: int) -> None:
        self._windows, self._most = windows, most
        self._kept: dict[bytes, Message] = {}  # in the order in which they came
        self._given: dict[bytes, dict[Hashable, int]] = {}
        self._notes = 0  # entries of that
        self._marks: deque[int] = deque()  # how many came within each of the last ticks
        self._came = self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, message: Message) -> None:
        name = named(message.id)
        if name in self._kept:
            return
        self._kept[name] = message
        self._came += 1
        self._bytes += len(message.data)
        while self._bytes > self._most:
            self._drop()

    def take(self, name: bytes, who: Hashable, most: int) -> Message | None:
        """The message, which the same one gets `most` times at most."""
        message = self._kept.get(name)
        if message is None:
            return None
        given = self._given.setdefault(name, {})
        if who not in given:
            if self._notes >= _MOST_NOTES:
                return None
            self._notes += 1
        given[who] = given.get(who, 0) + 1
        return message if given[who] <= most else None

    def recent(self, topic: str, ticks: int) -> list[bytes]:
        """The whole ids of what came since so many ticks ago, newest last."""
        marks = list(self._marks)
        count = self._came + sum(marks[max(0, len(marks) - ticks + 1) :])
        newest = list(self._kept.values())[max(0, len(self._kept) - count) :]
        return [message.id for message in newest if message.topic == topic]

    def tick(self) -> None:
        self._marks.append(self._came)
        self._came = 0
        while len(self._marks) >= self._windows:
            self._marks.popleft()
        while len(self._kept) > sum(self._marks):
            self._drop()

    def _drop(self) -> None:
        name = next(iter(self._kept))
        self._bytes -= len(self._kept.pop(name).data)
        self._notes -= len(self._given.pop(name, ()))
