"""Kademlia's search: asks the nearest to a place among all keys for nearer ones, until the nearest have answered.

Three at once. Who has not answered within a second holds up only the end: another is asked meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lading_net.core.kademlia import Contact, spot
from lading_protocol.ids import Address

AT_ONCE, MOST_ASKED = 3, 24
SLOW_SECONDS = 1.0

Ask = Callable[[Contact], Awaitable[list[Contact] | None]]


async def walk(target: int, known: Iterable[Contact], ask: Ask, around: int) -> tuple[list[Contact], list[Contact]]:
    """Those that answered, nearest first, and those that were only heard of. `ask` says whom a peer knows, None when it
    does not answer; `around` of the nearest must have answered, or all that there are."""
    left = {one.peer.address: one for one in known}  # not asked, answered, or being asked: all but the silent
    answered: dict[Address, Contact] = {}
    silent: set[Address] = set()
    running: dict[asyncio.Future[list[Contact] | None], Contact] = {}
    slow: set[asyncio.Future[list[Contact] | None]] = set()
    asked = 0

    def far(one: Contact) -> int:
        return spot(one.peer.raw) ^ target

    try:
        while True:
            nearest = sorted(left.values(), key=far)[:around]
            busy = {one.peer for one in running.values()}
            fresh = [one for one in nearest if one.peer not in busy and one.peer.address not in answered]
            for one in fresh[: max(0, min(AT_ONCE - len(running.keys() - slow), MOST_ASKED - asked))]:
                running[asyncio.ensure_future(ask(one))] = one
                asked += 1
            if not any(one in nearest for one in running.values()):
                break
            done, rest = await asyncio.wait(running, timeout=SLOW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                slow |= rest
            for each in done:
                one, told = running.pop(each), each.result()
                slow.discard(each)
                if told is None:
                    silent.add(one.peer.address)
                    del left[one.peer.address]
                    continue
                answered[one.peer.address] = one
                for other in told:
                    if other.peer.address not in silent:
                        left.setdefault(other.peer.address, other)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return sorted(answered.values(), key=far), [one for at, one in left.items() if at not in answered]
