"""One stream of a direct link: what an application reads and writes.

Turns yamux events into awaitable reads and writes and settles the protocol's name on the way. Owns the bytes that have
arrived and were not read; whatever leaves goes through its link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from lading_net.arriving import Arriving
from lading_net.direct import multistream
from lading_net.direct.yamux import Flow
from lading_net.errors import NetError, ProtocolViolation, StreamClosed, StreamReset
from lading_net.peer import PeerId
from lading_protocol.ids import Address

if TYPE_CHECKING:
    from lading_net.direct.link import DirectLink

HIGH_WATER: Final = 256 * 1024  # queued bytes from which drain() waits ...
LOW_WATER: Final = 64 * 1024  # ... until this few are left
_LARGE: Final = 8 * 1024
LINK_HIGH_WATER: Final = 8 * 1024 * 1024


class DirectStream(Arriving):
    """Implements ports.Stream. Made by DirectLink only."""

    __slots__ = (
        "_chunks",
        "_closed",
        "_cut",
        "_drained",
        "_ended",
        "_error",
        "_link",
        "_negotiation",
        "_told",
        "abandoned",
        "flow",
        "protocol",
        "sweeps",
    )

    def __init__(
        self, link: DirectLink, flow: Flow, protocol: str, negotiation: multistream.Dialler | multistream.Listener
    ) -> None:
        super().__init__()
        self._link, self.flow, self.protocol = link, flow, protocol
        self._negotiation: multistream.Dialler | multistream.Listener | None = negotiation
        self._chunks: deque[bytes] = deque()
        self._error: NetError | None = None  # why nothing can be written any more
        self._cut: NetError | None = None  # why what arrived is not all that was sent
        self._ended = self._closed = self._told = False
        self._drained: asyncio.Future[None] | None = None
        self.abandoned = False  # its handler has returned
        self.sweeps = 0

    @property
    def peer(self) -> Address:
        return self._link.peer

    @property
    def peer_id(self) -> PeerId:
        return self._link.peer_id

    @property
    def link(self) -> DirectLink:
        return self._link

    @property
    def relayed(self) -> bool:
        """Whether a relay stands between the peer and us."""
        return self._link.relayed

    @property
    def seen_at(self) -> tuple[str, int] | None:
        """See DirectLink.seen_at."""
        return self._link.seen_at

    @property
    def reached_at(self) -> str:
        """See DirectLink.reached_at."""
        return self._link.reached_at

    def poll(self) -> bytes | None:
        if self._chunks:
            data = self._take()
            self._link.consumed(self.flow, len(data))
            return data
        if self._cut is not None:
            raise type(self._cut)(self._cut.message)
        return b"" if self._ended else None

    def write(self, data: bytes) -> None:
        if self._error is not None or self._closed:
            self._refuse()
        self._link.send(self.flow, data if type(data) is bytes else bytes(data))

    async def drain(self) -> None:
        while True:
            if self._error is not None:
                self._refuse()
            if not self._congested(HIGH_WATER):
                return
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
                self._link.draining.add(self)
            await asyncio.shield(self._drained)

    async def close(self) -> None:
        if not self._closed and self._error is None:
            self._closed = True
            self._link.finish(self.flow)

    def reset(self) -> None:
        if self._error is None:
            self._link.reset(self.flow)
            self.fail(StreamReset("The stream was reset from this side."))

    # -- called by the link

    @property
    def negotiating(self) -> bool:
        return self._negotiation is not None

    def arrived(self, data: bytes) -> bool:
        """Whether the link is to call `wake`, once for all that has arrived until then."""
        if self._negotiation is not None:
            data = self._negotiate(data)
            if not data:
                return False
        if self._error is not None:
            return False
        self._chunks.append(data)
        return self._tell()

    def ended(self) -> bool:
        """The same."""
        self._ended = True
        if self._negotiation is not None:
            self._give_up(ProtocolViolation("The peer closed the stream before it agreed on a protocol."))
        return self._tell()

    def wake(self) -> None:
        self._told = False
        self._wake_reader()

    def drain_if_low(self) -> None:
        if not self._congested(LOW_WATER):
            self._wake_drain()

    def fail(self, error: NetError, keep_arrived: bool = False) -> None:
        """The stream is over. What has arrived may still be read if the link died, and not if the stream was reset."""
        if self._error is not None:
            return
        self._error = error
        self._negotiation = None
        if not keep_arrived:
            self._chunks.clear()
        if not (keep_arrived and self._ended):
            self._cut = error
        self._wake_reader()
        self._wake_drain()

    # -- inside

    def _tell(self) -> bool:
        told, self._told = self._told, True
        return not told

    def _take(self) -> bytes:
        """Small chunks joined, so that many cost one read; a large one as it came, so that it is not copied."""
        chunks = self._chunks
        first = chunks.popleft()
        if not chunks or len(first) >= _LARGE:
            return first
        parts = [first]
        while chunks and len(chunks[0]) < _LARGE:
            parts.append(chunks.popleft())
        return b"".join(parts) if len(parts) > 1 else first

    def _congested(self, mark: int) -> bool:
        queued = self.flow.queued
        return queued > mark or (queued > 0 and self._link.queued > LINK_HIGH_WATER)

    def _negotiate(self, data: bytes) -> bytes:
        """The part of data that belongs to the application, once the name is agreed."""
        negotiation = self._negotiation
        assert negotiation is not None
        try:
            rest = negotiation.receive(data)
        except NetError as error:
            self._give_up(error)
            return b""
        if isinstance(negotiation, multistream.Listener) and negotiation.replies:
            self._link.send(self.flow, negotiation.replies)
            negotiation.replies = b""
        if rest is None:
            self._link.consumed(self.flow, len(data))
            return b""
        self._negotiation = None
        # Bytes held from earlier calls were counted when they came, so `rest` is never longer than `data`.
        self._link.consumed(self.flow, len(data) - len(rest))
        if isinstance(negotiation, multistream.Listener):
            self.protocol = negotiation.agreed
            self._link.serve(self)
        return rest

    def _give_up(self, error: NetError) -> None:
        self._link.reset(self.flow)
        self.fail(error)

    def _refuse(self) -> None:
        if self._error is not None:
            raise type(self._error)(self._error.message)
        raise StreamClosed("The write side of this stream is closed.")

    def _wake_drain(self) -> None:
        if self._drained is not None:
            self._link.draining.discard(self)
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
