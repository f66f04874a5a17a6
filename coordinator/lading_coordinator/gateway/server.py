"""The listening socket of the gateway: accepts, expires late clients once a second, and drains on the way out."""

import asyncio
import logging
import ssl
from collections.abc import Sequence

from lading_coordinator.errors import cannot_listen
from lading_coordinator.gateway.connection import App, Connection, Limits

log = logging.getLogger(__name__)
SWEEP_SECONDS = 1.0


class HttpServer:
    """Serves `app` on one address. `connections` is every open one."""

    def __init__(self, app: App, limits: Limits | None = None) -> None:
        self._app = app
        self.limits = limits or Limits()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self.connections: set[Connection] = set()
        self.address: tuple[str, int] = ("", 0)
        self.tls: ssl.SSLContext | None = None

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, shared: bool = False
    ) -> tuple[str, int]:
        """Returns where it listens; other processes of ours may listen there too if it is `shared`.

        Raises PortInUse, CoordinatorError.
        """
        self.tls = tls
        loop = asyncio.get_running_loop()
        patience = None if tls is None else self.limits.head_seconds
        try:
            server = await loop.create_server(
                self.protocol,
                host,
                port,
                backlog=1024,
                ssl=tls,
                ssl_handshake_timeout=patience,
                reuse_port=shared or None,
            )
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        found: Sequence[object] = server.sockets[0].getsockname()
        self.address = (str(found[0]), int(str(found[1])))
        self._opened(server)
        return self.address

    async def listen_unix(self, path: str) -> None:
        self._opened(await asyncio.get_running_loop().create_unix_server(self.protocol, path, backlog=1024))

    def protocol(self) -> asyncio.Protocol:
        """What a new connection is spoken to with."""
        return self.connection()

    def connection(self) -> Connection:
        return Connection(self._app, self.limits, self.connections)

    def _opened(self, server: asyncio.Server) -> None:
        self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one in self.connections if one.late(now)]:
            connection.expire()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    async def close(self, grace: float) -> None:
        """Stops accepting; running answers get `grace` seconds to end, then they are cut off."""
        if not self._servers:
            return
        for server in self._servers:
            server.close()
        running = [answer for connection in list(self.connections) if (answer := connection.stop()) is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            if late:
                log.warning("Cut off %d answers that did not end within %g s", len(late), grace)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._servers = []
