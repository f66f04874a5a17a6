"""Whom we are connected to: the bootstrap peers until we know others, and those that they lead to.

Asks by Kademlia, always within a time limit; nobody ever waits for it. Knows no topics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from lading_net.core.kademlia import Contact, spot
from lading_net.core.places import Place, diverse, place
from lading_net.dialling import dial_any
from lading_net.direct import DirectLink, DirectTransport
from lading_net.errors import NetError
from lading_net.gossip.asking import nearest_of
from lading_net.gossip.reaching import Reach
from lading_net.gossip.walking import walk
from lading_net.peer import Endpoint
from lading_protocol.ids import Address

DIAL_SECONDS, ASK_SECONDS, SEARCH_SECONDS = 8.0, 3.0, 20.0
"""To reach a peer that we want, one that may know others, and for a whole search."""

RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
LOOK_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
MOST_LOSSES = 5
"""After each of so many losses within a minute the next look is later, by the steps above."""

CHECK_SECONDS = 30.0
CALM_SECONDS = 300.0
"""After so long a bootstrap peer that is gone is called again, where we know enough others meanwhile."""

STEADY_SECONDS = 10.0
"""A connection that lasts less counts as a failure, so that a peer that hangs up on us is not called without pause."""

PEERS_OF_AREA = 2
"""Of those we found ourselves, so that no one owner of many addresses becomes all that we see."""

FORGET_SECONDS = 60.0
"""How long a discovered peer that did not answer is left alone."""

KIN = 4
"""So many of those nearest to us stay connected whatever else we have: who looks for us asks them."""

AROUND = 8
"""A search is over when so many of the nearest have answered."""

log = logging.getLogger(__name__)


class Seeker:
    """Runs until cancelled. `enough` connections make it stop looking for more than its kin, or three times as many
    while it is `starved`; with 0 it dials nobody that it was not told of."""

    def __init__(
        self, transport: DirectTransport, reach: Reach, enough: int, starved: Callable[[], bool] = lambda: False
    ) -> None:
        self._transport, self._reach, self._starved = transport, reach, starved
        self._least = enough
        self._failed: dict[Address, float] = {}
        self._changed = asyncio.Event()
        self._look = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._kept: set[Address] = set()
        self._kin: set[Address] = set()
        self._held: set[Address] = set()

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
        """Looks often at first and after a loss, then ever less: a quiet network costs next to nothing, and nobody can
        make us look without end by hanging up on us."""
        quiet, losses, lost = 0, 0, -FORGET_SECONDS
        while True:
            pause = LOOK_SECONDS[min(quiet, len(LOOK_SECONDS) - 1)] * random.uniform(0.8, 1.2)
            await _within(pause, self._loss())
            if self._look.is_set():
                losses = losses + 1 if _now() - lost < FORGET_SECONDS else 0
                lost = _now()
                await asyncio.sleep(LOOK_SECONDS[min(losses, MOST_LOSSES)])
                quiet = min(quiet, 2)
            self._look.clear()
            quiet += 1
            if self._transport.links() and self._least:
                few = len(self._transport.links()) < self._enough
                try:
                    async with asyncio.timeout(SEARCH_SECONDS):
                        await (self._look_anywhere() if few and random.random() < 0.5 else self._join_kin())
                        await self._reach.look_after()
                except TimeoutError:
                    pass
                except Exception:
                    log.exception("looking for peers failed")

    async def _loss(self) -> None:
        """Returns when a connection that we made is gone and there are too few, or it was to our kin; and with the very
        first one. Those of others come and go: they may only have a question."""
        while True:
            await self._look.wait()
            linked = {link.peer for link in self._transport.links()}
            gone = self._held - linked
            if not self._held or gone & self._kin or (gone and len(linked) < self._enough):
                return
            self._look.clear()

    async def _look_anywhere(self) -> None:
        async with self.search(os.urandom(32)):
            pass

    async def _join_kin(self) -> None:
        """Kademlia's rule, without which nobody is found by id: those nearest to us know us."""
        async with self.search(self._transport.peer_id.raw, KIN) as nearest:
            self._kin = {one.peer.address for one in nearest[:KIN]}

    @asynccontextmanager
    async def search(self, key: bytes, around: int = AROUND) -> AsyncIterator[list[Contact]]:
        """The nearest to a key that answered, nearest first; connections made for it last as long as the block."""
        target, called = spot(key), set[Address]()
        near = self._reach.table.nearest(target)
        try:
            answered, heard = await walk(target, near, lambda one: self._ask(one, key, called), around)
            yield answered
            called -= self._kin
            called -= await self._widen(answered + heard, called)
        finally:
            called -= self._kept
            self._hang_up(called)
            links = [link for link in self._transport.links() if isinstance(link, DirectLink)]
            self._held = {link.peer for link in links if link.dialled} - called

    def _hang_up(self, called: Iterable[Address]) -> None:
        """A search calls more peers than we have use for."""
        for peer in called:
            if (link := self._transport.link_to(peer)) is not None and link.dialled:
                link.turn_away("The question was answered.")

    async def _ask(self, one: Contact, key: bytes, called: set[Address]) -> list[Contact] | None:
        peer = one.peer.address
        try:
            if self._transport.link_to(peer) is None:
                if self._failed.get(peer, 0.0) > _now():
                    return None
                called.add(peer)
                if not await self._connected(peer, one.texts, ASK_SECONDS):
                    self._reach.table.drop(one.peer)
                    return None
            link = self._transport.link_to(peer)
            if link is None:
                return None
            return [told for told in await nearest_of(link, key) if told.peer != self._transport.peer_id]
        except NetError as error:
            log.debug("0x%s does not say whom it knows: %s", peer.hex(), error.message)
            return None

    async def _widen(self, found: list[Contact], called: set[Address]) -> set[Address]:
        """Connects to some of them, as long as we have too few; `called` are connections that may end. To whom."""
        now = _now()
        self._failed = {peer: until for peer, until in self._failed.items() if until > now}
        staying = [link for link in self._transport.links() if link.peer not in called]
        linked = {link.peer for link in staying} | self._failed.keys() | {self._transport.address}
        fresh = [one for one in found if one.peer.address not in linked]
        random.shuffle(fresh)  # whoever was heard of first, and most, has no advantage
        taken = [_place(link) for link in staying if isinstance(link, DirectLink)]
        chosen = diverse(fresh, _places, taken, PEERS_OF_AREA)[: max(0, self._enough - len(staying))]
        lacking = self._enough // 2 - len(staying) - len(chosen)  # a network may well be in one area
        chosen += [one for one in fresh if one not in chosen][: max(0, lacking)]
        await asyncio.gather(*(self._connected(one.peer.address, one.texts) for one in chosen))
        return {one.peer.address for one in chosen}

    async def _connected(self, peer: Address, endpoints: tuple[str, ...], patience: float = DIAL_SECONDS) -> bool:
        if self._transport.link_to(peer) is not None:
            return True
        try:
            await dial_any(self._transport, endpoints, peer, patience)
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
