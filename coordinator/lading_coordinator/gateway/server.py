"""The listening socket of the gateway: accepts, expires late clients once a second, and drains on the way out."""

import asyncio
import errno
import logging
import ssl
from collections.abc import Sequence

from lading_coordinator.errors import CoordinatorError, PortInUse
from lading_coordinator.gateway.connection import App, Connection, Limits

log = logging.getLogger(__name__)
SWEEP_SECONDS = 1.0


class HttpServer:
    """Serves `app` on one address. `connections` is every open one."""

    def __init__(self, app: App, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.connections: set[Connection] = set()
        self.address: tuple[str, int] = ("", 0)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Returns where it listens. Raises PortInUse, CoordinatorError."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._app, self._limits, self.connections),
                host,
                port,
                backlog=1024,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._limits.head_seconds,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(f"Another program listens on {host}:{port} already.") from error
            raise CoordinatorError(
                f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose an address of this machine."
            ) from error
        found: Sequence[object] = self._server.sockets[0].getsockname()
        self.address = (str(found[0]), int(str(found[1])))
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        return self.address

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one in self.connections if one.late(now)]:
            connection.expire()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    async def close(self, grace: float) -> None:
        """Stops accepting; running answers get `grace` seconds to end, then they are cut off."""
        if self._server is None:
            return
        self._server.close()
        running = [task for connection in list(self.connections) if (task := connection.stop()) is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            if late:
                log.warning("Cut off %d answers that did not end within %g s", len(late), grace)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._server = None
