"""Where an address is: the machine, and the neighbourhood that one owner is likely to hold whole.

Peer ids cost nothing, addresses cost something, and addresses in many networks cost much: so crowds are thinned, and
peers chosen, by place. Resolves no name.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

import msgspec

T = TypeVar("T")
_SIZES = {4: (4, 2), 6: (8, 4)}
"""Bytes: a household gets one IPv4 address or an IPv6 /64; a /16 or a /32 is rarely split among strangers."""
_NEAR_WHOLE = frozenset({10, 127})  # first bytes of IPv4 that are near whatever follows ...
_NEAR_PARTS = frozenset({0, 169, 172, 192, 198, 203, *range(240, 256)})  # ... and those that may be
_BYTES = {str(number): number for number in range(256)}


class Place(msgspec.Struct, frozen=True):
    """`machine` and `area` are to be compared only. `near`: no stranger could have chosen it."""

    machine: bytes
    area: bytes
    near: bool = False


@lru_cache(maxsize=1024)
def place(host: str) -> Place:
    """Of an address as text; anything else, such as a name, is a place of its own."""
    parts = [_BYTES.get(part, -1) for part in host.split(".", 4)]
    if len(parts) == 4 and min(parts) >= 0 and parts[0] not in _NEAR_PARTS:  # a flood of callers pays this road only
        return Place(bytes(parts), bytes(parts[:2]), parts[0] in _NEAR_WHOLE)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Place(host.encode(), host.encode())
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    machine, area = _SIZES[address.version]
    near = address.is_private or address.is_link_local
    return Place(address.packed[:machine], address.packed[:area], near)


def diverse(
    candidates: Iterable[T], where: Callable[[T], Iterable[Place]], known: Iterable[Place], most: int
) -> list[T]:
    """The candidates, in their order, of which no area gets more than `most` together with those `known` already.

    One that says it is in several places needs room in each. Near places are not counted: whoever is in our own
    network need not pretend to be many.
    """
    count = Counter(one.area for one in known if not one.near)
    chosen = []
    for candidate in candidates:
        areas = {there.area for there in where(candidate) if not there.near}
        if all(count[area] < most for area in areas):
            chosen.append(candidate)
            count.update(areas)
    return chosen
