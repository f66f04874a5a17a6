"""A token bucket that lends: whoever takes more than is there waits until it is made up for, in the order of taking."""


class Bucket:
    """`rate` bytes a second, 0 for no limit; what is saved up is at most one second's worth."""

    __slots__ = ("_level", "_now", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._level = rate
        self._now = now

    def take(self, amount: float, now: float) -> float:
        """Seconds to wait before the amount may be used."""
        if not self.rate:
            return 0.0
        self._level = min(self._level + max(now - self._now, 0.0) * self.rate, self.rate) - amount
        self._now = max(now, self._now)
        return max(-self._level / self.rate, 0.0)
