"""A connection inside a private network: the usual one, with the protector between it and the wire.

Decides nothing: what is said, and when, is the protector's and the upgrade's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lading_net.direct.socket import LinkSocket
from lading_net.errors import NetError
from lading_net.private import NetworkKey, Protector


class _Hidden:
    """What a link writes to, hidden on its way to the socket."""

    def __init__(self, transport: asyncio.Transport, protector: Protector) -> None:
        self._transport, self._protector = transport, protector
        self.close, self.abort, self.get_extra_info = transport.close, transport.abort, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def write(self, data: bytes) -> None:
        if sent := self._protector.send(data):
            self._transport.write(sent)

    def writelines(self, pieces: Sequence[bytes], /) -> None:
        self.write(b"".join(pieces))


class ProtectedSocket(LinkSocket):
    """One connection of a private network."""

    def __init__(self, network: NetworkKey, dialled: bool, *rest: Any) -> None:
        self._protector = Protector(network, dialled)
        super().__init__(dialled, *rest)

    def _piped(self, transport: asyncio.Transport) -> _Hidden:
        return _Hidden(transport, self._protector)

    def buffer_updated(self, nbytes: int) -> None:
        try:
            said, answer = self._protector.receive(self._buffer[:nbytes])
        except NetError as error:
            self.give_up(error)
            return
        if answer and self._transport is not None:
            self._transport.write(answer)
        if said and self._link is not None:
            self._link.data_received(said)
        elif said and not self.ready.done():
            self._advance(said)
