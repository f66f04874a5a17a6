"""The direct link over loopback keeps the contract of every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lading_net.direct import DirectTransport
from lading_protocol.keys import PrivateKey
from unit.net_conformance.contract import Net, TransportContract


class Loopback:
    def __init__(self) -> None:
        self._made: list[DirectTransport] = []

    def transport(self, who: PrivateKey) -> DirectTransport:
        self._made.append(DirectTransport(who))
        return self._made[-1]

    async def close(self) -> None:
        for transport in self._made:
            await transport.close()


class TestDirect(TransportContract):
    def run(self, scenario: Callable[[Net], Awaitable[None]]) -> None:
        async def main() -> None:
            net = Loopback()
            try:
                async with asyncio.timeout(20):
                    await scenario(net)
            finally:
                await net.close()

        asyncio.run(main())
