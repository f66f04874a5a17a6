"""What the in-memory network does to peers: delays to the microsecond, partitions, deaths, losses, all by seed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import key
from lading_net.clock import run_virtual
from lading_net.errors import DialFailed, LinkClosed, NetError, NetTimeout
from lading_net.memory import Conditions, MemoryNetwork, MemoryTransport
from lading_net.ports import Link, Stream

ALICE, BOB, CAROL = key("alice"), key("bob"), key("carol")
AT_BOB = "/ip4/10.0.0.2/tcp/4101"


def now() -> float:
    return asyncio.get_running_loop().time()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def pair(net: MemoryNetwork) -> tuple[MemoryTransport, MemoryTransport, Link]:
    alice, bob = net.transport(ALICE), net.transport(BOB)
    bob.handle("/echo/1", echo)
    await bob.listen(AT_BOB)
    return alice, bob, await alice.dial(AT_BOB, BOB.address)


def play(
    scenario: Callable[[MemoryNetwork], Awaitable[None]], conditions: Conditions | None = None, seed: int = 1
) -> None:
    async def main() -> None:
        await scenario(MemoryNetwork(seed, conditions))

    run_virtual(main(), seed, limit=3_600)


async def say(stream: Stream, text: bytes) -> bytes:
    stream.write(text)
    return await stream.read()


def test_delay_and_bandwidth_take_exactly_their_time() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        _, _, link = await pair(net)
        assert now() == pytest.approx(0.6)  # three round trips of 0.1 s each way
        stream = await link.open("/echo/1")
        began = now()
        assert await say(stream, bytes(1_000)) == bytes(1_000)
        assert now() - began == pytest.approx(2 * (0.1 + 1.0))

    play(scenario, Conditions(delay=0.1, bandwidth=1_000))


def test_a_pair_can_have_its_own_weather() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        _, _, link = await pair(net)
        carol = net.transport(CAROL)
        net.shape(ALICE.address, BOB.address, Conditions(delay=5))
        stream, other = await link.open("/echo/1"), await (await carol.dial(AT_BOB, None)).open("/echo/1")
        assert now() == 0
        await say(other, b"x")
        assert now() == 0
        await say(stream, b"x")
        assert now() == pytest.approx(10)

    play(scenario)


def test_a_partition_holds_traffic_until_it_heals() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, _, link = await pair(net)
        stream = await link.open("/echo/1")
        net.partition([ALICE.address])
        stream.write(b"through the dark")
        await asyncio.sleep(20)
        net.heal()
        assert await stream.read() == b"through the dark"
        assert alice.links() == [link]

    play(scenario)


def test_a_partition_that_lasts_breaks_the_link_at_both_ends() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, bob, link = await pair(net)
        theirs = bob.links()[0]
        stream = await link.open("/echo/1")
        assert await say(stream, b"x") == b"x"
        net.partition([ALICE.address], [BOB.address])
        with pytest.raises(LinkClosed):
            await stream.read()
        assert now() == net.silence
        assert link.closed.is_set()
        assert theirs.closed.is_set()
        with pytest.raises(NetTimeout):
            await alice.dial(AT_BOB, BOB.address)
        net.heal()
        again = await alice.dial(AT_BOB, BOB.address)
        assert await say(await again.open("/echo/1"), b"back") == b"back"

    play(scenario)


def test_a_second_partition_starts_its_own_silence() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        _, _, link = await pair(net)
        for _ in range(3):
            net.partition([ALICE.address])
            await asyncio.sleep(net.silence - 1)
            net.heal()
            await asyncio.sleep(1)
        assert not link.closed.is_set()

    play(scenario)


@pytest.mark.parametrize("silently", [False, True])
def test_a_killed_peer_is_missed_and_can_come_back(silently: bool) -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, bob, link = await pair(net)
        handled = asyncio.Event()

        async def last_words(stream: Stream) -> None:
            stream.write(b"sent before death")
            handled.set()
            await asyncio.sleep(1_000)

        bob.handle("/words/1", last_words)
        stream = await link.open("/words/1")
        await handled.wait()
        died = now()
        net.kill(BOB.address, silently=silently)
        heard = b"" if silently else await stream.read()
        with pytest.raises(LinkClosed):
            await stream.read()
        assert heard == (b"" if silently else b"sent before death")
        assert now() - died == pytest.approx(net.silence if silently else 0.1)
        with pytest.raises(LinkClosed):
            await bob.dial("/ip4/10.0.0.9/tcp/1", None)
        with pytest.raises((DialFailed, NetTimeout)):
            await alice.dial(AT_BOB, BOB.address)
        reborn = net.transport(BOB)
        reborn.handle("/echo/1", echo)
        await reborn.listen(AT_BOB)
        again = await alice.dial(AT_BOB, BOB.address)
        assert await say(await again.open("/echo/1"), b"hello again") == b"hello again"

    play(scenario, Conditions(delay=0.1))


def test_the_dead_peers_handlers_end_with_it() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        _, bob, link = await pair(net)
        ended = asyncio.Event()

        async def handler(stream: Stream) -> None:
            try:
                await asyncio.sleep(1_000)
            finally:
                ended.set()

        bob.handle("/slow/1", handler)
        await link.open("/slow/1")
        await asyncio.sleep(1)
        net.kill(BOB.address)
        await ended.wait()
        assert now() == 1

    play(scenario)


def test_severing_breaks_one_link_once() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, _, link = await pair(net)
        net.sever(BOB.address, ALICE.address)
        assert link.closed.is_set()
        assert await alice.dial(AT_BOB, BOB.address) is not link

    play(scenario)


def test_loss_breaks_links_as_often_as_it_says() -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, _, _ = await pair(net)
        net.shape(ALICE.address, BOB.address, Conditions(loss=0.02))
        broken = answered = 0
        for _ in range(1_000):
            try:
                link = await alice.dial(AT_BOB, BOB.address)
                await say(await link.open("/echo/1"), b"x")
                answered += 1
            except NetError:
                broken += 1
        assert 30 < broken < 110  # three writes, each lost once in fifty: about 60
        assert answered + broken == 1_000

    play(scenario)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_seed_gives_one_history(seed: int) -> None:
    def history() -> list[tuple[float, bytes]]:
        seen: list[tuple[float, bytes]] = []

        async def scenario(net: MemoryNetwork) -> None:
            alice, _, _ = await pair(net)
            for number in range(40):
                try:
                    link = await alice.dial(AT_BOB, BOB.address)
                    stream = await link.open("/echo/1")
                    seen.append((now(), await say(stream, b"%d" % number)))
                except NetError as error:
                    seen.append((now(), error.code.encode()))

        try:
            play(scenario, Conditions(delay=0.01, jitter=0.03, loss=0.01), seed)
        except NetError as error:  # the first link was lost before it stood
            seen.append((0.0, error.code.encode()))
        return seen

    assert history() == history()


@settings(max_examples=50, deadline=None)
@given(pieces=st.lists(st.binary(max_size=2_000), max_size=30), seed=st.integers(0, 1_000))
def test_whatever_the_weather_bytes_stay_in_order(pieces: list[bytes], seed: int) -> None:
    async def main() -> None:
        net = MemoryNetwork(seed, Conditions(delay=0.01, jitter=0.5, bandwidth=10_000), fragments=True)
        _, _, link = await pair(net)
        stream = await link.open("/echo/1")
        for piece in pieces:
            stream.write(piece)
        await stream.close()
        received = b""
        while data := await stream.read():
            received += data
        assert received == b"".join(pieces)

    run_virtual(main(), seed)


@pytest.mark.parametrize("turns", range(5))
def test_a_caller_that_is_cancelled_as_its_network_closes_stays_cancelled(turns: int) -> None:
    async def scenario(net: MemoryNetwork) -> None:
        alice, bob = net.transport(ALICE), net.transport(BOB)
        await bob.listen(AT_BOB)
        dialling = asyncio.ensure_future(alice.dial(AT_BOB, BOB.address))
        await asyncio.sleep(0.01)
        net.kill(ALICE.address)
        for _ in range(turns):
            await asyncio.sleep(0)
        if dialling.done():
            assert isinstance(dialling.exception(), LinkClosed)
            return
        dialling.cancel()
        await asyncio.wait([dialling])
        assert dialling.cancelled()

    play(scenario, Conditions(delay=0.1))
