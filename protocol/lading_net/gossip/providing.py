"""What this peer provides, told to those who are near to it by Kademlia, and again before they forget.

Nobody waits for it. What the keys mean is nobody's here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from lading_net.core.kademlia import Contact
from lading_net.core.places import place
from lading_net.core.providers import LIFE_SECONDS, Providers
from lading_net.direct import DirectTransport
from lading_net.errors import NetError
from lading_net.gossip.asking import provide_at
from lading_net.gossip.seeking import Seeker
from lading_net.peer import Endpoint

AGAIN_SECONDS = LIFE_SECONDS / 4
SOON_SECONDS = (5.0, 30.0, 300.0)
"""What is new is told again so soon: in a young network, or just joined, one knows few of those near to a key."""

RETRY_SECONDS = 2.0
TOLD = 8
"""Peers that are told of each key."""

log = logging.getLogger(__name__)


class Providing:
    """`run` until cancelled; `set` at any time."""

    def __init__(self, transport: DirectTransport, seeker: Seeker, own: Providers) -> None:
        self._transport, self._seeker, self._own = transport, seeker, own
        self._keys: tuple[bytes, ...] = ()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._changed = asyncio.Event()

    def set(self, keys: Iterable[bytes], endpoints: Sequence[str]) -> None:
        """Straight endpoints and relayed ones: by these a home that nobody can call is found, too."""
        named = tuple(Endpoint(one.kind, one.host, one.port, via=one.via) for one in map(Endpoint.parse, endpoints))
        wanted = tuple(keys) if named else ()
        if (wanted, named) != (self._keys, self._endpoints):
            self._keys, self._endpoints = wanted, named
            self._changed.set()

    async def run(self) -> None:
        times = 0
        while True:
            self._changed.clear()
            if all([await self._tell(key) for key in self._keys]):
                pause = SOON_SECONDS[times] if times < len(SOON_SECONDS) else AGAIN_SECONDS
                times += 1
            else:
                pause = RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
                    times = 0
            except TimeoutError:
                pass

    async def _tell(self, key: bytes) -> int:
        """How many heard it."""
        mine = Contact(self._transport.peer_id, self._endpoints)
        self._own.put(key, mine, place(""), asyncio.get_running_loop().time())
        heard = 0
        async with self._seeker.search(key) as nearest:
            for one in nearest[:TOLD]:
                try:
                    if (link := self._transport.link_to(one.peer.address)) is not None:
                        await provide_at(link, key, mine)
                        heard += 1
                except NetError as error:
                    log.debug("0x%s does not hear what we provide: %s", one.peer.address.hex(), error.message)
        return heard
