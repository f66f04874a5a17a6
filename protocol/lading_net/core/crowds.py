"""Who must leave when a room is full: someone from the area that has the most people in it.

So a crowd from one corner of the network only ever drives out itself. Knows nothing of what the members are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lading_net.core.places import Place

M = TypeVar("M")


class Crowd(Generic[M]):
    """At most `most` members, each from a place; members of one area are kept in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._areas: dict[bytes, dict[M, None]] = {}
        self._where: dict[M, bytes] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, member: M) -> bool:
        return member in self._where

    def enter(self, member: M, where: Place, may_go: Callable[[M], bool] = lambda _: True) -> list[M]:
        """Who has to leave for it: nobody while there is room, one of the fullest area, or the newcomer itself, when
        there nobody `may_go`. The newcomer is a member unless it is named."""
        leaving: list[M] = []
        if len(self._where) >= self._most:
            fullest = max(self._areas.values(), key=len, default={})
            leaving = [next((one for one in fullest if may_go(one)), member)]
            self.leave(leaving[0])
        if leaving != [member]:
            self._areas.setdefault(where.area, {})[member] = None
            self._where[member] = where.area
        return leaving

    def leave(self, member: M) -> None:
        area = self._where.pop(member, None)
        if area is not None:
            del self._areas[area][member]
            if not self._areas[area]:
                del self._areas[area]
