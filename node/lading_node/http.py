"""The local status page: /healthz, /readyz, /metrics, /status and /why over plain HTTP on 127.0.0.1, GET only.

A few lines of HTTP/1.1, because a status page needs no framework; knows the node only through `status`.
"""

import asyncio
import json

from lading_node import status, why
from lading_node.errors import NodeError
from lading_node.node import Node

REQUEST_SECONDS = 5.0
MOST_HEADERS = 100


class StatusPortInUse(NodeError):
    """The status page cannot listen."""

    code = "port_in_use"
    hint = "Choose another port with --http (0 takes any free one, -1 leaves the page out)."


class StatusPage:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        """Raises StatusPortInUse."""
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=8192)
        except OSError as error:
            raise StatusPortInUse(f"The status page cannot use port {port}: {error.strerror}.") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                method, path = await self._request(reader)
                code, kind, body = await self._answer(method, path)
                reason = {200: "OK", 404: "Not Found", 405: "Method Not Allowed"}.get(code, "Service Unavailable")
                head = (
                    f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            pass  # a broken request on the local machine deserves no answer
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, str]:
        line = (await reader.readline()).decode("latin-1").split()
        for _ in range(MOST_HEADERS):
            if (await reader.readline()).strip() == b"":
                break
        if len(line) != 3:
            raise ValueError("not a request line")
        return line[0], line[1].split("?")[0]

    async def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"Only GET is served here.\n"
        match path:
            case "/healthz":
                return 200, "text/plain", b"ok\n"
            case "/readyz":
                reasons = status.readiness(self._node)
                text = "ready" if not reasons else "not ready: " + "; ".join(reasons)
                return 503 if reasons else 200, "text/plain", text.encode() + b"\n"
            case "/metrics":
                return 200, "text/plain; version=0.0.4", status.metrics(self._node).encode()
            case "/status" | "/":
                return 200, "application/json", json.dumps(status.status(self._node), indent=2).encode() + b"\n"
            case "/why":
                tree = {
                    "coin": status.coin(self._node),
                    "why_not_earning": status.why_not_earning(self._node),
                    "coordinators": await why.ask_all(self._node),
                }
                return 200, "application/json", json.dumps(tree, indent=2).encode() + b"\n"
            case _:
                return 404, "text/plain", b"There are /healthz, /readyz, /metrics, /status and /why.\n"
