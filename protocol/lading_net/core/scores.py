"""What peers have done wrong lately: points that halve as time goes by, in bounded memory.

Whoever has too many is barred until they have decayed. Nothing good is counted: it could be saved up for an attack.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

K = TypeVar("K")
_NEGLIGIBLE = 0.5


class Scores(Generic[K]):
    """`limit` points bar a key; they halve every `half_life` seconds. At most `keys` are remembered: the worst."""

    def __init__(self, limit: float, half_life: float, keys: int = 4096) -> None:
        self._limit, self._half_life, self._most = limit, half_life, keys
        self._points: dict[K, tuple[float, float]] = {}  # as of when

    def __len__(self) -> int:
        return len(self._points)

    def blame(self, key: K, points: float, now: float) -> float:
        """The score after it, at most four times the limit, so that nobody is barred for ever."""
        score = min(self.score(key, now) + points, 4 * self._limit)
        if key not in self._points and len(self._points) >= self._most:
            self._forget(now)
        self._points[key] = (score, now)
        return score

    def score(self, key: K, now: float) -> float:
        points, since = self._points.get(key, (0.0, now))
        return float(points * 2.0 ** (-max(0.0, now - since) / self._half_life))

    def barred_for(self, key: K, now: float) -> float:
        """Seconds until it is let in again; 0 for one that is not barred."""
        score = self.score(key, now)
        return self._half_life * math.log2(score / self._limit) if score > self._limit else 0.0

    def _forget(self, now: float) -> None:
        """Those whose points no longer count, and of the others the better half."""
        scores = sorted(((self.score(key, now), key) for key in self._points), key=lambda pair: -pair[0])
        kept = [(key, score) for score, key in scores[: self._most // 2] if score > _NEGLIGIBLE]
        self._points = {key: (score, now) for key, score in kept}
