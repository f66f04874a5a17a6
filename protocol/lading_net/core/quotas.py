"""How often someone may do something: a bucket of tokens for each key, in bounded memory.

Knows no clock: every question brings `now` in seconds. What a key is, and what it wants to do, is the caller's affair.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

K = TypeVar("K")


class Rate(msgspec.Struct, frozen=True):
    """`burst` at once, and `second` more with every second. `debt`: how far below zero charges may go."""

    burst: float
    second: float
    debt: float = 0.0


class Bucket:
    """One key's tokens; full at first."""

    __slots__ = ("_rate", "_since", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate, self._tokens, self._since = rate, rate.burst, now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """False, and nothing is taken, when there is not enough."""
        if self.tokens(now) < amount:
            return False
        self._tokens -= amount
        return True

    def charge(self, now: float, amount: float) -> None:
        """Takes it whether it is there or not, down to the debt that the rate allows."""
        self._tokens = max(self.tokens(now) - amount, -self._rate.debt)

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until `amount` can be taken, which must fit the burst; 0 when it can be now."""
        return max(0.0, (amount - self.tokens(now)) / self._rate.second)

    def tokens(self, now: float) -> float:
        """A clock that goes back gives nothing and takes nothing."""
        self._tokens = min(self._rate.burst, self._tokens + max(0.0, now - self._since) * self._rate.second)
        self._since = max(self._since, now)
        return self._tokens


class Quotas(Generic[K]):
    """A bucket for each of at most `keys` keys. A full one is as good as none, so those are forgotten first; else the
    one that was asked about longest ago."""

    def __init__(self, rate: Rate, keys: int = 4096) -> None:
        self._rate, self._most = rate, keys
        self._buckets: dict[K, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, now: float, amount: float = 1.0) -> bool:
        return self._of(key, now).take(now, amount)

    def charge(self, key: K, now: float, amount: float) -> None:
        self._of(key, now).charge(now, amount)

    def wait(self, key: K, now: float, amount: float = 1.0) -> float:
        return self._of(key, now).wait(now, amount)

    def _of(self, key: K, now: float) -> Bucket:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._forget(now)
            bucket = Bucket(self._rate, now)
        self._buckets[key] = bucket  # the order of the dict is that of use
        return bucket

    def _forget(self, now: float) -> None:
        """Half of the room at once, so that a flood of new keys pays for it rarely."""
        kept = [(key, one) for key, one in self._buckets.items() if one.tokens(now) < self._rate.burst]
        self._buckets = dict(kept[-(self._most // 2) :] if self._most > 1 else ())
