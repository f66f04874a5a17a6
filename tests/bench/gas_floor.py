"""The least that a transaction can cost on an EVM chain, from the gas schedule and from what the transaction touched.

Counts what no contract can do without: the transaction, its calldata, the signatures recovered, and every slot and
contract touched, once and cold. Leaves out instructions, memory and events: what a contract pays above this is its own.
Sources: yellow paper, appendix G; EIP-2028, EIP-2929, EIP-3529, EIP-7623.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

TRANSACTION = 21_000
ZERO_BYTE, OTHER_BYTE = 4, 16
COLD_CONTRACT = 2_600
COLD_READ = 2_100
CHANGE = 2_900  # of a slot that holds something, after its cold read
FILL = 20_000  # of an empty slot, after its cold read
CLEARED = 4_800  # given back for a slot made empty, at most a fifth of all
DEAREST_BYTES = 10  # EIP-7623: calldata alone costs at least this a token, a non-zero byte being four
ECRECOVER = 3_000
_ECRECOVER_AT, _SHA256_AT = 1, 2


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """What transactions did to the state: slots by what became of them, and the contracts called beside the first."""

    transactions: int = 1
    zero_bytes: int = 0
    other_bytes: int = 0
    recovered: int = 0
    hashing: int = 0
    """Gas of the sha256 precompile, which no contract makes cheaper."""
    read: int = 0
    changed: int = 0
    filled: int = 0
    cleared: int = 0
    contracts: int = 0

    @property
    def calldata(self) -> int:
        return ZERO_BYTE * self.zero_bytes + OTHER_BYTE * self.other_bytes

    @property
    def floor(self) -> int:
        """Gas as a receipt would say it."""
        slots = self.read + self.changed + self.filled + self.cleared
        gas = TRANSACTION * self.transactions + self.calldata + ECRECOVER * self.recovered + self.hashing
        gas += COLD_CONTRACT * self.contracts + COLD_READ * slots
        gas += CHANGE * (self.changed + self.cleared) + FILL * self.filled
        gas -= min(CLEARED * self.cleared, gas // 5)
        tokens = self.zero_bytes + 4 * self.other_bytes
        return max(gas, TRANSACTION * self.transactions + DEAREST_BYTES * tokens)

    def formula(self, per: int) -> str:
        """The sum in words, without what is nought; `per` are the units that the transaction served."""
        times = f"{self.transactions} x " if self.transactions > 1 else ""
        parts = [f"{times}{TRANSACTION:,}"]
        parts += [f"{self.calldata:,} for {self.zero_bytes + self.other_bytes:,} bytes of calldata"]
        parts += [
            f"{count:,} {what} x {price:,}"
            for count, what, price in (
                (self.recovered, "ecrecover", ECRECOVER),
                (self.changed, "slots changed", COLD_READ + CHANGE),
                (self.filled, "slots filled", COLD_READ + FILL),
                (self.cleared, "slots cleared", COLD_READ + CHANGE - CLEARED),
                (self.read, "slots only read", COLD_READ),
                (self.contracts, "contracts called", COLD_CONTRACT),
            )
            if count
        ]
        parts += [f"{self.hashing:,} for sha256"] if self.hashing else []
        whole = " + ".join(parts)
        return f"({whole}) / {per}" if per > 1 else whole

    def __add__(self, other: Touched) -> Touched:
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return Touched(**{name: mine[name] + theirs[name] for name in mine})


def touched(
    data: bytes, sender: str, calls: Mapping[str, Any], before: Mapping[str, Any], change: Mapping[str, Any]
) -> Touched:
    """From a transaction's calldata and what `debug_traceTransaction` says of it: the call tree, the state that it
    touched as it was before, and the difference that it made (callTracer, prestateTracer, and that in diffMode)."""
    kinds = dict.fromkeys(("read", "changed", "filled", "cleared"), 0)
    for account, state in before.items():
        left, came = (change[side].get(account, {}).get("storage", {}) for side in ("pre", "post"))
        for slot, value in state.get("storage", {}).items():
            if slot in came:
                kinds["changed" if int(value, 16) else "filled"] += 1
            else:
                kinds["cleared" if slot in left else "read"] += 1
    precompiles = [(int(call["to"], 16), call) for call in _inner(calls) if int(call["to"], 16) <= 0xFF]
    others = {call["to"] for call in _inner(calls) if int(call["to"], 16) > 0xFF} - {sender, calls["to"]}
    return Touched(
        zero_bytes=data.count(0),
        other_bytes=len(data) - data.count(0),
        recovered=sum(at == _ECRECOVER_AT for at, _ in precompiles),
        hashing=sum(
            60 + 12 * ((len(call["input"]) // 2 - 1 + 31) // 32) for at, call in precompiles if at == _SHA256_AT
        ),
        contracts=len(others),
        **kinds,
    )


def _inner(call: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for one in call.get("calls", ()):
        yield one
        yield from _inner(one)
