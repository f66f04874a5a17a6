"""One operating-system process of an engine: spawning, its three pipes, its end, and what the host measures of it.

Moves frames and keeps the last words of stderr; what the messages mean is the business of child.py.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from lading_node.engines import wire
from lading_node.engines.cgroup import Group
from lading_node.engines.launch import Launch
from lading_node.engines.port import FailureCode
from lading_protocol.errors import BadMessage
from lading_protocol.framing import Frames

STDERR_TAIL = 64 << 10
# What a process may write on stderr: this much at once, and so much a second for good.
STDERR_BURST = 4 << 20
STDERR_RATE = 64 << 10
_GROUP_RETRY_S = 0.05
_GROUP_TRIES = 40

Receive = Callable[[wire.FromEngine, int], None]
End = Callable[[FailureCode, str], None]


def kill_all(pid: int) -> None:
    """Ends a process that has a session of its own, and what it has begun there: a wall that is killed in its first
    moments leaves a child behind that waits for it for ever."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class EngineProcess(asyncio.SubprocessProtocol):
    """Calls `receive` for each message and its size in bytes, and `end` once when the process is gone or cannot be
    trusted any more."""

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
        self._group = Group()
        self._walled = False
        self._spoken = 0.0
        self._quiet = 0.0
        self._pid = 0

    @property
    def pid(self) -> int:
        """Of the engine itself, as this machine numbers it: inside the wall it is the only child of bubblewrap."""
        if self._walled:
            try:
                return int(Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()[0])
            except (OSError, ValueError, IndexError):
                pass
        return self._pid

    @property
    def alive(self) -> bool:
        return self._stdin is not None and not self._exited.is_set() and self._reason is None

    async def begin(self, making: Callable[[], Launch]) -> Launch:
        """Make the launch, in a thread, and spawn it. Cancelled, it waits until what began can be ended by `kill` and
        `clean`: half a process could not. Raises OSError."""
        beginning = asyncio.ensure_future(self._begin(making))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await asyncio.wait([beginning])
            beginning.cancelled() or beginning.exception()  # nobody is left to hear it
            raise

    async def _begin(self, making: Callable[[], Launch]) -> Launch:
        launch = await asyncio.to_thread(making)
        await self._spawn(launch)
        return launch

    async def _spawn(self, launch: Launch) -> None:
        self._group, self._walled = launch.group, launch.bounds.walled
        pipe = asyncio.subprocess.PIPE
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(
                lambda: self,
                *launch.command,
                cwd=self._folder,
                env=launch.environment,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                pass_fds=tuple(launch.group.joins),
                start_new_session=True,
            )
        finally:
            launch.group.close()

    def write(self, frame: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(frame)

    def kill(self, code: FailureCode, why: str) -> None:
        """Unconditional. The first reason given is the one that requests hear."""
        if self._reason is None:
            self._reason = (code, why)
        if self._transport is not None and not self._exited.is_set():
            kill_all(self._pid)

    async def wait(self, seconds: float) -> None:
        """Until the process has ended, but no longer than `seconds`; not at all for one that never began."""
        if self._transport is None:
            return
        try:
            await asyncio.wait_for(self._exited.wait(), seconds)
        except TimeoutError:
            pass

    def clean(self) -> None:
        """Close the pipes, remove the process's folder and its control groups."""
        if self._transport is not None:
            self._transport.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._ungroup(_GROUP_TRIES)

    def _ungroup(self, tries: int) -> None:
        """A killed process inside the wall ends a moment after the wall; what is left over goes with a later start."""
        if not self._group.remove() and tries:
            asyncio.get_running_loop().call_later(_GROUP_RETRY_S, self._ungroup, tries - 1)

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
        self._pid = self._transport.get_pid()
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._reason is not None:
            return
        if fd == 2:
            self._words += data
            del self._words[:-STDERR_TAIL]
            self._count_words(len(data))
            return
        try:
            for payload in self._frames.feed(data):
                self._receive(wire.from_engine.decode(payload), len(payload))
        except (BadMessage, msgspec.MsgspecError) as error:
            self.kill("engine_error", f"The engine's process sent what is not a message: {error}")

    def _count_words(self, more: int) -> None:
        now = asyncio.get_running_loop().time()
        self._spoken = max(0.0, self._spoken - (now - self._quiet) * STDERR_RATE) + more
        self._quiet = now
        if self._spoken > STDERR_BURST:
            self.kill("engine_error", "The engine's process flooded its error output and was killed.")

    def process_exited(self) -> None:
        self._exited.set()
        code = self._transport.get_returncode() if self._transport is not None else None
        if self._walled and code is not None and code > 128:
            code = 128 - code  # bubblewrap says a signal as a shell does
        reason = self._reason or ("engine_died", f"The engine's process ended with status {code}.")
        self._reason = reason
        if self._end is not None:
            end, self._end = self._end, None
            end(*reason)
