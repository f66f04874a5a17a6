"""A Ray cluster as a pool's machines: starts the process that holds our place in it, and speaks with it over pipes.

Raises what keeps a cluster from being used in words. Imports no Ray.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from lading_node.engines.errors import EngineError
from lading_node.engines.launch import QUIET
from lading_node.engines.pool import Found, Heard, Lost, News
from lading_node.engines.ray_driver import Joined, Refused, Say, decoder
from lading_protocol.framing import Frames, frame

JOIN_S = 60.0
_AGAIN_S = 1.0
_encoder = msgspec.msgpack.Encoder()


class RayPool:
    """`address` is "host:port" of the cluster's head, or "auto" on a machine of it."""

    def __init__(self, address: str, environment: dict[str, str] | None = None) -> None:
        """`environment` is the process's own unless given; Ray's settings and its token are in it."""
        self._address = address
        self._environment = dict(os.environ if environment is None else environment)
        self._process: asyncio.subprocess.Process | None = None
        self._frames = Frames()
        self._waiting: deque[Joined | Refused | News] = deque()
        self._machines: set[str] = set()
        self._closed = False

    async def open(self) -> None:
        try:
            async with asyncio.timeout(JOIN_S):
                await self._spawn()
        except TimeoutError:
            await self._kill()
            why = f"The Ray cluster at {self._address} did not answer within {JOIN_S:g} s."
            raise EngineError("timeout", why, hint="Is it up?") from None
        except BaseException:
            await self._kill()
            raise

    async def news(self) -> AsyncIterator[News]:
        """When the process that holds our place ends, every machine is lost, and another one is started."""
        while not self._closed:
            async for message in self._messages():
                match message:
                    case Found(machine=machine):
                        self._machines.add(machine)
                        yield message
                    case Heard() | Lost():
                        yield message
                    case Joined() | Refused():
                        pass
            await self._kill()
            for machine in sorted(self._machines):
                yield Lost(machine, "The node's own place in the cluster was lost.")
            self._machines.clear()
            while not self._closed:
                await asyncio.sleep(_AGAIN_S)
                try:
                    await self.open()
                    break
                except EngineError:
                    continue

    async def say(self, machine: str, data: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return
        process.stdin.write(frame(_encoder.encode(Say(machine, data))))
        try:
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the end of the process is told by news

    async def close(self) -> None:
        self._closed = True
        await self._kill()

    async def _spawn(self) -> None:
        """Raises EngineError, OSError."""
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        # Ray asks a head that turns it down again and again; three times tell as much as twenty.
        quiet = {**self._environment, **QUIET, "RAY_NUM_REDIS_GET_RETRIES": "3"}
        self._frames, self._waiting = Frames(), deque()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-X", "utf8", "-m", "lading_node.engines.ray_driver"),
            *(self._address, str(os.getpid())),
            stdin=pipe,
            stdout=pipe,
            stderr=null,
            env=quiet,
        )
        async for message in self._messages():
            match message:
                case Joined():
                    return
                case Refused(message=why, hint=hint):
                    raise EngineError("engine_error", why, hint=hint)
        raise EngineError("engine_error", f"The process that joins the Ray cluster at {self._address} broke.")

    async def _messages(self) -> AsyncIterator[Joined | Refused | News]:
        process = self._process
        if process is None or process.stdout is None:
            return
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if not (data := await process.stdout.read(1 << 18)):
                return
            self._waiting.extend(map(decoder.decode, self._frames.feed(data)))

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
