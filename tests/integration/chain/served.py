"""The embedded chain in a process of its own, for the tests of this folder."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from lading_contracts.rpc import RpcChain, RpcSettings, open_chain

T = TypeVar("T")
CHAIN_ID = 31_338
QUICK = RpcSettings(attempts=2, backoff=0.01, timeout=5.0)


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await asyncio.wait_for(work, 60)

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
