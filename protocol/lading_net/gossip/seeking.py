"""Whom we are connected to: the bootstrap peers until we know others, and those that they lead to.

Asks by Kademlia, always within a time limit; nobody ever waits for it. Knows no topics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from lading_net.core.kademlia import NEAREST, Contact, Table, spot
from lading_net.core.places import Place, diverse, place
from lading_net.dialling import dial_any
from lading_net.direct import DirectLink, DirectTransport
from lading_net.errors import NetError
from lading_net.gossip.asking import nearest_of
from lading_net.peer import Endpoint
from lading_protocol.ids import Address

DIAL_SECONDS = 8.0
RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
LOOK_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
CHECK_SECONDS = 30.0
CALM_SECONDS = 300.0
"""After so long a bootstrap peer that is gone is called again, where we know enough others meanwhile."""

STEADY_SECONDS = 10.0
"""A connection that lasts less counts as a failure, so that a peer that hangs up on us is not called without pause."""

PEERS_OF_AREA = 2
"""Of those we found ourselves, so that no one owner of many addresses becomes all that we see."""

FORGET_SECONDS = 60.0
"""How long a discovered peer that did not answer is left alone."""

AT_ONCE, MOST_ASKED = 3, 12
"""Peers asked side by side, and in one search."""

log = logging.getLogger(__name__)


class Seeker:
    """Runs until cancelled. `enough` connections make it stop looking, or three times as many while it is `starved`."""

    def __init__(
        self, transport: DirectTransport, table: Table, enough: int, starved: Callable[[], bool] = lambda: False
    ) -> None:
        self._transport, self._table, self._starved = transport, table, starved
        self._least = enough
        self._failed: dict[Address, float] = {}
        self._changed = asyncio.Event()
        self._look = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._kept: set[Address] = set()

    def meet(self, endpoint: Endpoint) -> None:
        """Somebody told of this peer: stay connected to it, as to those of the bootstrap list."""
        assert endpoint.peer is not None
        peer = endpoint.peer.address
        if self._group is not None and peer != self._transport.address and peer not in self._kept:
            self._kept.add(peer)
            self._group.create_task(self._keep_connected(peer, endpoint))

    @property
    def _enough(self) -> int:
        return 3 * self._least if self._starved() else self._least

    def changed(self) -> None:
        """Connections have come or gone."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._look.set()

    async def run(self, bootstrap: Iterable[Endpoint]) -> None:
        async with asyncio.TaskGroup() as self._group:
            for endpoint in bootstrap:
                self.meet(endpoint)
            await self._keep_looking()

    async def _keep_connected(self, peer: Address, endpoint: Endpoint) -> None:
        failures = 0
        while True:
            began = _now()
            if await self._connected(peer, (str(endpoint),)):
                while self._transport.link_to(peer) is not None:
                    await _within(CHECK_SECONDS, self._changed.wait())
            failures = 0 if _now() - began > STEADY_SECONDS else failures
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
            failures += 1
            if pause == RETRY_SECONDS[-1] and len(self._transport.links()) >= self._enough:
                pause = CALM_SECONDS
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _keep_looking(self) -> None:
        """Looks often at first and after a loss, then ever less: a quiet network costs next to nothing."""
        quiet = 0
        while True:
            pause = LOOK_SECONDS[min(quiet, len(LOOK_SECONDS) - 1)] * random.uniform(0.8, 1.2)
            lacking = len(self._transport.links()) < self._enough
            await _within(pause, self._look.wait() if lacking else asyncio.Event().wait())
            if self._look.is_set() and lacking:
                await asyncio.sleep(LOOK_SECONDS[0])
                quiet = min(quiet, 2)
            self._look.clear()
            quiet += 1
            if self._transport.links() and (lacking or quiet >= len(LOOK_SECONDS)):
                try:
                    async with asyncio.timeout(DIAL_SECONDS):
                        # Our own neighbourhood in one search, a random place in the next.
                        own = self._transport.peer_id.raw
                        await self.search(own if random.random() < 0.5 else os.urandom(32))
                except TimeoutError:
                    pass
                except Exception:
                    log.exception("looking for peers failed")

    async def search(self, key: bytes) -> list[Contact]:
        """The nearest to a key that answered, nearest first."""
        target, asked = spot(key), set[Address]()
        known = {one.peer.address: one for one in self._table.nearest(target)}
        answered: list[Contact] = []
        while len(asked) < MOST_ASKED:
            order = sorted(known.values(), key=lambda one: spot(one.peer.raw) ^ target)[:NEAREST]
            turn = [one for one in order if one.peer.address not in asked][: min(AT_ONCE, MOST_ASKED - len(asked))]
            if not turn:
                break
            asked |= {one.peer.address for one in turn}
            for one, told in zip(turn, await asyncio.gather(*(self._ask(one, key) for one in turn)), strict=True):
                if told is None:
                    known.pop(one.peer.address, None)
                    continue
                answered.append(one)
                for other in told:
                    if other.peer != self._transport.peer_id:
                        known.setdefault(other.peer.address, other)
        await self._widen(list(known.values()))
        return sorted(answered, key=lambda one: spot(one.peer.raw) ^ target)

    async def _ask(self, one: Contact, key: bytes) -> list[Contact] | None:
        link = self._transport.link_to(one.peer.address)
        if link is None:
            if len(self._transport.links()) >= self._enough or not await self._connected(one.peer.address, one.texts):
                return None
            link = self._transport.link_to(one.peer.address)
        try:
            return None if link is None else await nearest_of(link, key)
        except NetError as error:
            log.debug("0x%s does not say whom it knows: %s", one.peer.address.hex(), error.message)
            return None

    async def _widen(self, found: list[Contact]) -> None:
        """Connects to some of them, as long as we have too few."""
        now = _now()
        self._failed = {peer: until for peer, until in self._failed.items() if until > now}
        room = self._enough - len(self._transport.links())
        fresh = [one for one in found if self._is_new(one.peer.address)]
        random.shuffle(fresh)  # whoever was heard of first, and most, has no advantage
        taken = [_place(link) for link in self._transport.links() if isinstance(link, DirectLink)]
        chosen = diverse(fresh, _places, taken, PEERS_OF_AREA)[: max(0, room)]
        await asyncio.gather(*(self._connected(one.peer.address, one.texts) for one in chosen))

    def _is_new(self, peer: Address) -> bool:
        mine = self._transport.address
        return peer != mine and peer not in self._failed and self._transport.link_to(peer) is None

    async def _connected(self, peer: Address, endpoints: tuple[str, ...]) -> bool:
        if self._transport.link_to(peer) is not None:
            return True
        try:
            await dial_any(self._transport, endpoints, peer, DIAL_SECONDS)
        except NetError as error:
            log.debug("cannot connect to 0x%s: %s", peer.hex(), error.message)
            self._failed[peer] = _now() + FORGET_SECONDS
            return False
        return True


def _places(one: Contact) -> list[Place]:
    return [place(each.host) for each in one.endpoints]


def _place(link: DirectLink) -> Place:
    return place(link.seen_at[0] if link.seen_at else "")


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _within(seconds: float, waiting: Coroutine[Any, Any, Any]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        pass
