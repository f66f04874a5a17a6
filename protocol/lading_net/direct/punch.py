"""Making a straight link out of a relayed one: libp2p's DCUtR, by TCP's simultaneous open.

Both ends call each other at the same moment, so that each router takes the other's call for an answer. That works
where both routers use one outer port for all calls from one inner port; elsewhere the relayed link stays. The outer
port is learned from somebody outside who is called from the very port. Who called over the relay is the client of all
that runs on the new connection (multistream, Noise, yamux), whoever spoke first about it. Source: libp2p's
specification relay/DCUtR.md, revision 1.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket

import msgspec

from lading_net.binaddr import decode_endpoint, encode_endpoint
from lading_net.core.quotas import Quotas, Rate
from lading_net.direct.greeting import introduced
from lading_net.direct.link import DirectLink
from lading_net.direct.relay import read_message
from lading_net.direct.relaywire import framed
from lading_net.direct.stream import DirectStream
from lading_net.direct.transport import DirectTransport
from lading_net.errors import BadEndpoint, BadMessage, DialFailed, NetError, NetTimeout
from lading_net.peer import Endpoint
from lading_net.ports import Stream
from lading_net.protobuf import decode_message, encode_count, encode_field
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

_log = logging.getLogger(__name__)

DCUTR = "/libp2p/dcutr"
_CONNECT, _SYNC = 100, 300
_LONGEST_ROUND_TRIP = 5.0
TRIES = 3
CALL_SECONDS = 1.5  # of one try: a second call of the kernel's, after a second, is within
MEET_SECONDS = 5.0  # of one try with all that follows on the new connection
_AGAIN = 0.1  # until a call that was refused is made again: the other end may not have called yet
_PLACES = 2  # of the peer's, called side by side
ASKED = Rate(burst=2 * TRIES, second=0.1)  # by one peer: each costs us a call to somebody in the open


class Spot(msgspec.Struct, frozen=True):
    """A port of ours that calls several places: `outer` is what they see of it, while `keep` calls the first."""

    port: int
    outer: Endpoint
    keep: DirectTransport


class Puncher:
    """From `open` on, every link that comes by relay is made straight, if the routers allow it."""

    def __init__(self, transport: DirectTransport) -> None:
        self._transport = transport
        self._running: dict[Address, asyncio.Task[None]] = {}
        self._asked: Quotas[Address] = Quotas(ASKED)

    def open(self) -> None:
        self._transport.handle(DCUTR, self._serve)
        self._transport.when_brought = self._try

    async def _try(self, link: DirectLink) -> None:
        try:
            await self.straighten(link)
        except NetError as error:
            _log.debug("no straight way to 0x%s: %s", link.peer.hex(), error)

    async def straighten(self, link: DirectLink) -> DirectLink:
        """For the end that was called over the relay. A straight link to the peer.

        Raises DialFailed, NetTimeout or other NetErrors when the routers do not allow it; the relayed link stays.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        told = await introduced(link)
        round_trip = clock() - began  # the peer has nothing to look up for this one
        for place in [each for each in told.endpoints if _in_the_open(each)][:_PLACES]:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    return await self._transport.dial(str(place), link.peer)
            except (NetError, TimeoutError):
                continue
        spot = await find_spot(self._transport)
        try:
            for left in reversed(range(TRIES)):
                theirs, taken = await self._agree(link, spot)
                await asyncio.sleep(min(round_trip, taken) / 2)
                try:
                    return await self._meet(spot, theirs, link.peer, client=False)
                except DialFailed:
                    if not left:
                        raise
        finally:
            await spot.keep.close()
        raise AssertionError("the last try returns or raises")

    async def _agree(self, link: DirectLink, spot: Spot) -> tuple[list[Endpoint], float]:
        """Where the peer is to be called, and how long it took to learn that; it calls when it hears of the end of
        this. Raises NetError."""
        clock = asyncio.get_running_loop().time
        stream = await link.open(DCUTR)
        asked_at = clock()
        try:
            stream.write(_message(_CONNECT, spot.outer))
            async with asyncio.timeout(_LONGEST_ROUND_TRIP):
                kind, theirs = _read((await read_message(stream))[0])
            taken = clock() - asked_at
            if kind != _CONNECT:
                raise BadMessage("The peer does not say where it can be called.")
            stream.write(_message(_SYNC, None))
            await stream.close()
        except TimeoutError:
            stream.reset()
            raise NetTimeout("The peer does not answer over the relay.") from None
        return theirs, taken

    async def _serve(self, stream: Stream) -> None:
        """The end that called over the relay. A peer that tries again has given up what it tried before."""
        assert isinstance(stream, DirectStream)
        peer, me = stream.peer, asyncio.current_task()
        if not stream.relayed or not self._asked.take(peer, asyncio.get_running_loop().time()):
            stream.reset()
            return
        assert me is not None
        if (older := self._running.get(peer)) is not None:
            older.cancel()
        self._running[peer] = me
        try:
            await self._follow(stream)
        except (NetError, TimeoutError) as error:
            _log.debug("no straight way to 0x%s: %s", peer.hex(), error)
        finally:
            if self._running.get(peer) is me:
                del self._running[peer]

    async def _follow(self, stream: DirectStream) -> None:
        """Raises NetError, TimeoutError."""
        async with asyncio.timeout(_LONGEST_ROUND_TRIP):
            data, rest = await read_message(stream)
            kind, theirs = _read(data)
            if kind != _CONNECT:
                raise BadMessage("The peer's first word is no CONNECT.")
            spot = await find_spot(self._transport)
        try:
            stream.write(_message(_CONNECT, spot.outer))
            async with asyncio.timeout(_LONGEST_ROUND_TRIP):
                await read_message(stream, rest)
            await self._meet(spot, theirs, stream.peer, client=True)
        finally:
            await spot.keep.close()

    async def _meet(self, spot: Spot, theirs: list[Endpoint], peer: Address, *, client: bool) -> DirectLink:
        """Calls until the calls cross, at any of the peer's places. Raises DialFailed."""
        calls = [asyncio.ensure_future(self._reach(spot.port, one, peer, client)) for one in theirs[:_PLACES]]
        why = "it names no address"
        try:
            async with asyncio.timeout(MEET_SECONDS):
                for call in asyncio.as_completed(calls):
                    try:
                        return await call
                    except (OSError, NetError) as error:
                        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        except TimeoutError:
            why = "the calls did not meet"
        finally:
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        raise DialFailed(f"No straight way to the peer: {why}.")

    async def _reach(self, port: int, place: Endpoint, peer: Address, client: bool) -> DirectLink:
        return await self._transport.adopt(await _call(port, place), peer, dialled=client)


