"""What a direct link holds, and for how long it listens to one peer: two real ones, joined by memory."""

import asyncio
from collections import Counter

import pytest

from lading_net.direct import DirectSettings, Limits
from lading_net.errors import (
    BufferFull,
    LinkClosed,
    NetTimeout,
    StreamReset,
    TooManyStreams,
)
from lading_net.ports import Stream
from unit.net.wire import Wire, play, read_all, recorder

_PING = bytes([0, 2, 0, 1, *bytes(8)])


def test_a_slow_reader_stops_its_writer_and_nobody_else() -> None:
    async def scenario(wire: Wire) -> None:
        go_on = asyncio.Event()
        got: list[bytes] = []

        async def slow(stream: Stream) -> None:
            await go_on.wait()
            got.append(await read_all(stream))

        wire.far_handlers["/slow"] = slow
        stream = await wire.near.open("/slow")
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(100):
                stream.write(bytes(50_000))
                written += 50_000
                await stream.drain()
            await stream.close()

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(60)
        assert written < 700_000  # the window, what drain() lets pile up, and the last write
        assert wire.far._session.unread <= 256 * 1024
        other = await wire.near.open("/echo")
        other.write(b"quick")
        assert await other.read() == b"quick"
        go_on.set()
        await writing
        assert await stream.read() == b""
        assert len(got[0]) == 5_000_000

    play(scenario)


def test_a_writer_who_ignores_drain_is_refused_in_time() -> None:
    async def scenario(wire: Wire) -> None:
        wire.far_handlers["/idle"] = lambda stream: asyncio.sleep(3600)
        stream = await wire.near.open("/idle")
        for _ in range(49):
            stream.write(bytes(10_000))
        with pytest.raises(BufferFull):
            stream.write(bytes(10_000))
        await asyncio.sleep(1)
        stream.reset()
        assert wire.near.queued == 0

    play(scenario, DirectSettings(limits=Limits(queued_stream=500_000)))


def test_unread_data_of_many_streams_is_bounded() -> None:
    async def scenario(wire: Wire) -> None:
        wire.far_handlers["/idle"] = lambda stream: asyncio.sleep(3600)
        streams = [await wire.near.open("/idle") for _ in range(20)]
        for stream in streams:
            stream.write(bytes(200_000))
        await asyncio.sleep(1)
        assert wire.far._session.unread <= 1_000_000
        failed = 0
        for stream in streams:
            try:
                stream.write(b"x")
            except StreamReset:
                failed += 1
        assert failed == 15

    play(scenario, DirectSettings(limits=Limits(received=1_000_000)))


def test_unread_data_of_all_links_together_is_bounded() -> None:
    async def scenario(wire: Wire) -> None:
        wire.far_handlers["/idle"] = lambda stream: asyncio.sleep(3600)
        streams = [await wire.near.open("/idle") for _ in range(4)]
        for stream in streams:
            stream.write(bytes(40_000))
        await asyncio.sleep(1)
        pool = wire.far._pool
        assert pool.unread == wire.far.unread == 80_000  # two of four were given up
        await wire.far.close()
        assert pool.unread == 0
        assert not pool.links

    play(scenario, DirectSettings(memory=100_000))


def test_a_full_socket_stops_the_link_and_everything_arrives_afterwards() -> None:
    async def scenario(wire: Wire) -> None:
        got: list[bytes] = []
        wire.far_handlers["/sink"] = recorder(got)
        wire.near_pipe.stalled = True
        streams = [await wire.near.open("/sink") for _ in range(10)]
        for number, stream in enumerate(streams):
            stream.write(bytes([number]) * 200_000)
            await stream.close()
        await asyncio.sleep(1)
        assert sum(map(len, wire.near_pipe.held)) < 1_000_000
        wire.near_pipe.go_on()
        for stream in streams:
            assert await stream.read() == b""
        assert sorted(got) == [bytes([number]) * 200_000 for number in range(10)]

    play(scenario)


