"""A coordinator's network side on a machine of the lab: dialled, calling back, relaying. In its own thread."""

from __future__ import annotations

import asyncio
import threading

from integration.net_nat.lab import Place
from lading_coordinator.run import serve_the_unreachable
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectSettings, DirectTransport, Relay
from lading_net.ports import Stream
from lading_net.private import NetworkKey
from lading_protocol.keys import PrivateKey


class Hub:
    """Until closed. `endpoint` is where it listens."""

    def __init__(
        self, place: Place, settings: CoordinatorSettings | None = None, network: NetworkKey | None = None
    ) -> None:
        self._place, self._settings, self._network = place, settings or CoordinatorSettings(), network
        self.relay: Relay | None = None
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self) -> None:
        self._place.enter()
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        transport = DirectTransport(PrivateKey(b"h" * 32), DirectSettings(network=self._network))
        transport.handle("/echo/1", _echo)
        self.endpoint = await transport.listen(f"/ip4/{self._place.address}/tcp/4600")
        self.relay = serve_the_unreachable(transport, self._settings, (self.endpoint,))
        self._up.set()
        await self._done.wait()
        await transport.close()


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
