"""The door by itself: after a refused caller the next one waits a little, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from typing import Any

import pytest
import uvloop

from factories import key
from lading_net.direct import DirectTransport
from lading_net.direct.door import Door, listening_sockets


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_crowd_of_refused_callers_is_looked_at_one_by_one_with_rests_between(loop: str) -> None:
    looked_at: list[float] = []

    def admit(host: str) -> None:
        assert host == "127.0.0.1"
        looked_at.append(asyncio.get_running_loop().time())

    async def scenario() -> None:
        door = Door(await listening_sockets("127.0.0.1", 0, socket.AF_INET), admit)
        callers = [socket.socket() for _ in range(120)]
        for each in callers:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", door.port))
        async with asyncio.timeout(10):
            while len(looked_at) < 120:  # noqa: ASYNC110  # real sockets
                await asyncio.sleep(0.01)
        for each in callers:
            each.setblocking(True)
            with pytest.raises(ConnectionError):
                each.recv(1)
            each.close()
        door.close()
        await door.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(scenario())
    assert all(looked_at[at + 10] - looked_at[at] >= 0.009 for at in range(120 - 10))


def test_who_is_admitted_waits_for_no_rest_and_meets_its_protocol() -> None:
    async def scenario() -> None:
        met: asyncio.Queue[str] = asyncio.Queue()

        class Greeter(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.write(b"come in")
                met.put_nowait(transport.get_extra_info("peername")[0])

        door = Door(await listening_sockets("localhost", 0, socket.AF_INET), lambda host: Greeter())
        port = door.port
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for reader, writer in streams:
            assert await reader.readexactly(7) == b"come in"
            assert await met.get() == "127.0.0.1"
            writer.close()
        door.close()
        await door.wait_closed()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(scenario())


class Full(asyncio.SelectorEventLoop):
    """The system has no room for another connection."""

    async def connect_accepted_socket(self, *arguments: Any, **named: Any) -> Any:
        raise OSError(24, "Too many open files")


def test_a_caller_that_is_lost_at_the_door_leaves_nothing_behind() -> None:
    lost: list[str] = []

    class Caller(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            lost.append(str(error))

    async def scenario() -> None:
        door = Door(await listening_sockets("127.0.0.1", 0, socket.AF_INET), lambda host: Caller())
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", door.port)) as caller:
                await asyncio.sleep(0.05)
                caller.setblocking(False)
                assert caller.recv(1) == b"", "it was closed"
        door.close()
        await door.wait_closed()

    with asyncio.Runner(loop_factory=Full) as runner:
        runner.run(scenario())
    assert len(lost) == 3


def test_whatever_goes_wrong_with_one_caller_the_next_is_heard() -> None:
    heard: list[str] = []

    def admit(host: str) -> None:
        heard.append(host)
        if len(heard) == 1:
            raise ValueError("an address like no other")

    async def scenario() -> None:
        door = Door(await listening_sockets("127.0.0.1", 0, socket.AF_INET), admit)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", door.port)):
                await asyncio.sleep(0.4)
        door.close()
        await door.wait_closed()

    asyncio.run(scenario())
    assert len(heard) == 2


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", range(8))
def test_a_caller_who_comes_as_the_door_closes_is_not_left_hanging(turns: int, loop: str) -> None:
    made: list[asyncio.BaseTransport] = []

    class Caller(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def scenario() -> None:
        door = Door(await listening_sockets("127.0.0.1", 0, socket.AF_INET), lambda host: Caller())
        await asyncio.sleep(0.01)
        with socket.create_connection(("127.0.0.1", door.port)) as caller:
            for _ in range(turns):
                await asyncio.sleep(0)
            door.close()
            await door.wait_closed()
            for each in made:
                each.abort()  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
            gc.collect()  # a socket that nobody closed is told of here
            caller.settimeout(5)
            with contextlib.suppress(ConnectionError):
                assert caller.recv(1) == b""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("who", [0, 1])
def test_whenever_one_end_closes_during_a_dial_the_other_is_left_with_no_link(who: int) -> None:
    """Also in the very turn in which the link is made, and nobody has taken it yet."""

    async def dialled(turns: int) -> None:
        ends = [DirectTransport(key(name)) for name in ("caller", "called")]
        dialling = asyncio.ensure_future(ends[0].dial(await ends[1].listen("/ip4/127.0.0.1/tcp/0")))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ends[who].close()
        await asyncio.gather(dialling, return_exceptions=True)
        await asyncio.sleep(0.02)
        try:
            async with asyncio.timeout(2):
                while ends[1 - who].links():  # noqa: ASYNC110  # a real socket
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"closed after {turns} turns, and the link lives on") from None
        finally:
            await ends[1 - who].close()

    for turns in range(60):
        asyncio.run(dialled(turns))
