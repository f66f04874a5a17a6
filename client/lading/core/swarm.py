"""Which chunk is asked of which peer: a state machine over the chunks that a fetch lacks and the peers that may help.

Every chunk is asked in order of need, a few ahead of each peer's own pace; a peer that dies, lies or lags loses its
chunks to the others, and at the end the fast ones ask again for what a slow one owes. Pure: bytes, sockets and clocks
are the caller's.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import msgspec

_MEMORY = 2.0  # seconds of work over which a peer's pace is averaged
_UNKNOWN_PACE = 1e6


class Wanted(NamedTuple):
    """A chunk to be had: `size` bytes of the blob."""

    blob: bytes
    size: int


class Rules(msgspec.Struct, frozen=True):
    """Chunks ahead of a peer, at least and at most; between them, what it sends in `ahead` seconds. Times are seconds.

    A chunk is asked of `holders` peers at once, at most. `silence` without a byte, or `slowest` over one chunk, and a
    peer is given up.
    """

    least: int = 3
    most: int = 8
    ahead: float = 0.5
    holders: int = 2
    silence: float = 15.0
    slowest: float = 120.0


class GivenUp(NamedTuple):
    peer: Hashable
    reason: str


class _Peer:
    __slots__ = ("bytes", "chunk", "heard", "lacks", "owes", "seconds", "since")

    def __init__(self, now: float) -> None:
        self.owes: deque[int] = deque()  # in the order asked: answers come in it
        self.lacks: set[bytes] = set()
        self.heard = self.since = now
        self.bytes = self.seconds = 0.0
        self.chunk = 1  # bytes of the last one

    @property
    def pace(self) -> float:
        """Bytes a second, while it had something to send."""
        return self.bytes / self.seconds if self.seconds > 0 else _UNKNOWN_PACE

    def sent(self, size: int, now: float) -> None:
        self.chunk = max(size, self.chunk)
        self.bytes += size
        self.seconds += max(now - self.since, 1e-6)
        self.since = now
        while self.seconds > _MEMORY:
            self.bytes, self.seconds = self.bytes / 2, self.seconds / 2


class Swarm:
    """`reasons` says why each peer that is gone was given up, by its name."""

    def __init__(self, wanted: Sequence[Wanted], rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.left = len(wanted)
        self.reasons: dict[Hashable, str] = {}
        self._wanted = wanted
        self._landed = bytearray(len(wanted))
        self._holders: list[int] = [0] * len(wanted)
        self._free: dict[bytes, list[int]] = {}
        for number, chunk in enumerate(wanted):
            self._free.setdefault(chunk.blob, []).append(number)
        self._left_of = {blob: len(numbers) for blob, numbers in self._free.items()}
        for heap in self._free.values():
            heapify(heap)
        self._peers: dict[Hashable, _Peer] = {}
        self._liars: set[Hashable] = set()

    def __contains__(self, peer: Hashable) -> bool:
        return peer in self._peers

    # -- peers come and go

    def join(self, peer: Hashable, now: float) -> bool:
        """False for one that is here already, or that sent something wrong. One that was lost may come back."""
        if peer in self._peers or peer in self._liars:
            return False
        self._peers[peer] = _Peer(now)
        return True

    def leave(self, peer: Hashable, reason: str) -> None:
        """What it owed is free for others."""
        gone = self._peers.pop(peer, None)
        if gone is None:
            return
        if peer not in self._liars:
            self.reasons[peer] = reason
        for number in gone.owes:
            self._release(number)

    def tick(self, now: float) -> list[GivenUp]:
        """Gives up peers that are silent or far too slow; call it every second or so."""
        late = []
        for peer, state in self._peers.items():
            if not state.owes:
                continue
            if now - state.heard > self.rules.silence:
                late.append(GivenUp(peer, f"it sent nothing for {self.rules.silence:g} s"))
            elif now - state.since > self.rules.slowest:
                late.append(GivenUp(peer, f"it took over {self.rules.slowest:g} s for one chunk"))
        for one in late:
            self.leave(*one)
        return late

    # -- what to ask

    def ask(self, peer: Hashable, now: float) -> list[int]:
        """The chunks to ask of a peer now, in this order."""
        state = self._peers.get(peer)
        if state is None:
            return []
        if not state.owes:
            state.since = state.heard = now
        room = self._window(state) - len(state.owes)
        asked: list[int] = []
        while len(asked) < room and (number := self._next_free(state)) is not None:
            asked.append(number)
            self._take(state, number)
        if not asked and len(state.owes) < self.rules.least and (number := self._next_owed(state, now)) is not None:
            asked.append(number)
            self._take(state, number)
        return asked

    def owes(self, peer: Hashable) -> int:
        state = self._peers.get(peer)
        return len(state.owes) if state else 0

    def needs(self, number: int) -> bool:
        return not self._landed[number]

    # -- what came of it

    def heard(self, peer: Hashable, now: float) -> None:
        """Some bytes came."""
        if state := self._peers.get(peer):
            state.heard = now

    def sent(self, peer: Hashable, now: float) -> None:
        """The chunk that it owed longest has arrived; whether it is right shows later."""
        if (state := self._peers.get(peer)) and state.owes:
            number = state.owes.popleft()
            state.sent(self._wanted[number].size, now)
            self._release(number, keep=True)

    def accept(self, number: int) -> bool:
        """A chunk was checked and found right. False when another peer's copy was first: it is not to be counted."""
        if self._landed[number]:
            return False
        self._landed[number] = 1
        self.left -= 1
        blob = self._wanted[number].blob
        self._left_of[blob] -= 1
        if not self._left_of[blob]:
            del self._left_of[blob]
        return True

    def refuse(self, number: int, peer: Hashable, reason: str) -> None:
        """A chunk that had arrived is wrong: the peer is given up for good, the chunk is free again."""
        self.leave(peer, reason)
        self.reasons[peer] = reason
        self._liars.add(peer)
        self.back(number)

    def back(self, number: int) -> None:
        """A chunk that had arrived will not be counted after all."""
        if not self._landed[number] and not self._holders[number]:
            self._put_back(number)

    def absent(self, peer: Hashable) -> None:
        """The peer does not hold the blob of the chunk that it owed longest, so it is asked no other of it."""
        state = self._peers.get(peer)
        if state and state.owes:
            number = state.owes.popleft()
            state.lacks.add(self._wanted[number].blob)
            state.since = state.heard
            self._release(number)

    def lacks_all(self, peer: Hashable) -> bool:
        """Whether a peer holds nothing of what is still to be had."""
        state = self._peers.get(peer)
        return state is not None and state.lacks.issuperset(self._left_of)

    # -- inside

    def _window(self, state: _Peer) -> int:
        if not state.seconds:
            return self.rules.least
        return min(max(int(state.pace * self.rules.ahead / state.chunk), self.rules.least), self.rules.most)

    def _next_free(self, state: _Peer) -> int | None:
        for blob in list(self._free):
            if blob in state.lacks:
                continue
            heap = self._free[blob]
            while heap:
                number = heappop(heap)
                if not self._landed[number] and not self._holders[number]:
                    return number
            del self._free[blob]
        return None

    def _next_owed(self, state: _Peer, now: float) -> int | None:
        """Of what others owe, the chunk that would come last, if this peer would likely bring it sooner."""
        best, latest = None, 0.0
        for other in self._peers.values():
            if other is state:
                continue
            due = 0.0
            for number in other.owes:
                due += max(self._wanted[number].size / other.pace, now - other.since)
                if due > latest and self._may_double(state, number):
                    best, latest = number, due
        if best is None:
            return None
        mine = sum(self._wanted[number].size for number in (*state.owes, best)) / state.pace
        return best if mine < latest else None

    def _may_double(self, state: _Peer, number: int) -> bool:
        return (
            not self._landed[number]
            and self._holders[number] < self.rules.holders
            and number not in state.owes
            and self._wanted[number].blob not in state.lacks
        )

    def _take(self, state: _Peer, number: int) -> None:
        state.owes.append(number)
        self._holders[number] += 1

    def _release(self, number: int, keep: bool = False) -> None:
        """One peer fewer owes it. Unless it has just arrived (`keep`), it is free again when nobody else owes it."""
        self._holders[number] -= 1
        if not keep and not self._holders[number] and not self._landed[number]:
            self._put_back(number)

    def _put_back(self, number: int) -> None:
        heappush(self._free.setdefault(self._wanted[number].blob, []), number)
