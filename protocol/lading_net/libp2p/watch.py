"""Tells whoever waits that connections have come or gone; knows not which."""

from __future__ import annotations

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from multiaddr import Multiaddr  # type: ignore[import-untyped]

SETTLE_SECONDS = 0.05
"""Connections come in bursts; one wake is enough for those that follow this soon."""


class Watch(INotifee):
    """Register with the network, then wait for change(); any number of tasks may."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    async def change(self) -> None:
        """Returns shortly after the next connection or disconnection."""
        await self._changed.wait()
        await trio.sleep(SETTLE_SECONDS)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._notify()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._notify()

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
