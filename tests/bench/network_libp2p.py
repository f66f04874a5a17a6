"""py-libp2p's own streams (TCP, Noise, yamux), both ends a process: what the direct link is compared with.

`measure` starts both and returns what they found; run as a program this file is one of the ends.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import Any

from .processes import program, say_ready

TIMES = 50
FRAMES = 2_000
BYTES = 32 << 20
_PART = 64 * 1024


def measure() -> dict[str, Any]:
    """Medians; empty without the library."""
    if find_spec("libp2p") is None:
        return {}
    with program("-m", __name__, "serve") as server, program("-m", __name__, server.facts["endpoint"]) as client:
        return client.facts


def end(endpoint: str) -> None:
    import multiaddr  # type: ignore[import-untyped]
    import trio
    from libp2p import new_host
    from libp2p.crypto.secp256k1 import create_new_key_pair
    from libp2p.custom_types import TProtocol
    from libp2p.peer.peerinfo import info_from_p2p_addr

    async def main() -> None:
        host = new_host(key_pair=create_new_key_pair())
        for name, handler in (("/echo/1", echo), ("/sink/1", sink)):
            host.set_stream_handler(TProtocol(name), handler)
        async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            if endpoint == "serve":
                say_ready({"endpoint": str(host.get_addrs()[0])})
                await trio.sleep_forever()
            info = info_from_p2p_addr(multiaddr.Multiaddr(endpoint))
            await host.connect(info)
            say_ready(await found(lambda name: host.new_stream(info.peer_id, [TProtocol(name)])))
            await trio.sleep_forever()

    trio.run(main)


async def echo(stream: Any) -> None:
    while data := await read(stream):
        await stream.write(data)


async def sink(stream: Any) -> None:
    count = 0
    while data := await read(stream):
        count += len(data)
        if data.endswith(b"?"):
            await stream.write(str(count).encode())


async def read(stream: Any) -> bytes:
    try:
        return bytes(await stream.read(_PART))
    except Exception as error:
        if type(error).__name__ in ("StreamEOF", "StreamReset", "StreamClosed"):
            return b""
        raise


async def found(open_stream: Any) -> dict[str, float]:
    fresh, kept = [], []
    for _ in range(TIMES):
        start = time.perf_counter()
        stream = await open_stream("/echo/1")
        await stream.write(bytes(1024))
        await stream.read(1024)
        fresh.append(time.perf_counter() - start)
        await stream.reset()
    stream = await open_stream("/echo/1")
    for _ in range(TIMES):
        start = time.perf_counter()
        await stream.write(bytes(1024))
        await stream.read(1024)
        kept.append(time.perf_counter() - start)
    seconds, _ = await poured(await open_stream("/sink/1"), bytes(_PART), BYTES // _PART)
    _, cpu = await poured(await open_stream("/sink/1"), bytes(200), FRAMES)
    return {
        "new_stream_ms": sorted(fresh)[TIMES // 2] * 1e3,
        "kept_stream_ms": sorted(kept)[TIMES // 2] * 1e3,
        "mb_per_s": BYTES / seconds / 1e6,
        "frame_cpu_us": cpu / FRAMES * 1e6,
    }


async def poured(stream: Any, part: bytes, times: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of this side, until the other side has it all."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        await stream.write(part)
    await stream.write(b"?")
    await stream.read(64)
    return time.perf_counter() - start, time.process_time() - cpu


if __name__ == "__main__":
    end(sys.argv[1])