async def find_spot(transport: DirectTransport) -> Spot:
    """A port whose outer side is known: it calls the first peer in the open whom we have called before.

    Raises DialFailed or other NetErrors when there is none, or none that says what it sees.
    """
    outside = [link for link in map(transport.link_to, [one.peer for one in transport.links()]) if link is not None]
    known = next((link for link in outside if link.dialled and link.seen_at is not None), None)
    if known is None or known.seen_at is None:
        raise DialFailed("Nobody in the open is linked who could say how the world sees us.")
    keep = transport.stranger(PrivateKey(os.urandom(32)))
    try:
        made = await _call(0, Endpoint("ip4", *known.seen_at))
        port = made.getsockname()[1]
        link = await keep.adopt(made, known.peer, dialled=True)
        seen = (await introduced(link)).seen
        if seen is None or seen.kind != "ip4":
            raise DialFailed("The peer in the open does not say how it sees us.")
        return Spot(port, seen, keep)
    except (OSError, TimeoutError) as error:
        await keep.close()
        raise DialFailed(f"The peer in the open does not answer: {error}.") from None
    except BaseException:
        await keep.close()
        raise


def shared_socket(port: int) -> socket.socket:
    """A socket at a port that other sockets of ours may have too; 0 takes any free one. Raises OSError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("0.0.0.0", port))
    except OSError:
        made.close()
        raise
    return made


async def _call(port: int, place: Endpoint) -> socket.socket:
    """Again where it is refused, as long as there is time: a call that comes too early is. Raises OSError."""
    loop = asyncio.get_running_loop()
    until = loop.time() + CALL_SECONDS
    while True:
        made = shared_socket(port)
        try:
            async with asyncio.timeout_at(until):
                await loop.sock_connect(made, (place.host, place.port))
            return made
        except ConnectionRefusedError:
            made.close()
            if loop.time() + _AGAIN > until:
                raise
        except BaseException:
            made.close()
            raise
        await asyncio.sleep(_AGAIN)


def _in_the_open(place: Endpoint) -> bool:
    """Whether anybody could call there, by its address; names are for others to look up."""
    return place.kind in ("ip4", "ip6") and ipaddress.ip_address(place.host).is_global


def _message(kind: int, outer: Endpoint | None) -> bytes:
    return framed(encode_count(1, kind) + (encode_field(2, encode_endpoint(outer)) if outer is not None else b""))


def _read(data: bytes) -> tuple[int, list[Endpoint]]:
    """Kind, and the addresses that can be called. Raises BadMessage."""
    try:
        fields, counts = decode_message(data)
    except ValueError:
        raise BadMessage("The peer's words about a straight link are malformed.") from None
    places = []
    for each in fields.get(2, [])[:8]:
        try:
            place = decode_endpoint(each)
        except BadEndpoint:
            continue  # of another kind than we call
        if place.kind == "ip4" and place.via is None:
            places.append(place)
    return counts.get(1, 0), places
