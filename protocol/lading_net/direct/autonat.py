"""Whether others reach us: libp2p's AutoNAT, version 1, over the direct link. Asks, and answers by calling back.

A peer is called back at the IP address that it comes from and at no other, under a name made for the purpose: so the
call is a new connection, and nobody can be made to call strangers. Field 15 of an answer, ours, is where the asker
was seen. Source: libp2p's specification autonat/autonat-v1.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from lading_net.binaddr import decode_endpoint, encode_endpoint
from lading_net.direct.link import DirectLink
from lading_net.direct.relay import read_message
from lading_net.direct.relaywire import framed
from lading_net.direct.stream import DirectStream
from lading_net.errors import BadEndpoint, BadMessage, NetError, NetTimeout
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Stream, StreamHandler
from lading_net.protobuf import decode_message, encode_count, encode_field
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

AUTONAT = "/libp2p/autonat/1.0.0"
OK, DIAL_ERROR, DIAL_REFUSED, BAD_REQUEST = 0, 100, 101, 200
_DIAL, _DIAL_RESPONSE = 0, 1
MOST_ADDRESSES = 4
CALL_SECONDS = 3.0
ANSWER_SECONDS = MOST_ADDRESSES * CALL_SECONDS + 3.0
AT_ONCE = 16


class Reached(msgspec.Struct, frozen=True):
    """What a peer that called us back found. `endpoint` is "" when it got through nowhere, `why` then says why.

    `seen` is the address and port that our link to it comes from, None when it does not say.
    """

    endpoint: str
    why: str
    seen: tuple[str, int] | None


class Called(Protocol):
    """Somebody to call back with: a transport of another name."""

    async def dial(self, endpoint: str, expect: Address | None) -> DirectLink: ...
    async def close(self) -> None: ...


class CallBack:
    """Serves AUTONAT from `open` on. `stranger` makes a transport under the key that it is given."""

    def __init__(self, handle: Callable[[str, StreamHandler], None], stranger: Callable[[PrivateKey], Called]) -> None:
        self._handle, self._stranger = handle, stranger
        self._busy: set[Address] = set()

    def open(self) -> None:
        self._handle(AUTONAT, self._serve)

    async def _serve(self, stream: Stream) -> None:
        assert isinstance(stream, DirectStream)
        async with asyncio.timeout(CALL_SECONDS):
            data, _ = await read_message(stream)
        place = stream.seen_at
        if place is None or stream.peer in self._busy or len(self._busy) >= AT_ONCE:
            why = "it is called through a relay" if place is None else "it is calling back already"
            stream.write(_answer(DIAL_REFUSED, why))
            return
        self._busy.add(stream.peer)
        try:
            answer = await self._try(_asked(data), stream.peer_id, place)
        except BadMessage as error:
            answer = _answer(BAD_REQUEST, error.message)
        finally:
            self._busy.discard(stream.peer)
        stream.write(answer)

    async def _try(self, asked: list[Endpoint], peer: PeerId, place: tuple[str, int]) -> bytes:
        seen = encode_endpoint(_endpoint(place))
        allowed = [one for one in asked if one.via is None and one.host == place[0]][:MOST_ADDRESSES]
        why = f"none of the addresses asked for is {place[0]}, where the call comes from"
        caller = self._stranger(PrivateKey(os.urandom(32)))
        try:
            for endpoint in allowed:
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        await caller.dial(str(msgspec.structs.replace(endpoint, peer=peer)), None)
                    return _answer(OK, "", encode_endpoint(endpoint), seen)
                except (NetError, TimeoutError) as error:
                    why = str(error) or f"{endpoint} did not answer within {CALL_SECONDS:g} s"
        finally:
            await caller.close()
        return _answer(DIAL_ERROR if allowed else DIAL_REFUSED, why[:200], b"", seen)


async def ask_to_be_called(link: DirectLink, mine: PeerId, endpoints: Sequence[str]) -> Reached:
    """Asks the peer to call us at these endpoints. Raises NetError, UnknownProtocol where it does not serve this."""
    stream = await link.open(AUTONAT)
    parsed = [Endpoint.parse(each) for each in endpoints]
    addresses = b"".join(encode_field(2, encode_endpoint(_bare(each))) for each in parsed)
    dial = encode_field(1, encode_field(1, mine.raw) + addresses)
    stream.write(framed(encode_count(1, _DIAL) + encode_field(2, dial)))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            data, _ = await read_message(stream)
    except TimeoutError:
        raise NetTimeout("The peer did not say whether it could call us back.") from None
    finally:
        stream.reset()
    return _reached(data)


def _asked(data: bytes) -> list[Endpoint]:
    try:
        fields, _ = decode_message(data)
        info = decode_message(decode_message(fields[2][-1])[0][1][-1])[0]
    except (ValueError, KeyError):
        raise BadMessage("The peer's question is malformed.") from None
    return [place for each in info.get(2, [])[:16] if (place := _decoded(each)) is not None]


def _reached(data: bytes) -> Reached:
    try:
        response = decode_message(decode_message(data)[0][3][-1])
    except (ValueError, KeyError):
        raise BadMessage("The peer's answer is malformed.") from None
    fields, counts = response
    place = _decoded(fields[3][-1]) if 3 in fields else None
    seen = _decoded(fields[15][-1]) if 15 in fields else None
    why = fields.get(2, [b""])[-1].decode(errors="replace")[:200]
    reached = place is not None and counts.get(1, OK) == OK
    return Reached(str(place) if reached else "", why, (seen.host, seen.port) if seen is not None else None)


def _answer(status: int, text: str, endpoint: bytes = b"", seen: bytes = b"") -> bytes:
    body = encode_count(1, status) + encode_field(2, text.encode())
    if endpoint:
        body += encode_field(3, endpoint)
    if seen:
        body += encode_field(15, seen)
    return framed(encode_count(1, _DIAL_RESPONSE) + encode_field(3, body))


def _decoded(data: bytes) -> Endpoint | None:
    try:
        return decode_endpoint(data)
    except BadEndpoint:
        return None  # of another kind than we dial


def _endpoint(place: tuple[str, int]) -> Endpoint:
    kind = "ip6" if ipaddress.ip_address(place[0]).version == 6 else "ip4"
    return Endpoint(kind, place[0], place[1])


def _bare(endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.kind, endpoint.host, endpoint.port)
