"""How long a host lets its payer wait, learnt from the host itself: a histogram of its waits in which old ones fade.

Pure. A wait is in seconds; what is done about a long one is core.failover's.
"""

from array import array
from math import log2
from typing import Final

_LEAST: Final = 1e-4
_STEPS: Final = 4  # buckets an octave: a quantile is known to a fifth
_BUCKETS: Final = 24 * _STEPS
# So many waits are remembered at full weight; then all that came before count half.
_MEMORY: Final = 512
_STALE: Final = 16


class Pace:
    """The waits of one host. 200 bytes; `note` costs less than a microsecond."""

    __slots__ = ("_at", "_counts", "_kept", "_noted", "_total")

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * _BUCKETS))
        self._total = 0
        self._noted = 0
        self._kept: dict[float, float] = {}
        self._at = 0

    @property
    def total(self) -> int:
        """How many waits stand behind what is said here."""
        return self._total

    def note(self, seconds: float) -> None:
        step = int(_STEPS * log2(seconds / _LEAST)) if seconds > _LEAST else 0
        self._counts[min(step, _BUCKETS - 1)] += 1
        self._total += 1
        self._noted += 1
        if self._total >= 2 * _MEMORY:
            self._counts = array("H", (count // 2 for count in self._counts))
            self._total = sum(self._counts)

    def quantile(self, share: float) -> float:
        """A bound that `share` of the waits kept (0 without any); as of one of the last few waits."""
        if self._noted - self._at >= _STALE or share not in self._kept:
            if self._noted != self._at:
                self._kept.clear()
                self._at = self._noted
            self._kept[share] = self._find(share)
        return self._kept[share]

    def _find(self, share: float) -> float:
        left = share * self._total
        for step, count in enumerate(self._counts):
            left -= count
            if count and left <= 1e-9:
                return float(_LEAST * 2.0 ** ((step + 1) / _STEPS))
        return 0.0
