"""The only file that touches sockets: asyncio's Protocol between a TCP connection and a link.

Runs the upgrade under a time limit, then moves bytes. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Protocol, cast

from lading_net.direct.link import DirectLink
from lading_net.direct.noise import Credentials
from lading_net.direct.pipe import Pipe
from lading_net.direct.pool import Pool
from lading_net.direct.settings import DirectSettings
from lading_net.direct.upgrade import Upgrade
from lading_net.errors import HandshakeFailed, NetError, NetTimeout
from lading_net.ports import StreamHandler
from lading_protocol.ids import Address

# Whatever is written waits behind what the transport and the kernel hold unsent, urgent or not: let that be little.
_WRITE_HIGH = 256 * 1024
_UNSENT = 128 * 1024
_NOTSENT_LOWAT = 25 if sys.platform == "linux" else None  # TCP_NOTSENT_LOWAT of tcp(7)
_OWN_BUFFER = 64 * 1024


class Wire(Pipe, Protocol):
    """A pipe that the handshake writes to as well."""

    def write(self, data: bytes, /) -> None: ...


class LinkSocket(asyncio.BufferedProtocol):
    """One connection. `ready` yields the link, or says why there is none."""

    def __init__(
        self,
        dialled: bool,
        mine: Credentials,
        expect: Address | None,
        handler_of: Callable[[str], StreamHandler | None],
        settings: DirectSettings,
        pool: Pool,
    ) -> None:
        self._dialled, self._handler_of, self._settings, self._pool = dialled, handler_of, settings, pool
        self._upgrade = Upgrade(mine, dialled, expect)
        self._transport: asyncio.Transport | None = None
        self._pipe: Wire
        self._link: DirectLink | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.taken = False
        # Where a read fills the buffer and is told of at once, one buffer serves all links: nothing is kept in it.
        self._buffer = pool.buffer if sys.platform != "win32" else memoryview(bytearray(_OWN_BUFFER))
        self.ready: asyncio.Future[DirectLink] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.ready.done():  # its place was given to another meanwhile
            self._transport.abort()
            return
        patience = self._settings.dial_timeout if self._dialled else self._settings.handshake_timeout
        self._timer = asyncio.get_running_loop().call_later(patience, self._too_late)
        self._pipe = self._piped(self._transport)
        if first := self._upgrade.start():
            self._pipe.write(first)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._link is not None:
            self._link.data_received(self._buffer[:nbytes])
        elif not self.ready.done():
            self._advance(bytes(self._buffer[:nbytes]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._link is not None:
            self._link.connection_lost(error)
        else:
            self.give_up(HandshakeFailed("The peer hung up during the handshake."))

    def pause_writing(self) -> None:
        if self._link is not None:
            self._link.pause_writing()

    def resume_writing(self) -> None:
        if self._link is not None:
            self._link.resume_writing()

    def give_up(self, error: NetError) -> None:
        """Ends the attempt; nothing happens once it has succeeded or failed."""
        self._stop_timer()
        if not self.ready.done():
            self.ready.set_exception(error)
        if self._link is None and self._transport is not None:
            self._transport.abort()

    def drop(self, error: NetError) -> None:
        """As give_up(), and a link that came of it ends too, unless somebody has taken it: who waited for it may be
        cancelled in the very turn in which it is made."""
        self.give_up(error)
        if not self.taken and self._transport is not None:
            self._transport.abort()

    def _advance(self, data: bytes) -> None:
        upgrade = self._upgrade
        try:
            answer = upgrade.receive(data)
        except NetError as error:
            self.give_up(error)
            return
        if answer:
            self._pipe.write(answer)
        if upgrade.remote is None:
            return
        self._stop_timer()
        self._prepare()
        keys = (upgrade.sealer, upgrade.opener)
        link = self._link = DirectLink(
            upgrade.remote, self._dialled, keys, self._pipe, self._handler_of, self._settings, self._pool
        )
        self.ready.set_result(link)
        if upgrade.rest:
            link.first_received(upgrade.rest)

    def _prepare(self) -> None:
        """What a link needs of its connection, and what one who only calls is not worth."""
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _NOTSENT_LOWAT is not None:
                raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def _piped(self, transport: asyncio.Transport) -> Wire:
        """What is between us and the wire: here, nothing."""
        return transport

    def _too_late(self) -> None:
        self.give_up(NetTimeout("The peer did not finish the handshake in time."))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
