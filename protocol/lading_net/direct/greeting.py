"""Who the peer at the other end of a link says it is: the asking side of libp2p's identify. Nothing of it is proved."""

from __future__ import annotations

import asyncio

import msgspec

from lading_net.binaddr import decode_endpoint
from lading_net.core.kademlia import LONGEST, decode_endpoints
from lading_net.core.rpc import Cutter
from lading_net.direct.link import DirectLink
from lading_net.direct.manners import IDENTIFY
from lading_net.errors import BadEndpoint, BadMessage, NetTimeout, ProtocolViolation, StreamReset
from lading_net.peer import Endpoint
from lading_net.protobuf import decode_fields

ANSWER_SECONDS = 5.0


class Introduced(msgspec.Struct, frozen=True):
    """Where it listens, what it serves, and where it sees us."""

    endpoints: tuple[Endpoint, ...]
    protocols: frozenset[str]
    seen: Endpoint | None


async def introduced(link: DirectLink) -> Introduced:
    """Raises NetError."""
    try:
        fields = decode_fields(await _told(link))
    except ValueError:
        raise BadMessage("The peer's introduction is malformed.") from None
    protocols = frozenset(each.decode(errors="replace") for each in fields.get(3, [])[:64])
    try:
        seen = decode_endpoint(fields[4][-1])
    except (KeyError, BadEndpoint):
        seen = None
    return Introduced(decode_endpoints(fields.get(2, [])), protocols, seen)


async def _told(link: DirectLink) -> bytes:
    stream, cutter = await link.open(IDENTIFY), Cutter(LONGEST)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while data := await stream.read():
                if pieces := cutter.feed(data):
                    return pieces[0]
    except TimeoutError:
        raise NetTimeout("The peer does not say who it is.") from None
    except ProtocolViolation as error:
        raise BadMessage(error.message) from None
    finally:
        stream.reset()
    raise StreamReset("The peer does not say who it is.")
