"""What a program sees of a direct link: two real ones, joined by memory, on a virtual clock."""

import asyncio
import logging

import pytest

from lading_net.direct import DirectStream
from lading_net.direct.multistream import Dialler
from lading_net.errors import (
    LinkClosed,
    NetTimeout,
    StreamClosed,
    StreamReset,
    UnknownProtocol,
)
from lading_net.ports import Stream
from unit.net.wire import TWO, Wire, echo, play, read_all, recorder


def now() -> float:
    return asyncio.get_running_loop().time()


def test_either_end_opens_streams() -> None:
    async def scenario(wire: Wire) -> None:
        wire.near_handlers["/back"] = echo
        for link, protocol in ((wire.near, "/echo"), (wire.far, "/back")):
            stream = await link.open(protocol)
            stream.write(b"hello")
            assert await stream.read() == b"hello"
            await stream.close()
            assert await stream.read() == b""
        assert wire.near.peer == TWO.address
        assert stream.peer == wire.far.peer

    play(scenario)


def test_a_handler_knows_its_protocol_and_its_peer() -> None:
    async def scenario(wire: Wire) -> None:
        async def tell(stream: Stream) -> None:
            stream.write(stream.protocol.encode() + stream.peer)

        wire.far_handlers["/tell"] = tell
        stream = await wire.near.open("/tell")
        assert await read_all(stream) == b"/tell" + wire.far.peer

    play(scenario)


def test_an_unknown_protocol_fails_its_stream_only() -> None:
    async def scenario(wire: Wire) -> None:
        good, bad = await wire.near.open("/echo"), await wire.near.open("/nobody/serves/this")
        bad.write(b"lost")
        with pytest.raises(UnknownProtocol, match="/nobody/serves/this"):
            await bad.read()
        with pytest.raises(UnknownProtocol):
            bad.write(b"more")
        good.write(b"fine")
        assert await good.read() == b"fine"

    play(scenario)


def test_each_side_is_closed_on_its_own() -> None:
    async def scenario(wire: Wire) -> None:
        got: list[bytes] = []

        async def answer_after_the_end(stream: Stream) -> None:
            got.append(await read_all(stream))
            stream.write(b"answer")

        wire.far_handlers["/late"] = answer_after_the_end
        stream = await wire.near.open("/late")
        stream.write(b"request")
        await stream.close()
        await stream.close()
        with pytest.raises(StreamClosed):
            stream.write(b"more")
        assert await read_all(stream) == b"answer"
        assert await stream.read() == b""
        assert got == [b"request"]

    play(scenario)


def test_a_reset_reaches_reader_and_writer_of_the_other_end() -> None:
    async def scenario(wire: Wire) -> None:
        seen: list[str] = []

        async def wait(stream: Stream) -> None:
            try:
                await read_all(stream)
            except StreamReset as error:
                seen.append(error.code)
            with pytest.raises(StreamReset):
                stream.write(b"x")
            with pytest.raises(StreamReset):
                await stream.drain()

        wire.far_handlers["/wait"] = wait
        stream = await wire.near.open("/wait")
        stream.write(b"some")
        await asyncio.sleep(1)
        stream.reset()
        stream.reset()
        with pytest.raises(StreamReset):
            await stream.read()
        await asyncio.sleep(1)
        assert seen == ["net_stream_reset"]

    play(scenario)


def test_a_failing_handler_resets_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(wire: Wire) -> None:
        async def fail(stream: Stream) -> None:
            raise ZeroDivisionError

        wire.far_handlers["/fail"] = fail
        with pytest.raises(StreamReset):
            await (await wire.near.open("/fail")).read()

    with caplog.at_level(logging.ERROR):
        play(scenario)
    assert "the handler of /fail failed" in caplog.text


def test_what_arrived_before_the_link_died_can_still_be_read() -> None:
    async def scenario(wire: Wire) -> None:
        stream = await wire.near.open("/echo")
        stream.write(b"precious")
        await asyncio.sleep(1)
        wire.far_pipe.abort()
        await wire.near.closed.wait()
        assert await stream.read() == b"precious"
        with pytest.raises(LinkClosed):
            await stream.read()
        with pytest.raises(LinkClosed):
            stream.write(b"x")
        with pytest.raises(LinkClosed):
            await wire.near.open("/echo")

    play(scenario)


