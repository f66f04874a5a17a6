"""A relay for peers that cannot reach each other: libp2p's circuit relay v2, its middle part.

Peers that have a link here reserve a place; others are connected to them through it. The two ends prove each other
and seal what they say, so this side sees ciphertext only. Bounded in places, connections, time and bytes. Never
relays to or for one who comes by relay himself: a way has one extra hop at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from lading_net.binaddr import encode_endpoint
from lading_net.direct import relaywire as wire
from lading_net.direct.link import DirectLink
from lading_net.direct.relaywire import RelayMessage
from lading_net.direct.stream import DirectStream
from lading_net.errors import BadEndpoint, BadMessage, LinkClosed, NetError
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Stream, StreamHandler
from lading_protocol.ids import Address

_log = logging.getLogger(__name__)
_ASK_SECONDS = 10.0


class RelaySettings(msgspec.Struct, frozen=True):
    """What an operator gives away. `life` and `duration` are seconds, `data` bytes each way of one connection."""

    reservations: int = 1024
    life: int = 3600
    connections: int = 256
    connections_each: int = 16  # of one peer, whichever end it is
    duration: int = 3600
    data: int = 1 << 30


class Links(Protocol):
    """The transport, as a relay sees it."""

    def handle(self, protocol: str, handler: StreamHandler) -> None: ...
    def link_to(self, peer: Address) -> DirectLink | None: ...


class _Spent(Exception):
    """A connection has used up its bytes."""


class Relay:
    """Works from `open` on. `endpoints` are where this relay is reached; `clock` gives Unix seconds.

    `carried` counts the bytes of all connections, `running` those that are under way.
    """

    def __init__(
        self,
        links: Links,
        endpoints: Callable[[], tuple[str, ...]],
        clock: Callable[[], float],
        settings: RelaySettings | None = None,
    ) -> None:
        self._links, self._endpoints, self._clock = links, endpoints, clock
        self._settings = settings or RelaySettings()
        self._places: dict[Address, float] = {}  # until when
        self._busy: Counter[Address] = Counter()
        self._yes = RelayMessage(
            wire.STATUS, status=wire.OK, duration=self._settings.duration, data=self._settings.data
        )
        self.running = self.carried = 0

    def open(self) -> None:
        self._links.handle(wire.HOP, self._serve)

    @property
    def reservations(self) -> int:
        self._prune()
        return len(self._places)

    async def _serve(self, stream: Stream) -> None:
        assert isinstance(stream, DirectStream)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                asked, rest = await read_message(stream)
                message = wire.decode_hop(asked)
        except (BadMessage, TimeoutError):
            _refuse(stream, wire.MALFORMED_MESSAGE)
            return
        if stream.relayed:
            _refuse(stream, wire.PERMISSION_DENIED)
        elif message.type == wire.RESERVE:
            self._reserve(stream)
        elif message.type == wire.CONNECT:
            await self._connect(stream, message, rest)
        else:
            _refuse(stream, wire.UNEXPECTED_MESSAGE)

    def _reserve(self, stream: DirectStream) -> None:
        self._prune()
        if stream.peer not in self._places and len(self._places) >= self._settings.reservations:
            _refuse(stream, wire.RESERVATION_REFUSED)
            return
        expires = int(self._clock()) + self._settings.life
        self._places[stream.peer] = expires
        addresses = tuple(encode_endpoint(each) for each in _parsed(self._endpoints()))
        stream.write(wire.encode_hop(replace(self._yes, expires=expires, addresses=addresses)))

    async def _connect(self, stream: DirectStream, message: RelayMessage, rest: bytes) -> None:
        try:
            target = PeerId.from_raw(message.peer).address
        except BadEndpoint:
            _refuse(stream, wire.MALFORMED_MESSAGE)
            return
        self._prune()
        link = self._links.link_to(target)
        if target not in self._places or link is None:
            _refuse(stream, wire.NO_RESERVATION)
            return
        ends = (stream.peer, target)
        full = self.running >= self._settings.connections
        if full or any(self._busy[end] >= self._settings.connections_each for end in ends):
            _refuse(stream, wire.RESOURCE_LIMIT_EXCEEDED)
            return
        self.running += 1
        self._busy.update(ends)
        try:
            await self._join(stream, link, rest)
        finally:
            self.running -= 1
            self._busy.subtract(ends)
            self._busy += Counter()  # forgets those at nought

    async def _join(self, stream: DirectStream, link: DirectLink, rest: bytes) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                other = await link.open(wire.STOP)
                asking = replace(self._yes, type=wire.STOP_CONNECT, status=0, peer=stream.peer_id.raw)
                other.write(wire.encode_stop(asking))
                answer, first = await read_message(other)
                status = wire.decode_stop(answer).status
        except (NetError, TimeoutError) as error:
            _log.debug("relaying to 0x%s failed: %s", link.peer.hex(), error)
            _refuse(stream, wire.CONNECTION_FAILED)
            return
        if status != wire.OK:
            other.reset()
            _refuse(stream, wire.CONNECTION_FAILED)
            return
        stream.write(wire.encode_hop(self._yes) + first)
        if rest:
            other.write(rest)
        await self._carry(stream, other)

    async def _carry(self, one: DirectStream, other: DirectStream) -> None:
        try:
            async with asyncio.timeout(self._settings.duration), asyncio.TaskGroup() as group:
                group.create_task(self._pump(one, other))
                group.create_task(self._pump(other, one))
        except* LinkClosed as ends:
            _log.debug("an end of a relayed connection is gone: %s", ends.exceptions[0])
            await _part(one, other)
            await _part(other, one)
        except* (NetError, TimeoutError, _Spent) as ends:
            _log.debug("a relayed connection ends: %s", ends.exceptions[0])
            one.reset()
            other.reset()

    async def _pump(self, source: DirectStream, sink: DirectStream) -> None:
        left = self._settings.data
        while data := await source.read():
            left -= len(data)
            if left < 0:
                raise _Spent(f"it has carried {self._settings.data} bytes")
            self.carried += len(data)
            sink.write(data)
            await sink.drain()
        await sink.close()

    def _prune(self) -> None:
        now = self._clock()
        self._places = {
            peer: until for peer, until in self._places.items() if until > now and self._links.link_to(peer) is not None
        }


async def read_message(stream: Stream, held: bytes = b"") -> tuple[bytes, bytes]:
    """The next length-prefixed message, and what came right behind it; `held` came before. Raises NetError."""
    while (found := wire.cut(held)) is None:
        data = await stream.read()
        if not data:
            raise BadMessage("The peer's relay message is cut off.")
        held += data
    return found


async def _part(source: DirectStream, sink: DirectStream) -> None:
    """One of both is gone: what the other should have had of it still leaves, and then the end."""
    with contextlib.suppress(NetError):
        while data := source.poll():
            sink.write(data)
    await sink.close()
    sink.abandoned = True


def _refuse(stream: DirectStream, status: int) -> None:
    """The handler returns after this, and the stream closes behind what was written."""
    stream.write(wire.encode_hop(RelayMessage(wire.STATUS, status=status)))


def _parsed(endpoints: tuple[str, ...]) -> list[Endpoint]:
    return [Endpoint.parse(each) for each in endpoints]
