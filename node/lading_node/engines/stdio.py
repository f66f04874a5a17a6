"""The connection to a container's three streams, in the event loop: frames in, frames out, and a tail of its stderr."""

import asyncio
from collections.abc import Callable
from typing import cast

from lading_node.engines.abi import BadFrame
from lading_node.engines.demux import STDOUT, Demux
from lading_protocol.errors import BadMessage
from lading_protocol.framing import Frames

STDERR_TAIL = 64 << 10
# An agent may write this much to its stderr at once, and this much a second for as long as it runs.
STDERR_BURST = 16 << 20
STDERR_RATE = 256 << 10
# More than this waiting for an agent that does not read means that it takes no further call.
MOST_UNREAD = 8 << 20


class Stdio(asyncio.Protocol):
    """Calls `receive` for each frame of the agent, and `lost` once: with a reason when it was the agent's fault."""

    def __init__(self, receive: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self._receive = receive
        self._lost: Callable[[str], None] | None = lost
        self._demux = Demux()
        self._frames = Frames()
        self._tail = bytearray()
        self._allowance = float(STDERR_BURST)
        self._at = 0.0
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self.closed = asyncio.Event()

    @property
    def clogged(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > MOST_UNREAD

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the classes, of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        if self._lost is None:
            return
        try:
            for stream, piece in self._demux.feed(data):
                if stream == STDOUT:
                    for payload in self._frames.feed(piece):
                        self._receive(payload)
                else:
                    self._note(piece)
        except BadMessage as error:
            self._end(f"It sent what is not a frame: {error.message}")
        except BadFrame as error:
            self._end(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        self._end("")

    def write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def hold(self, paused: bool) -> None:
        """Listen, or let what the agent writes fill its pipe until it must wait."""
        if paused is self._paused or self._transport is None or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def abort(self) -> None:
        self._lost = None
        if self._transport is not None:
            self._transport.abort()

    def last_words(self) -> str:
        """The last line of stderr, for the host's own log."""
        lines = bytes(self._tail).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _note(self, piece: bytes) -> None:
        self._tail += piece
        del self._tail[:-STDERR_TAIL]
        now = asyncio.get_running_loop().time()
        self._allowance = min(float(STDERR_BURST), self._allowance + (now - self._at) * STDERR_RATE) - len(piece)
        self._at = now
        if self._allowance < 0:
            raise BadFrame("It floods its standard error.")

    def _end(self, why: str) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            lost(why)
