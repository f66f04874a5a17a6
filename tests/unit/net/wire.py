"""Two real direct links joined by memory instead of a socket, for tests on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from lading_net.clock import run_virtual
from lading_net.direct.link import DirectLink
from lading_net.direct.noise import Credentials
from lading_net.direct.pool import Pool
from lading_net.direct.settings import DirectSettings
from lading_net.direct.upgrade import Upgrade
from lading_net.ports import Stream, StreamHandler
from lading_protocol.keys import PrivateKey

ONE, TWO = PrivateKey(b"1" * 32), PrivateKey(b"2" * 32)
HIGH_WATER = 256 * 1024


class MemoryPipe:
    """Delivers at the next turn of the loop; while `stalled`, holds what was written, as a full socket does."""

    def __init__(self) -> None:
        self.mine: DirectLink
        self.theirs: DirectLink
        self.stalled = self.over = False
        self.held: list[bytes] = []
        self.paused = False

    def writelines(self, pieces: Sequence[bytes], /) -> None:
        if self.over:
            return  # as a transport does between losing its socket and telling so
        if self.stalled:
            self.held += pieces
            if not self.paused and sum(map(len, self.held)) > HIGH_WATER:
                self.paused = True
                self.mine.pause_writing()
        else:
            asyncio.get_running_loop().call_soon(self.theirs.data_received, b"".join(pieces))

    def go_on(self) -> None:
        self.stalled = False
        pieces, self.held = self.held, []
        self.writelines(pieces)
        if self.paused:
            self.paused = False
            self.mine.resume_writing()

    def close(self) -> None:
        self.abort()

    def pause_reading(self) -> None:
        """What was written is on its way already: there is no more to hold back."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def get_extra_info(self, name: str, default: object = None, /) -> object:
        return default

    def abort(self) -> None:
        if not self.over:
            self.over = True
            asyncio.get_running_loop().call_soon(self.mine.connection_lost, None)
            if not self.stalled:
                asyncio.get_running_loop().call_soon(self.theirs.connection_lost, None)


def upgrade_pair(first: Upgrade, second: Upgrade, chunk: int = 1 << 20) -> None:
    """Runs both sides to the end, `chunk` bytes at a time."""
    towards, back = first.start(), second.start()
    while towards or back:
        now_towards, now_back = towards[:chunk], back[:chunk]
        towards, back = towards[chunk:], back[chunk:]
        back += second.receive(now_towards) if now_towards else b""
        towards += first.receive(now_back) if now_back else b""


class Wire:
    """`near` dialled `far`. Handlers may be added at any time."""

    def __init__(self, settings: DirectSettings | None = None) -> None:
        settings = settings or DirectSettings()
        self.near_handlers: dict[str, StreamHandler] = {}
        self.far_handlers: dict[str, StreamHandler] = {"/echo": echo}
        first, second = Upgrade(Credentials(ONE), True, TWO.address), Upgrade(Credentials(TWO), False)
        upgrade_pair(first, second)
        assert first.remote is not None
        assert second.remote is not None
        self.near_pipe, self.far_pipe = MemoryPipe(), MemoryPipe()
        keys = ((first.sealer, first.opener), (second.sealer, second.opener))
        self.near = DirectLink(
            first.remote, True, keys[0], self.near_pipe, self.near_handlers.get, settings, Pool(settings.memory)
        )
        self.far = DirectLink(
            second.remote, False, keys[1], self.far_pipe, self.far_handlers.get, settings, Pool(settings.memory)
        )
        self.near_pipe.mine = self.far_pipe.theirs = self.near
        self.near_pipe.theirs = self.far_pipe.mine = self.far

    def stall(self) -> None:
        self.near_pipe.stalled = self.far_pipe.stalled = True

    def go_on(self) -> None:
        self.near_pipe.go_on()
        self.far_pipe.go_on()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


def recorder(into: list[bytes]) -> Callable[[Stream], Awaitable[None]]:
    async def handler(stream: Stream) -> None:
        into.append(await read_all(stream))

    return handler


Scenario = Callable[[Wire], Awaitable[None]]


def play(scenario: Scenario, settings: DirectSettings | None = None) -> None:
    async def main() -> None:
        wire = Wire(settings)
        try:
            await scenario(wire)
        finally:
            await wire.near.close()
            await wire.far.close()
            await wire.near.end_handlers()
            await wire.far.end_handlers()

    run_virtual(main())
