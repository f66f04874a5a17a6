"""What every Transport must do, whichever network is behind: a class of tests for a subclass to run on one of them.

The in-memory network runs it here, the direct link in tests/integration. Nothing in it depends on how long things take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from factories import key
from lading_net.errors import (
    BadEndpoint,
    BufferFull,
    DialFailed,
    LinkClosed,
    NetError,
    PortInUse,
    StreamClosed,
    StreamReset,
    UnknownProtocol,
    WrongPeer,
)
from lading_net.ports import Link, Stream, Transport
from lading_protocol.keys import PrivateKey

ALICE, BOB, CAROL = key("alice"), key("bob"), key("carol")
ANY_PORT = "/ip4/127.0.0.1/tcp/0"


class Net(Protocol):
    """A network under test; it closes what it made."""

    def transport(self, who: PrivateKey) -> Transport: ...


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def linked(net: Net) -> tuple[Transport, Transport, Link]:
    alice, bob = net.transport(ALICE), net.transport(BOB)
    bob.handle("/echo/1", echo)
    endpoint = await bob.listen(ANY_PORT)
    return alice, bob, await alice.dial(endpoint, BOB.address)


class TransportContract:
    """Subclasses say how to run a scenario on their network."""

    def run(self, scenario: Callable[[Net], Awaitable[None]]) -> None:
        raise NotImplementedError

    def test_bytes_arrive_in_order_and_end(self) -> None:
        async def scenario(net: Net) -> None:
            _, _, link = await linked(net)
            stream = await link.open("/echo/1")
            sent = [bytes([number % 251]) * number for number in range(1, 300)]
            for piece in sent:
                stream.write(piece)
            await stream.close()
            assert await read_all(stream) == b"".join(sent)
            assert await stream.read() == b""
            assert (stream.peer, stream.protocol, link.peer) == (BOB.address, "/echo/1", BOB.address)

        self.run(scenario)

    def test_more_than_any_buffer_holds_flows_with_drain(self) -> None:
        async def scenario(net: Net) -> None:
            _, _, link = await linked(net)
            stream = await link.open("/echo/1")
            piece, count = bytes(range(256)) * 256, 200

            async def send() -> None:
                for _ in range(count):
                    stream.write(piece)
                    await stream.drain()
                await stream.close()

            _, received = await asyncio.gather(send(), read_all(stream))
            assert received == piece * count

        self.run(scenario)

    def test_a_writer_that_never_drains_is_refused(self) -> None:
        async def scenario(net: Net) -> None:
            _, bob, link = await linked(net)
            forever = asyncio.Event()

            async def deaf(stream: Stream) -> None:
                await forever.wait()

            bob.handle("/deaf/1", deaf)
            stream = await link.open("/deaf/1")

            def write_on() -> None:
                for _ in range(1_000):
                    stream.write(bytes(1024 * 1024))

            with pytest.raises(BufferFull):
                write_on()
            stream.reset()

        self.run(scenario)

    def test_the_accepting_side_opens_streams_too(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob = net.transport(ALICE), net.transport(BOB)
            arrived: asyncio.Queue[Link] = asyncio.Queue()
            bob.on_link(arrived.put_nowait)
            alice.handle("/echo/1", echo)
            await alice.dial(await bob.listen(ANY_PORT), None)
            back = await arrived.get()
            stream = await back.open("/echo/1")
            stream.write(b"from the listener")
            await stream.close()
            assert await read_all(stream) == b"from the listener"
            assert back.peer == ALICE.address

        self.run(scenario)

    def test_a_second_dial_returns_the_link_there_is(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob = net.transport(ALICE), net.transport(BOB)
            endpoint = await bob.listen(ANY_PORT)
            first, together = await asyncio.gather(alice.dial(endpoint, None), alice.dial(endpoint, None))
            assert first is together
            assert await alice.dial(endpoint, BOB.address) is first
            assert alice.links() == [first]

        self.run(scenario)

    def test_an_unknown_protocol_shows_at_the_first_read(self) -> None:
        async def scenario(net: Net) -> None:
            _, _, link = await linked(net)
            stream = await link.open("/nobody/1")
            with pytest.raises(UnknownProtocol):
                await stream.read()

        self.run(scenario)

    def test_a_failing_handler_resets_its_stream_only(self) -> None:
        async def scenario(net: Net) -> None:
            _, bob, link = await linked(net)

            async def failing(stream: Stream) -> None:
                await stream.read()
                raise StreamClosed("as handlers do")

            bob.handle("/failing/1", failing)
            good, bad = await link.open("/echo/1"), await link.open("/failing/1")
            bad.write(b"x")
            with pytest.raises(StreamReset):
                await bad.read()
            good.write(b"still here")
            await good.close()
            assert await read_all(good) == b"still here"

        self.run(scenario)

    def test_a_reset_is_seen_and_nothing_can_be_written_after(self) -> None:
        async def scenario(net: Net) -> None:
            _, bob, link = await linked(net)
            seen: asyncio.Future[NetError] = asyncio.get_running_loop().create_future()

            async def watch(stream: Stream) -> None:
                try:
                    await read_all(stream)
                except NetError as error:
                    seen.set_result(error)

            bob.handle("/watch/1", watch)
            stream = await link.open("/watch/1")
            stream.write(b"something")
            await asyncio.sleep(0.05)
            stream.reset()
            assert isinstance(await seen, StreamReset)
            with pytest.raises(StreamReset):
                stream.write(b"more")
            stream.reset()
            await stream.close()

        self.run(scenario)

    def test_writing_after_close_is_refused_and_reading_goes_on(self) -> None:
        async def scenario(net: Net) -> None:
            _, _, link = await linked(net)
            stream = await link.open("/echo/1")
            stream.write(b"last words")
            await stream.close()
            await stream.close()
            with pytest.raises(StreamClosed):
                stream.write(b"more")
            assert await read_all(stream) == b"last words"

        self.run(scenario)

    def test_closing_a_link_ends_its_streams_at_both_ends(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob, link = await linked(net)
            stream = await link.open("/echo/1")
            stream.write(b"x")
            assert await stream.read() == b"x"
            theirs = bob.links()[0]
            await link.close()
            await theirs.closed.wait()
            assert link.closed.is_set()
            with pytest.raises(LinkClosed):
                await stream.read()
            with pytest.raises(LinkClosed):
                await link.open("/echo/1")
            assert (alice.links(), bob.links()) == ([], [])

        self.run(scenario)

    def test_a_closed_transport_takes_its_peers_links_with_it(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob, link = await linked(net)
            stream = await link.open("/echo/1")
            stream.write(b"x")
            assert await stream.read() == b"x"
            await bob.close()
            await bob.close()
            await link.closed.wait()
            with pytest.raises((LinkClosed, StreamReset)):
                await stream.read()
            with pytest.raises(LinkClosed):
                await bob.dial("/ip4/127.0.0.1/tcp/1", None)
            again = net.transport(BOB)
            fresh = await alice.dial(await again.listen(ANY_PORT), BOB.address)
            assert fresh is not link

        self.run(scenario)

    def test_who_answers_must_be_who_was_expected(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob = net.transport(ALICE), net.transport(BOB)
            endpoint = await bob.listen(ANY_PORT)
            with pytest.raises(WrongPeer):
                await alice.dial(endpoint, CAROL.address)
            bare = endpoint.split("/p2p/")[0]
            with pytest.raises(WrongPeer):
                await alice.dial(bare, CAROL.address)
            assert alice.links() == []
            assert (await alice.dial(bare, None)).peer == BOB.address

        self.run(scenario)

    def test_bad_and_dead_endpoints_are_refused(self) -> None:
        async def scenario(net: Net) -> None:
            alice, bob = net.transport(ALICE), net.transport(BOB)
            endpoint = await bob.listen(ANY_PORT)
            with pytest.raises(PortInUse):
                await alice.listen(endpoint.split("/p2p/")[0])
            for text in ("", "nonsense", "/ip4/1.2.3.4/udp/5", "/ip4/1.2.3.4/tcp/70000"):
                with pytest.raises(BadEndpoint):
                    await alice.dial(text, None)
                with pytest.raises(BadEndpoint):
                    await alice.listen(text)
            await bob.close()
            with pytest.raises(DialFailed):
                await alice.dial(endpoint, None)

        self.run(scenario)
