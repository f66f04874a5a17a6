"""Runs the embedded chain in a process of its own: prints one JSON line when it listens, stops at SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from lading_contracts.embedded.server import DEFAULT_CHAIN_ID, EmbeddedChain, EmbeddedSettings
from lading_contracts.errors import ChainError


async def serve(settings: EmbeddedSettings, *, with_parent: bool = False) -> None:
    stop = asyncio.Event()
    parent = os.getppid()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    chain = await EmbeddedChain.start(settings)
    print(json.dumps({"url": chain.url, "chain_id": chain.chain_id, "pid": os.getpid()}), flush=True)
    while not stop.is_set():
        if with_parent and os.getppid() != parent:
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5 if with_parent else None)
    await chain.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lading_contracts.embedded", description="A persistent EVM chain for one machine."
    )
    parser.add_argument("--folder", type=Path, help="data folder; without it the chain lives in memory")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--chain-id", type=int, default=DEFAULT_CHAIN_ID)
    parser.add_argument("--block-time", type=float, default=2.0, help="seconds between empty blocks; 0 for none")
    parser.add_argument("--seed", default="lading", help="derives the faucet's key")
    parser.add_argument("--with-parent", action="store_true", help="stop when the process that started this one ends")
    given = parser.parse_args()
    settings = EmbeddedSettings(
        folder=given.folder, port=given.port, chain_id=given.chain_id, block_time=given.block_time, seed=given.seed
    )
    try:
        asyncio.run(serve(settings, with_parent=given.with_parent))
    except ChainError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
