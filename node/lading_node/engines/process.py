"""One operating-system process of an engine: spawning, its three pipes, its end, and what the host measures of it.

Moves frames and keeps the last words of stderr; what the messages mean is the business of child.py.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from lading_node.engines import wire
from lading_node.engines.port import FailureCode
from lading_protocol.errors import BadMessage
from lading_protocol.framing import Frames

STDERR_TAIL = 64 << 10

Receive = Callable[[wire.FromEngine], None]
End = Callable[[FailureCode, str], None]


class EngineProcess(asyncio.SubprocessProtocol):
    """Calls `receive` for each message, and `end` once when the process is gone or cannot be trusted any more."""

    def __init__(self, folder: Path, receive: Receive, end: End) -> None:
        self._folder = folder
        self._receive = receive
        self._end: End | None = end
        self._frames = Frames()
        self._words = bytearray()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._reason: tuple[FailureCode, str] | None = None
        self._exited = asyncio.Event()
        self.pid = 0

    @property
    def alive(self) -> bool:
        return self._stdin is not None and not self._exited.is_set() and self._reason is None

    async def spawn(self, threads: int) -> None:
        """Raises OSError."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-I", "-X", "utf8", "-m", "lading_node.engines.runner", str(os.getpid()))
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "OMP_NUM_THREADS": str(threads),
            "ORT_DISABLE_TELEMETRY": "1",
            "ORT_GENAI_TELEMETRY_DISABLED": "1",
        }
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: self, *command, cwd=self._folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    def write(self, frame: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(frame)

    def kill(self, code: FailureCode, why: str) -> None:
        """Unconditional. The first reason given is the one that requests hear."""
        if self._reason is None:
            self._reason = (code, why)
        if self._transport is not None and not self._exited.is_set():
            try:
                self._transport.kill()
            except ProcessLookupError:
                pass

    async def wait(self, seconds: float) -> None:
        """Until the process has ended, but no longer than `seconds`."""
        try:
            await asyncio.wait_for(self._exited.wait(), seconds)
        except TimeoutError:
            pass

    def clean(self) -> None:
        """Close the pipes and remove the process's folder."""
        if self._transport is not None:
            self._transport.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def last_words(self) -> str:
        """The last line of stderr: for the host's own log, as it may name paths of this machine."""
        lines = bytes(self._words).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def usage(self) -> tuple[float, int]:
        """Processor seconds and resident bytes, from the kernel; zeros where it does not tell."""
        try:
            # Fields after the parenthesised name, which may hold spaces: see proc(5).
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0.0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the classes, of asyncio's.
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._words += data
            del self._words[:-STDERR_TAIL]
            return
        if self._reason is not None:
            return
        try:
            for payload in self._frames.feed(data):
                self._receive(wire.from_engine.decode(payload))
        except (BadMessage, msgspec.MsgspecError) as error:
            self.kill("engine_error", f"The engine's process sent what is not a message: {error}")

    def process_exited(self) -> None:
        self._exited.set()
        code = self._transport.get_returncode() if self._transport is not None else None
        reason = self._reason or ("engine_died", f"The engine's process ended with status {code}.")
        self._reason = reason
        if self._end is not None:
            end, self._end = self._end, None
            end(*reason)
