"""A token bucket per name: so many at once, refilled over a period. Bounded, and pure but for its own counts."""


class Bucket:
    """`size` tokens that refill over `period` seconds."""

    def __init__(self, size: int, period: float, names: int = 10_000) -> None:
        self._size = size
        self._rate = size / period
        self._names = names
        self._held: dict[str, tuple[float, float]] = {}

    def take(self, name: str, now: float) -> float:
        """0 and one token less, or the seconds until there is one."""
        if len(self._held) >= self._names and name not in self._held:
            self._held = {who: held for who, held in self._held.items() if self._now(held, now) < self._size}
            if len(self._held) >= self._names:
                return 1 / self._rate
        tokens = self._now(self._held.get(name, (float(self._size), now)), now)
        if tokens < 1:
            return (1 - tokens) / self._rate
        self._held[name] = (tokens - 1, now)
        return 0.0

    def _now(self, held: tuple[float, float], now: float) -> float:
        tokens, at = held
        return min(float(self._size), tokens + max(now - at, 0) * self._rate)
