"""The two ends of a relayed link: asking a relay for a place or for a peer, and a link's bytes over a relay's stream.

What runs through is a whole link of its own, proved and sealed between the ends. Knows nothing of what relays allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from lading_net.binaddr import decode_endpoint
from lading_net.direct import relaywire as wire
from lading_net.direct.link import DirectLink
from lading_net.direct.relay import read_message
from lading_net.direct.relaywire import RelayMessage
from lading_net.direct.socket import LinkSocket
from lading_net.direct.stream import HIGH_WATER, DirectStream
from lading_net.errors import BadEndpoint, BadMessage, DialFailed, NetError
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Stream

_ASK_SECONDS = 10.0
_LINGER_SECONDS = 1.0


class Reservation(msgspec.Struct, frozen=True):
    """A place at a relay until `expires` (Unix seconds). `endpoints` are where others reach us through it."""

    expires: float
    endpoints: tuple[str, ...]


async def reserve(link: DirectLink, mine: PeerId) -> Reservation:
    """Asks the relay at the other end of the link. Raises DialFailed in words when it refuses, or NetError."""
    stream = await link.open(wire.HOP)
    try:
        answer, _ = await _ask(stream, RelayMessage(wire.RESERVE))
    finally:
        stream.reset()
    endpoints = []
    for data in answer.addresses[:8]:
        try:
            place = decode_endpoint(data)
        except BadEndpoint:
            continue  # a relay may also listen where we do not go
        endpoints.append(str(Endpoint(place.kind, place.host, place.port, mine, link.peer_id)))
    if not endpoints and link.dialled and link.seen_at is not None:  # go-libp2p's names none but public ones
        kind = "ip6" if ":" in link.seen_at[0] else "ip4"
        endpoints.append(str(Endpoint(kind, *link.seen_at, mine, link.peer_id)))
    return Reservation(float(answer.expires), tuple(endpoints))


async def connect(link: DirectLink, target: PeerId) -> tuple[DirectStream, bytes]:
    """A stream to the peer through the relay at the other end of `link`, and what arrived on it already.

    Raises DialFailed in words when the relay refuses, or NetError.
    """
    stream = await link.open(wire.HOP)
    try:
        _, rest = await _ask(stream, RelayMessage(wire.CONNECT, peer=target.raw))
    except BaseException:
        stream.reset()
        raise
    return stream, rest


async def accept(stream: Stream) -> tuple[PeerId, bytes]:
    """Answers a relay that has a caller for us: who the caller claims to be, and what it said already.

    Raises NetError.
    """
    async with asyncio.timeout(_ASK_SECONDS):
        asked, rest = await read_message(stream)
    message = wire.decode_stop(asked)
    if message.type != wire.STOP_CONNECT:
        stream.write(wire.encode_stop(RelayMessage(wire.STOP_STATUS, status=wire.UNEXPECTED_MESSAGE)))
        raise BadMessage("The relay did not ask for a connection.")
    caller = PeerId.from_raw(message.peer)
    stream.write(wire.encode_stop(RelayMessage(wire.STOP_STATUS, status=wire.OK)))
    return caller, rest


async def _ask(stream: DirectStream, message: RelayMessage) -> tuple[RelayMessage, bytes]:
    stream.write(wire.encode_hop(message))
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            data, rest = await read_message(stream)
    except TimeoutError:
        raise DialFailed("The relay does not answer.") from None
    answer = wire.decode_hop(data)
    if answer.type != wire.STATUS or answer.status != wire.OK:
        why = wire.WORDS.get(answer.status, f"it answered {answer.status}")
        raise DialFailed(f"The relay refuses: {why}.")
    return answer, rest


class StreamPipe(asyncio.Transport):
    """A relay's stream as asyncio's sockets are: what LinkSocket writes to and hears from."""

    def __init__(self, stream: DirectStream, socket: LinkSocket) -> None:
        super().__init__()
        self._stream, self._socket = stream, socket
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.Task[None] | None = None
        self._may_feed = asyncio.Event()
        self._may_feed.set()
        self._closing = self._lost = False

    async def run(self, first: bytes) -> None:
        """Brings the socket to life and feeds it until either side ends."""
        error: NetError | None = None
        self._socket.connection_made(self)
        try:
            self._feed(first)
            while not self._lost and (data := await self._stream.read()):
                self._feed(data)
                await self._may_feed.wait()
        except NetError as failure:
            error = failure
        finally:
            self._lose(error)
            self._stream.reset()

    def write(self, data: Any) -> None:
        try:
            self._stream.write(bytes(data))
        except NetError:
            return  # the reader learns of it as well, and ends the link
        if self._stream.flow.queued > HIGH_WATER and self._paused is None:
            self._socket.pause_writing()
            self._paused = self._loop.create_task(self._resume())

    def writelines(self, pieces: Iterable[Any]) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        """What was written still goes out; the peer has a moment to take it."""
        if not self._closing:
            self._closing = True
            self._loop.create_task(self._stream.close())
            self._loop.call_soon(self._lose, None)
            self._loop.call_later(_LINGER_SECONDS, self._stream.reset)

    def pause_reading(self) -> None:
        self._may_feed.clear()

    def resume_reading(self) -> None:
        self._may_feed.set()

    def abort(self) -> None:
        self._stream.reset()
        self._loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The stream's own marks hold."""

    def _feed(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._lost:
            buffer = self._socket.get_buffer(-1)
            size = min(len(buffer), len(data) - at)
            buffer[:size] = data[at : at + size]
            self._socket.buffer_updated(size)
            at += size

    async def _resume(self) -> None:
        try:
            await self._stream.drain()
        except NetError:
            return
        self._paused = None
        self._socket.resume_writing()

    def _lose(self, error: NetError | None) -> None:
        if not self._lost:
            self._lost = True
            self._may_feed.set()
            if self._paused is not None:
                self._paused.cancel()
            self._socket.connection_lost(error)
