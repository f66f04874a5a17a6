"""Who hosts an agent, asked of Kademlia by one who takes no part in it: a consumer that knows one address.

Providers name where their direct link listens. Each was asked by its own neighbours only for what it says of itself;
whether it serves the agent is for its signed offer to say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from lading_net.core.kademlia import NEAREST, Contact, spot
from lading_net.core.providers import provider_key
from lading_net.dialling import dial_any
from lading_net.direct import DirectTransport
from lading_net.errors import DialFailed, NetError
from lading_net.gossip.asking import providers_of
from lading_net.gossip.walking import walk
from lading_net.peer import Endpoint
from lading_protocol.ids import Address, AgentId
from lading_protocol.keys import PrivateKey

DIAL_SECONDS = 5.0

log = logging.getLogger(__name__)


async def find_hosts(transport: DirectTransport, bootstrap: Sequence[str], agent: AgentId) -> list[Contact]:
    """Asks under a name of the moment, as a host has one id at two addresses. `bootstrap` are addresses of anybody's
    control plane. Raises DialFailed when none of them answers."""
    asking = transport.stranger(PrivateKey(os.urandom(32)))
    try:
        return await _search(asking, bootstrap, provider_key(agent))
    finally:
        await asking.close()


async def _search(asking: DirectTransport, bootstrap: Sequence[str], key: bytes) -> list[Contact]:
    known = []
    for each in map(Endpoint.parse, bootstrap):
        if each.peer is not None:
            known.append(Contact(each.peer, (Endpoint(each.kind, each.host, each.port),)))
    found: dict[Address, Contact] = {}

    async def ask(one: Contact) -> list[Contact] | None:
        told = await _ask(asking, one, key)
        if told is None:
            return None
        providers, closer = told
        found.update((each.peer.address, each) for each in providers)
        return closer

    answered, _ = await walk(spot(key), known, ask, NEAREST)
    if not answered:
        raise DialFailed("Nobody who is known answers questions about hosts.", hint="Name another --peer.")
    return list(found.values())


async def _ask(asking: DirectTransport, one: Contact, key: bytes) -> tuple[list[Contact], list[Contact]] | None:
    try:
        await dial_any(asking, one.texts, one.peer.address, DIAL_SECONDS)
        link = asking.link_to(one.peer.address)
        return None if link is None else await providers_of(link, key)
    except NetError as error:
        log.debug("0x%s names no hosts: %s", one.peer.address.hex(), error.message)
        return None
