"""The embedded chain as a running thing: an HTTP listener on this machine only, and empty blocks while nothing happens.

One thread does everything in order, which is what a chain is. Start it in a process of its own (`python -m
lading_contracts.embedded`, `lading chain up`): a large batch keeps its event loop busy for a fraction of a second.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from lading_contracts.errors import BadDeployment, ChainMissing, PortInUse
from lading_protocol.ids import Wei
from lading_protocol.keys import PrivateKey, keccak256

DEFAULT_CHAIN_ID = 4_207_849_484  # "lading" has no registered id: high, so that it meets no public chain
FAUCET_BALANCE = Wei(10**27)
_MAX_BODY = 4 * 1024 * 1024


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`folder=None` keeps the chain in memory; `port=0` takes a free port; `block_time=0` mines no empty blocks.

    `seed` derives the faucet's key: whoever knows it owns this chain's currency, so it only suits development.
    """

    folder: Path | None = None
    port: int = 0
    chain_id: int = DEFAULT_CHAIN_ID
    block_time: float = 2.0
    seed: str = "lading"


def faucet_key(seed: str) -> PrivateKey:
    """The funded key of a development chain."""
    return PrivateKey(keccak256(b"lading development faucet:" + seed.encode()))


class EmbeddedChain:
    """A running chain: `url`, `chain_id`, `faucet`, and `stop()`."""

    def __init__(self, settings: EmbeddedSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.chain_id = settings.chain_id
        self.faucet = faucet_key(settings.seed)
        self.url = ""
        self._settings = settings
        self._answer = _open(settings, {self.faucet.address: FAUCET_BALANCE}, clock)
        self._clients: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, settings: EmbeddedSettings, *, clock: Callable[[], float] = time.time) -> "EmbeddedChain":
        """Raises ChainFolderBusy, PortInUse, ChainMissing, BadDeployment (the folder holds another chain id)."""
        chain = cls(settings, clock=clock)
        loop = asyncio.get_running_loop()
        try:
            chain._server = await loop.create_server(chain._connection, "127.0.0.1", settings.port)
        except OSError as error:
            chain._answer.close()
            raise PortInUse(f"Port {settings.port} of this machine is taken.") from error
        port = chain._server.sockets[0].getsockname()[1]
        chain.url = f"http://127.0.0.1:{port}"
        if settings.block_time > 0:
            chain._ticker = loop.create_task(chain._tick(settings.block_time))
        return chain

    def _connection(self) -> "_Http":
        return _Http(self._answer.http, self._clients)

    async def _tick(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            self._answer.mine_if_idle(period)

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._server is not None:
            self._server.close()
            for transport in tuple(self._clients):
                transport.abort()
            await self._server.wait_closed()
        self._answer.close()


class _Request(msgspec.Struct):
    method: str
    params: list[Any] = []
    id: Any = None


class Answerer:
    """JSON-RPC bodies in, bodies out. Also the door for in-process use: `request`."""

    def __init__(self, evm: Any, methods: Any, refusal: type[Any]) -> None:
        self._evm, self._methods, self._refusal = evm, methods, refusal
        self._one = msgspec.json.Decoder(_Request)
        self._many = msgspec.json.Decoder(list[_Request])

    def request(self, method: str, params: list[Any]) -> dict[str, Any]:
        """The `result` or `error` part of a JSON-RPC answer."""
        try:
            return {"result": self._methods.answer(method, params)}
        except self._refusal as no:
            body = {"code": no.code, "message": no.message}
            return {"error": body if no.data is None else {**body, "data": no.data}}
        except sqlite3.Error as error:  # a full or broken disk: the block was rolled back, the chain goes on answering
            return {"error": {"code": -32603, "message": f"the embedded chain cannot use its file: {error}"}}

    def http(self, body: bytes) -> bytes:
        try:
            if body.lstrip()[:1] == b"[":
                return msgspec.json.encode([self._envelope(request) for request in self._many.decode(body)])
            return msgspec.json.encode(self._envelope(self._one.decode(body)))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return msgspec.json.encode(
                {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": f"not JSON-RPC: {error}"}}
            )

    def _envelope(self, request: _Request) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request.id, **self.request(request.method, request.params)}

    def mine_if_idle(self, period: float) -> None:
        """An empty block when nothing happened for a while. A full disk costs only this one."""
        if self._evm.now() - self._evm.head.timestamp >= period:
            with contextlib.suppress(sqlite3.Error):
                self._evm.mine()

    def close(self) -> None:
        self._evm.store.close()


def _open(settings: EmbeddedSettings, balances: Mapping[bytes, int], clock: Callable[[], float]) -> Answerer:
    try:
        from lading_contracts.embedded.evm import Evm
        from lading_contracts.embedded.methods import Methods, Refusal
    except ImportError as error:
        raise ChainMissing("The embedded chain needs py-evm, which is not installed.") from error
    from lading_contracts.embedded.store import Store

    store = Store(settings.folder)
    known = store.meta("chain_id")
    if known is not None and known != str(settings.chain_id):
        store.close()
        raise BadDeployment(
            f"The folder {settings.folder} holds a chain with id {known}, not {settings.chain_id}.",
            hint="Ask for that chain id, or use another folder.",
        )
    evm = Evm(store, settings.chain_id, balances, clock)
    return Answerer(evm, Methods(evm), Refusal)


def in_process(settings: EmbeddedSettings, *, clock: Callable[[], float] = time.time) -> Answerer:
    """The same chain without a socket, for tests: give it to rpc.InProcess."""
    return _open(settings, {faucet_key(settings.seed).address: FAUCET_BALANCE}, clock)


class _Http(asyncio.Protocol):
    """As much HTTP/1.1 as JSON-RPC clients speak: POST with a length, keep-alive, pipelining."""

    def __init__(self, answer: Callable[[bytes], bytes], clients: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._clients = clients
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._clients.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._transport is not None and self._take():
            pass

    def _take(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(head) > 16_384:
                self._reply(b"431 Request Header Fields Too Large", b"", close=True)
            return False
        line, *fields = head.lower().split(b"\r\n")
        headers = dict(field.split(b":", 1) for field in fields if b":" in field)
        if not line.startswith(b"post "):
            self._reply(b"405 Method Not Allowed", b"", close=True)
            return False
        if headers.get(b"origin", b"").strip().startswith(b"http"):
            self._reply(b"403 Forbidden", b"", close=True)  # a web page has no business with this machine's chain
            return False
        length = headers.get(b"content-length", b"").strip()
        if not length.isdigit() or int(length) > _MAX_BODY:
            self._reply(b"413 Content Too Large" if length.isdigit() else b"411 Length Required", b"", close=True)
            return False
        if len(rest) < int(length):
            return False
        body, self._buffer = rest[: int(length)], rest[int(length) :]
        self._reply(b"200 OK", self._answer(body), close=headers.get(b"connection", b"").strip() == b"close")
        return True

    def _reply(self, status: bytes, body: bytes, *, close: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
        )
        if close:
            self._transport.close()
            self._clients.discard(self._transport)
            self._transport = None

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._clients.discard(self._transport)
            self._transport = None
