"""Who is named to those who look for somebody: peers that anybody can call.

Most home machines cannot be called. If they were named like others, every search would wait for them in vain. So a
peer that called us is called back once under another name, as a stranger would, and again now and then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Collection

from lading_net.core.kademlia import Contact, Table, spot
from lading_net.core.places import place
from lading_net.dialling import dial_any
from lading_net.direct import DirectLink, DirectTransport
from lading_net.errors import NetError
from lading_net.peer import Endpoint, PeerId
from lading_protocol.keys import PrivateKey

CALL_SECONDS = 3.0
AT_ONCE = 32
AGAIN = 4
"""Peers of the table that are called at each time, to see whether they are still there."""

log = logging.getLogger(__name__)


class Reach:
    """Keeps `table` to those that were reached."""

    def __init__(self, transport: DirectTransport, table: Table) -> None:
        self._transport, self.table = transport, table
        self._stranger: DirectTransport | None = None
        self._calling = asyncio.Semaphore(AT_ONCE)

    async def learn(self, link: DirectLink, told: tuple[Endpoint, ...], alive: Collection[PeerId]) -> None:
        """What a peer says of where it listens, once it has been found there."""
        assert link.seen_at is not None
        host, port = link.seen_at
        where = place(host)
        contact = Contact(link.peer_id, _dialable(told, host))
        if not contact.endpoints or self.table.knows(contact) or not self.table.room(contact, where, alive):
            return
        found = Endpoint(_kind(host), host, port) if link.dialled else await self._called(contact)
        if found is not None:
            others = tuple(each for each in contact.endpoints if each != found)
            self.table.add(Contact(contact.peer, (found, *others)), where, alive)

    async def look_after(self) -> None:
        """Calls some of those in the table that we have no link to; who is not there any more is not named again."""
        some = self.table.nearest(spot(os.urandom(32)), 2 * AGAIN)
        unlinked = [one for one in some if self._transport.link_to(one.peer.address) is None][:AGAIN]
        for one, found in zip(unlinked, await asyncio.gather(*map(self._called, unlinked)), strict=True):
            if found is None:
                self.table.drop(one.peer)

    async def _called(self, contact: Contact) -> Endpoint | None:
        """Where it answered."""
        if self._stranger is None:  # one for all calls: its links read into one buffer
            self._stranger = self._transport.stranger(PrivateKey(os.urandom(32)))
        async with self._calling:
            try:
                link = await dial_any(self._stranger, contact.texts, contact.peer.address, CALL_SECONDS)
            except NetError as error:
                log.debug("0x%s cannot be called: %s", contact.peer.address.hex(), error.message)
                return None
        if not isinstance(link, DirectLink) or link.seen_at is None:
            return None
        host, port = link.seen_at
        link.turn_away("That was all.")
        return Endpoint(_kind(host), host, port)

    async def close(self) -> None:
        if self._stranger is not None:
            await self._stranger.close()


def _dialable(told: tuple[Endpoint, ...], seen: str) -> tuple[Endpoint, ...]:
    """What a peer that we see at `seen` says of itself, without what means another machine to everybody; and the
    place where we see it, with the port that it names."""
    found = [each for each in told if not _is_own(each.host) or _is_own(seen)]
    if told and all(each.host != seen for each in found):
        found.append(Endpoint(_kind(seen), seen, told[0].port))
    return tuple(found)


def _kind(host: str) -> str:
    return "ip6" if ":" in host else "ip4"


def _is_own(host: str) -> bool:
    """Whether it is another machine for each that reads it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or address.is_multicast
