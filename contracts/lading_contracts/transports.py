"""How a JSON-RPC question reaches a chain: HTTP, WebSocket or IPC (both through web3.py), or a call in this process.

Owns connections and their failures; knows no method's meaning. Raises ChainUnreachable when no answer comes.
"""

import logging
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from lading_contracts.embedded.server import Answerer
from lading_contracts.errors import ChainUnreachable, RpcFailed

_BUSY = (429, 502, 503, 504)


class Answer(msgspec.Struct):
    """The body of a JSON-RPC response; `error` is None on success."""

    result: Any = None
    error: dict[str, Any] | None = None


class Transport(Protocol):
    async def request(self, method: str, params: list[Any]) -> Answer:
        """One question, one answer, no retry. Raises ChainUnreachable, RpcFailed."""
        ...

    async def close(self) -> None: ...


def open_transport(url: str, timeout: float) -> Transport:
    """http(s)://, ws(s):// or the path of an .ipc socket."""
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return Http(url, timeout)
    return Web3Socket(url, timeout)


class Http:
    """One pooled HTTP client, opened at the first question."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._client: Any = None
        self._decoder = msgspec.json.Decoder(Answer)

    async def request(self, method: str, params: list[Any]) -> Answer:
        import httpx

        if self._client is None:
            local = urlsplit(self._url).hostname in ("127.0.0.1", "localhost", "::1")
            self._client = httpx.AsyncClient(timeout=self._timeout, trust_env=not local)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            response = await self._client.post(self._url, content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            raise ChainUnreachable(f"The chain at {self._url} does not answer ({_why(error)}).") from error
        if response.status_code in _BUSY:
            raise ChainUnreachable(f"The chain at {self._url} is busy (HTTP {response.status_code}).")
        try:
            return self._decoder.decode(response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RpcFailed(
                f"{self._url} answered HTTP {response.status_code} with something that is not JSON-RPC.",
                hint="Check that the URL is the RPC endpoint of an EVM chain.",
            ) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class Web3Socket:
    """A WebSocket or IPC endpoint through web3.py's persistent providers, imported (a second) when first asked."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._provider: Any = None

    async def request(self, method: str, params: list[Any]) -> Answer:
        from web3.exceptions import Web3Exception

        try:
            if self._provider is None:
                self._provider = await self._connect()
            answer = await self._provider.make_request(method, params)
        except (OSError, TimeoutError, Web3Exception) as error:
            await self.close()
            raise ChainUnreachable(f"The chain at {self._url} does not answer ({_why(error)}).") from error
        return Answer(answer.get("result"), answer.get("error"))

    async def _connect(self) -> Any:
        from web3 import AsyncIPCProvider, WebSocketProvider

        sockets = urlsplit(self._url).scheme in ("ws", "wss")
        kind = WebSocketProvider if sockets else AsyncIPCProvider
        provider = kind(
            self._url, request_timeout=self._timeout, max_connection_retries=1, silence_listener_task_exceptions=True
        )
        # Its listener takes every error answer to a bare `make_request` for a stray one, and would end or log there;
        # the answer itself reaches us, and is judged by the adapter.
        provider.logger.setLevel(logging.CRITICAL)
        await provider.connect()
        return provider

    async def close(self) -> None:
        provider, self._provider = self._provider, None
        if provider is not None:
            await provider.disconnect()


class InProcess:
    """The embedded chain without a socket, for tests and tools that live and die with their chain."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._decoder = msgspec.json.Decoder(Answer)

    async def request(self, method: str, params: list[Any]) -> Answer:
        return self._decoder.decode(msgspec.json.encode(self._answerer.request(method, params)))

    async def close(self) -> None:
        self._answerer.close()


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
