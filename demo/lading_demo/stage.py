"""Processes of the demo: started together, logged to files, and gone when the demo is gone, however it ends.

Every child asks the kernel for SIGKILL when its parent dies, so even `kill -9` of the demo leaves nothing behind.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class Fallen(Exception):
    """A process of the demo ended when it should run."""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Stage:
    """Starts programs below `folder`; use as `async with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
        """Run a Python module or script in the background; its output goes to NAME.log."""
        with self.log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *_python(arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                preexec_fn=_die_with_parent,
            )
        self.running[name] = process
        return process

    async def call(self, name: str, arguments: Sequence[str]) -> str:
        """Run a Python module or script to its end; returns what it printed. Raises Fallen with what it said."""
        process = await asyncio.create_subprocess_exec(
            *_python(arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
            preexec_fn=_die_with_parent,
        )
        self.running[name] = process
        out, err = await process.communicate()
        del self.running[name]
        if process.returncode:
            raise Fallen(f"`{name}` ended with {process.returncode}: {err.decode().strip() or out.decode().strip()}")
        return out.decode()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check(self) -> None:
        """Raises Fallen when a background process has ended by itself."""
        for name, process in self.running.items():
            if process.returncode is not None:
                raise Fallen(f"{name} ended with {process.returncode}:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        return ""

    async def kill(self, name: str) -> None:
        """SIGKILL: no farewell, as when the power fails."""
        process = self.running.pop(name)
        process.kill()
        await process.wait()

    async def stop(self, name: str, grace: float = 8.0) -> None:
        process = self.running.pop(name)
        if process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> "Stage":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(self.stop(name, 3.0) for name in list(self.running)))


def _python(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, *([] if arguments[0].endswith(".py") else ["-m"]), *arguments]


def environment() -> dict[str, str]:
    """The demo's children see no settings of the person who runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LADING_")}
    return kept | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1", "LADING_SETTINGS": os.devnull}
