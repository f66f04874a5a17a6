"""Endpoints behind a DNS name: /dnsaddr/NAME stands for the multiaddrs in the TXT records of _dnsaddr.NAME.

Follows names that name others, not deep and not many. Source: the multiaddr specification of dnsaddr. Names within
/dns4/ and the like are looked up when they are dialled, and are no business of this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from lading_net.errors import BadEndpoint, NetError
from lading_net.peer import Endpoint

log = logging.getLogger(__name__)

MOST, DEEPEST = 32, 4
LOOKUP_SECONDS = 5.0
_PREFIX = "/dnsaddr/"


class NoSuchName(NetError):
    """A name has no addresses."""

    code = "net_no_such_name"
    hint = "Check the name, and that this machine's name service answers."


async def resolve(endpoints: Iterable[str], servers: tuple[str, ...] = (), port: int = 53) -> tuple[str, ...]:
    """The endpoints with each /dnsaddr/ replaced by what it stands for, in order, none twice.

    A name that does not answer is left out with a warning, so that one of several is enough. `servers` are asked
    instead of the system's. Raises BadEndpoint for what is neither.
    """
    found: dict[str, None] = {}
    for each in endpoints:
        if not each.startswith(_PREFIX):
            Endpoint.parse(each)
            found[each] = None
            continue
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found |= dict.fromkeys(await _behind(each, servers, port, DEEPEST))
        except (NetError, TimeoutError) as error:
            log.warning("%s is left out: %s", each, str(error) or "the name service does not answer")
    return tuple(found)[:MOST]


async def _behind(text: str, servers: tuple[str, ...], port: int, depth: int) -> list[str]:
    """Raises NoSuchName, BadEndpoint."""
    name, _, owner = text.removeprefix(_PREFIX).partition("/")
    if not name or len(name) > 240 or depth <= 0:
        raise BadEndpoint(f"{text[:120]!r} names nobody." if depth else f"{text[:120]!r} leads from name to name.")
    found: list[str] = []
    for record in await _texts(f"_dnsaddr.{name}", servers, port):
        address = record.removeprefix("dnsaddr=")
        if address == record or not address.endswith(owner):
            continue
        if address.startswith(_PREFIX):
            found += await _behind(address, servers, port, depth - 1)
            continue
        try:
            found.append(str(Endpoint.parse(address)))
        except BadEndpoint:
            continue  # of another kind than we dial
    if not found:
        raise NoSuchName(f"The name {name!r} has no address that can be dialled from here.")
    return found[:MOST]


async def _texts(name: str, servers: tuple[str, ...], port: int) -> list[str]:
    """The TXT records of a name. Raises NoSuchName."""
    try:
        import dns.asyncresolver
        import dns.exception
    except ImportError:
        hint = "Install it with: pip install 'lading[discovery]'"
        raise NoSuchName("Names of this kind need dnspython, which is not installed.", hint=hint) from None
    try:
        resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            resolver.nameservers, resolver.port = list(servers), port
        answer = await resolver.resolve(name, "TXT", lifetime=LOOKUP_SECONDS)
    except (dns.exception.DNSException, OSError) as error:
        raise NoSuchName(f"The name {name!r} is not found: {error}") from None
    return [b"".join(record.strings).decode(errors="replace") for record in answer][:MOST]