def test_one_who_says_much_at_once_is_heard_in_turns_and_each_reader_hears_it_together() -> None:
    async def scenario(wire: Wire) -> None:
        turn = 0
        woken: list[tuple[int, Stream]] = []
        got: dict[Stream, bytes] = {}
        done = asyncio.Event()

        async def watched(stream: Stream) -> None:
            got[stream] = b""

            def hear() -> None:
                woken.append((turn, stream))
                while data := stream.poll():
                    got[stream] += data

            stream.watch(hear)
            await done.wait()
            stream.watch(None)

        wire.far_handlers["/watched"] = watched
        streams = [await wire.near.open("/watched") for _ in range(600)]
        await asyncio.sleep(1)
        reading: list[str] = []
        wire.far_pipe.pause_reading = lambda: reading.append("paused")  # type: ignore[method-assign]
        wire.far_pipe.resume_reading = lambda: reading.append("resumed")  # type: ignore[method-assign]
        wire.near_pipe.stalled = True
        for word in range(5):
            for stream in streams:
                stream.write(bytes([word]) * 40)
            await asyncio.sleep(0)  # a frame each
        wire.near_pipe.go_on()
        while turn < 40:
            turn += 1
            await asyncio.sleep(0)
        told = b"".join(bytes([word]) * 40 for word in range(5))
        assert list(got.values()) == [told] * 600
        assert max(Counter(turn for turn, _ in woken).values()) <= 256
        assert len(woken) < 2 * 600
        assert reading == ["paused", "resumed"]
        done.set()
        await asyncio.sleep(1)

    play(scenario)


@pytest.mark.parametrize(("pings", "seconds"), [(30, 0.0), (500, 0.024), (1000, 0.056)])
def test_who_asks_for_too_much_is_heard_with_rests_between(pings: int, seconds: float) -> None:
    async def scenario(wire: Wire) -> None:
        heard: list[float] = []

        async def listening(stream: Stream) -> None:
            while await stream.read():
                heard.append(asyncio.get_running_loop().time())

        wire.far_handlers["/word"] = listening
        stream = await wire.near.open("/word")
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        wire.near_pipe.writelines(wire.near._seal(_PING * pings))
        stream.write(b"and a word")
        await asyncio.sleep(1)
        assert heard[0] - started == pytest.approx(seconds, abs=1e-4)

    play(scenario)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_reader_is_woken_once_for_what_came_together_also_before_the_link_broke(breaks: bool) -> None:
    async def scenario(wire: Wire) -> None:
        heard: list[bytes | str | None] = []

        async def watched(stream: Stream) -> None:
            def hear() -> None:
                try:
                    heard.append(stream.poll())
                except LinkClosed:
                    heard.append("closed")

            stream.watch(hear)
            await asyncio.sleep(10)

        wire.far_handlers["/watched"] = watched
        stream = await wire.near.open("/watched")
        await asyncio.sleep(1)
        wire.near_pipe.stalled = True
        for word in (b"one ", b"two ", b"three"):
            stream.write(word)
            await asyncio.sleep(0)  # a message each
        if breaks:
            wire.near_pipe.writelines(wire.near._seal(b"\xff" * 12))
        assert len(wire.near_pipe.held) >= 6
        wire.near_pipe.go_on()
        await asyncio.sleep(1)
        assert heard == [b"one two three", *["closed"] * breaks]

    play(scenario)


def test_opening_waits_until_the_peer_has_answered_earlier_streams() -> None:
    async def scenario(wire: Wire) -> None:
        wire.stall()
        first = [await wire.near.open("/echo") for _ in range(4)]
        waiting = asyncio.ensure_future(wire.near.open("/echo"))
        await asyncio.sleep(5)
        assert not waiting.done()
        wire.go_on()
        stream = await waiting
        stream.write(b"at last")
        assert await stream.read() == b"at last"
        for each in first:
            each.reset()
        await asyncio.sleep(1)
        wire.stall()
        for _ in range(4):
            await wire.near.open("/echo")
        with pytest.raises(NetTimeout):
            await wire.near.open("/echo")

    play(scenario, DirectSettings(limits=Limits(unacknowledged=4)))


def test_streams_are_limited_at_both_ends() -> None:
    async def scenario(wire: Wire) -> None:
        streams = [await wire.near.open("/echo") for _ in range(3)]
        with pytest.raises(TooManyStreams):
            await wire.near.open("/echo")
        await streams[0].close()
        assert await streams[0].read() == b""
        stream = await wire.near.open("/echo")
        stream.write(b"room again")
        assert await stream.read() == b"room again"

    play(scenario, DirectSettings(limits=Limits(streams=3)))


def test_4096_streams_at_once() -> None:
    async def scenario(wire: Wire) -> None:
        async def one(number: int) -> None:
            stream = await wire.near.open("/echo")
            stream.write(b"%d" % number)
            assert await stream.read() == b"%d" % number
            arrived.release()
            await all_arrived.wait()
            await stream.close()
            assert await stream.read() == b""

        arrived, all_arrived = asyncio.Semaphore(0), asyncio.Event()
        tasks = [asyncio.ensure_future(one(number)) for number in range(4096)]
        for _ in range(4096):
            await arrived.acquire()
        assert len(wire.far._session.flows) == 4096
        all_arrived.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(1)
        assert not wire.near._session.flows
        assert not wire.far._session.flows
        assert not wire.far._tasks

    play(scenario)
