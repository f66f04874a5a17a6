"""Peers on the same local network, by multicast DNS: says that we are here, and hears who else is.

Source: libp2p's specification discovery/mdns.md. Runs on the program's own loop; meets nobody itself. What others claim
is only an address to try: whoever answers there must prove who it is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from lading_net.errors import BadEndpoint
from lading_net.peer import Endpoint

log = logging.getLogger(__name__)

SERVICE = "_p2p._udp.local."
MOST = 64
ASK_MS = 3000


class Lan:
    """`met` is called once for each endpoint that is heard of, our own not among them."""

    def __init__(self, mine: Endpoint, met: Callable[[Endpoint], None]) -> None:
        self._mine, self._met = mine, met
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._name = secrets.token_hex(16)

    async def open(self) -> None:
        """Raises OSError where this machine has no network that carries multicast."""
        self._zeroconf = AsyncZeroconf(interfaces=[self._mine.host], ip_version=IPVersion.V4Only)
        line = f"dnsaddr={self._mine}".encode()
        info = AsyncServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            port=self._mine.port,
            properties=bytes([len(line)]) + line,
            server=f"{self._name}.local.",
            parsed_addresses=[self._mine.host],
        )
        await self._zeroconf.async_register_service(info)
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._browser.async_cancel()
        await self._zeroconf.async_unregister_all_services()
        await self._zeroconf.async_close()

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed or name.startswith(self._name) or len(self._tasks) >= MOST:
            return
        task = asyncio.get_running_loop().create_task(self._ask(zeroconf, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, ASK_MS):
            return
        for text in _records(info.text or b""):
            try:
                endpoint = Endpoint.parse(text.removeprefix("dnsaddr="))
            except BadEndpoint:
                continue  # of another kind than we dial
            named = endpoint.peer is not None and endpoint.peer != self._mine.peer and endpoint.via is None
            if named and text not in self._seen and len(self._seen) < MOST:
                self._seen.add(text)
                self._met(endpoint)


def _records(data: bytes) -> Iterator[str]:
    """The strings of a TXT record; there may be several of one name, which a table of properties would lose."""
    at = 0
    while at < len(data):
        size = data[at]
        yield data[at + 1 : at + 1 + size].decode(errors="replace")
        at += 1 + size
