"""The chains of this folder's tests: the embedded one in a process of its own, and anvil where it is installed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from lading_contracts import anvil
from lading_contracts.rpc import RpcChain, RpcSettings, open_chain

T = TypeVar("T")
CHAIN_ID = 31_338
QUICK = RpcSettings(attempts=2, backoff=0.01, timeout=5.0)
KINDS = ("embedded", "anvil")


def run(work: Awaitable[T], seconds: float = 60) -> T:
    async def main() -> T:
        return await asyncio.wait_for(work, seconds)

    return asyncio.run(main())


class Chain:
    """The embedded chain in a process of its own, as `lading chain up` runs it."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        arguments = ["--folder", str(folder), "--port", str(port), "--chain-id", str(CHAIN_ID), "--block-time", "0"]
        command = [sys.executable, "-m", "lading_contracts.embedded", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = json.loads(line)["url"] if line else ""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def open(self) -> RpcChain:
        return open_chain(self.url, CHAIN_ID, QUICK)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=20)
        return self.process.returncode


def require_anvil() -> None:
    """In CI it must be there, elsewhere its absence is a reason to skip."""
    if anvil.find() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "anvil is not installed: python contracts/tools/forge.py"
        )


@asynccontextmanager
async def raised(kind: str, folder: Path) -> AsyncIterator[RpcChain]:
    """A chain of this kind, without blocks of its own, and the adapter on it."""
    if kind == "anvil":
        require_anvil()
        other = await anvil.Anvil.start(anvil.AnvilSettings(chain_id=CHAIN_ID, block_time=0))
        client = open_chain(other.url, CHAIN_ID, QUICK)
        try:
            yield client
        finally:
            await client.close()
            await other.stop()
        return
    served = Chain(folder)
    client = served.open()
    try:
        yield client
    finally:
        await client.close()
        served.end(signal.SIGKILL)


async def travel(chain: RpcChain, moment: int) -> None:
    """Blocks come at Unix second `moment` or later from now on; a moment that has passed changes nothing."""
    while (ahead := moment - await now(chain)) > 0:
        await chain.request("evm_increaseTime", [hex(ahead)])
        await chain.request("evm_mine", [])


async def now(chain: RpcChain) -> int:
    head = await chain.block()
    assert head is not None
    return head.timestamp
