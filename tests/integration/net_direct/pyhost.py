"""A py-libp2p host in a trio thread: the other implementation that the direct link must understand."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import multiaddr  # type: ignore[import-untyped]
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_pair
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.stream_muxer.exceptions import MuxedStreamError

ECHO = TProtocol("/echo/1")


class PyHost:
    """Serves /echo/1; `endpoint` is where."""

    def __init__(self, secret: bytes, ed25519: bool = False) -> None:
        self._keys = ed25519_pair(secret) if ed25519 else secp256k1_pair(secret)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)
        self.endpoint = ""
        self._thread.start()
        assert self._ready.wait(30)

    def call(self, action: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        return trio.from_thread.run(action, *arguments, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def ask(self, endpoint: str, data: bytes) -> bytes:
        """Dials, sends data to /echo/1, ends its side and reads until the other side ends too."""
        info = info_from_p2p_addr(multiaddr.Multiaddr(endpoint))
        await self._host.connect(info)
        stream = await self._host.new_stream(info.peer_id, [ECHO])
        got = bytearray()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, stream, data)
                await _read_all(stream, got)
        return bytes(got)

    async def dial(self, endpoint: str) -> None:
        await self._host.connect(info_from_p2p_addr(multiaddr.Multiaddr(endpoint)))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self._host = new_host(key_pair=self._keys)
        self._host.set_stream_handler(ECHO, _echo)
        async with self._host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            self.endpoint = str(self._host.get_addrs()[0])
            self._ready.set()
            await self._stop.wait()


async def _write(stream: Any, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        await stream.write(data[at : at + 65_536])
    await stream.close()


async def _read_all(stream: Any, into: bytearray) -> None:
    while part := await _read(stream):
        into += part


async def _read(stream: Any) -> bytes:
    try:
        data: bytes = await stream.read(65_536)
    except Exception as error:
        if type(error).__name__ == "StreamEOF":
            return b""
        raise
    return data


async def _echo(stream: Any) -> None:
    try:
        while data := await _read(stream):
            await stream.write(data)
        await stream.close()
    except MuxedStreamError:
        pass
    except Exception as error:
        if type(error).__name__ not in ("StreamReset", "StreamClosed", "StreamError"):
            raise