def test_whoever_waits_learns_at_once_that_the_link_died() -> None:
    async def scenario(wire: Wire) -> None:
        wire.far_handlers["/idle"] = lambda stream: asyncio.sleep(3600)
        reader, writer = await wire.near.open("/idle"), await wire.near.open("/idle")
        writer.write(bytes(2_000_000))
        waiting = [asyncio.ensure_future(reader.read()), asyncio.ensure_future(writer.drain())]
        await asyncio.sleep(1)
        start = now()
        wire.far_pipe.abort()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LinkClosed, LinkClosed]
        assert now() - start < 0.1

    play(scenario)


def test_an_idle_link_lives_and_a_silent_peer_is_given_up() -> None:
    async def scenario(wire: Wire) -> None:
        stream = await wire.near.open("/echo")
        await asyncio.sleep(3600)
        assert not wire.near.lost
        stream.write(b"still there")
        assert await stream.read() == b"still there"
        start = now()
        wire.stall()  # as when the cable is cut: nothing arrives, nothing is refused
        with pytest.raises(LinkClosed, match="silent"):
            await stream.read()
        assert 15 <= now() - start <= 45
        await wire.near.closed.wait()

    play(scenario)


def test_a_stream_whose_handler_returned_early_does_not_linger() -> None:
    async def scenario(wire: Wire) -> None:
        async def hang_up(stream: Stream) -> None:
            stream.write(b"no")

        wire.far_handlers["/no"] = hang_up
        stream = await wire.near.open("/no")
        assert await read_all(stream) == b"no"
        assert len(wire.far._session.flows) == 1
        await asyncio.sleep(60)
        assert not wire.far._session.flows
        with pytest.raises(StreamReset):
            stream.write(b"x")

    play(scenario)


def test_a_stream_that_never_names_its_protocol_does_not_linger() -> None:
    async def scenario(wire: Wire) -> None:
        flow = wire.near._session.open()
        stream = flow.owner = DirectStream(wire.near, flow, "/never", Dialler("/never"))
        wire.near.send(flow, b"\x13/multi")
        await asyncio.sleep(1)
        assert len(wire.far._session.flows) == 1
        with pytest.raises((StreamReset, NetTimeout)):
            await stream.read()
        assert not wire.far._session.flows
        assert 15 <= now() <= 45

    play(scenario)


def test_a_retired_link_closes_when_its_last_stream_is_done() -> None:
    async def scenario(wire: Wire) -> None:
        stream = await wire.near.open("/echo")
        wire.near.retire()
        await asyncio.sleep(60)
        stream.write(b"still served")
        assert await stream.read() == b"still served"
        await stream.close()
        assert await stream.read() == b""
        await asyncio.sleep(60)
        assert wire.near.lost
        assert wire.far.lost

    play(scenario)


def test_a_link_that_is_probed_in_vain_ends_at_the_next_tick() -> None:
    async def scenario(wire: Wire) -> None:
        wire.near.probe()
        await asyncio.sleep(100)
        assert not wire.near.lost
        wire.stall()
        wire.near.probe()
        await asyncio.sleep(15)
        assert wire.near.lost

    play(scenario)


def test_garbage_on_the_wire_ends_the_link_for_both() -> None:
    async def scenario(wire: Wire) -> None:
        stream = await wire.near.open("/echo")
        wire.near.data_received(b"\0\x20" + bytes(32))
        with pytest.raises(LinkClosed, match="integrity"):
            await stream.read()
        await wire.far.closed.wait()

    play(scenario)


def test_closing_sends_what_was_written_before() -> None:
    async def scenario(wire: Wire) -> None:
        got: list[bytes] = []
        wire.far_handlers["/sink"] = recorder(got)
        stream = await wire.near.open("/sink")
        stream.write(b"last words")
        await stream.close()
        await wire.near.close()
        await asyncio.sleep(1)
        assert got == [b"last words"]

    play(scenario)


def test_a_stream_has_one_reader_and_a_cancelled_read_loses_nothing() -> None:
    async def scenario(wire: Wire) -> None:
        stream = await wire.near.open("/echo")
        first = asyncio.ensure_future(stream.read())
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError):
            await stream.read()
        first.cancel()
        await asyncio.sleep(1)
        stream.write(b"kept")
        assert await stream.read() == b"kept"

    play(scenario)
