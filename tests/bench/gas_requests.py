"""What settlement costs per request at three sizes of network, from gas measured in the same run.

The sizes are assumptions, stated beside each figure; the gas is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from .gas_stage import Cost
from .report import say

WEEK, LOCK_DAYS, PARTIES = 7, 30, 5


class Network(msgspec.Struct, frozen=True):
    """A day of a network. A host lands `batch` vouchers in a transaction, each for `requests_each` requests."""

    name: str
    requests: int
    consumers: int
    hosts: int
    channels: int
    batch: int
    requests_each: int
    tables: int

    @property
    def words(self) -> str:
        return (
            f"{self.requests:,} requests a day of {self.consumers:,} consumers at {self.hosts:,} hosts: "
            f"{self.channels:,} channels, K={self.batch}, R={self.requests_each}, {self.tables:,} tables of {PARTIES}"
        )


NETWORKS = (
    Network("1e3", 10**3, 20, 5, 40, 8, 25, 2),
    Network("1e6", 10**6, 5_000, 300, 30_000, 100, 33, 100),
    Network("1e9", 10**9, 2_000_000, 20_000, 10_000_000, 500, 100, 10_000),
)


def redemption(costs: Mapping[str, Cost], batches: tuple[int, ...], gas: Callable[[Cost], int]) -> tuple[float, float]:
    """(gas a transaction, gas a voucher): the line through the two largest batches."""
    small, large = batches[-2:]
    low, high = (gas(costs[f"gas_per_voucher_k{count}"]) for count in (small, large))
    each = (high - low) / (large - small)
    return high - each * large, each


def report(costs: Mapping[str, Cost], batches: tuple[int, ...]) -> None:
    """`costs` by name, of one chain. The floor needs a chain that tells what a transaction touched."""
    fixed, each = redemption(costs, batches, lambda cost: cost.gas)
    told = all(costs[f"gas_per_voucher_k{count}"].touched is not None for count in batches)
    least = redemption(costs, batches, lambda cost: cost.touched.floor if cost.touched else 0)[1] if told else None
    say(
        "gas_per_request_by_transfer",
        unit(costs, "gas_erc20_transfer"),
        "gas/request",
        note="one ERC-20 transfer per request, to one payee and without a split; at every size",
    )
    for network in NETWORKS:
        _report(network, costs, fixed / network.batch + each, least)


def _report(network: Network, costs: Mapping[str, Cost], voucher: float, least: float | None) -> None:
    def line(name: str, value: float, note: str, floor: float | None = None) -> None:
        reference = ("floor of a voucher, spread over its requests", floor) if floor is not None else None
        say(f"gas_per_request_{network.name}_{name}", value, "gas/request", reference=reference, note=note)

    many, transfer = network.requests_each, unit(costs, "gas_erc20_transfer")
    daily, weekly = voucher / many, voucher / many / WEEK
    claims = network.tables * PARTIES * unit(costs, "gas_claim") / (WEEK * network.requests)
    locks = network.channels * unit(costs, "gas_lock_first") / (LOCK_DAYS * network.requests)
    rows = costs["gas_lock_first"].per
    single = unit(costs, "gas_per_voucher_k1") / many
    floors = (None, None) if least is None else (least / many, least / many / WEEK)
    line("voucher_per_transaction", single, f"each voucher redeemed alone; {network.words}")
    line("daily", daily, f"every channel redeemed once a day; {network.words}", floors[0])
    line("weekly", weekly, f"every channel redeemed once a week; {network.words}", floors[1])
    line("claims", claims, "to add: every party of every table claims once a week, alone")
    line("locks", locks, f"to add: every channel locked once in {LOCK_DAYS} days, in batches of {rows}")
    say(
        f"gas_per_request_{network.name}_all",
        daily + claims + locks,
        "gas/request",
        reference=("one ERC-20 transfer per request", transfer),
        note=f"redeemed daily, with claims and locks; redeemed weekly it is {weekly + claims + locks:.1f}",
    )


def unit(costs: Mapping[str, Cost], name: str) -> float:
    return costs[name].gas / costs[name].per
