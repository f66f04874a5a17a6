"""The benchmark of broken streams, small: no token wrong, lost or paid twice, on the memory network and on sockets."""

import asyncio

import pytest

from bench.failover_host import Fault, Faults
from bench.failover_run import Fleet, Tally, fleet
from lading_net.clock import run_virtual
from lading_net.direct import DirectTransport
from lading_net.memory import MemoryNetwork

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


async def warm(made: Fleet) -> None:
    made.behave(Faults(0.0, 0.0, 0), pause=0.001, burst=1)
    check(await made.run(40, 4))


def check(tally: Tally) -> Tally:
    assert tally.wrong == []
    return tally


@pytest.mark.parametrize("kind", list(Fault))
def test_no_break_of_any_kind_costs_or_doubles_a_token(kind: Fault) -> None:
    async def play() -> None:
        async with fleet(MemoryNetwork(seed=3).transport, "/ip4/10.0.0.1/tcp/0") as made:
            await warm(made)
            made.behave(Faults(0.7, 0.25, 5, [kind]), pause=0.0005)
            tally = check(await made.run(80, 16, real=4))
            assert tally.moves == made.injected > 40

    run_virtual(play())


def test_the_same_on_sockets_and_a_short_wait_where_nothing_stalls() -> None:
    async def play() -> None:
        async with fleet(DirectTransport, LOOPBACK) as made:
            await warm(made)
            kinds = [Fault.DEATH, Fault.HALF, Fault.REPEATED, Fault.SKIPPED]
            made.behave(Faults(0.7, 0.25, 7, kinds), burst=4)
            tally = check(await made.run(120, 8, real=15))
            assert made.injected > 60
            # A reset may overtake the host's word that it had begun: then there was nothing to leave.
            assert 0.8 * made.injected <= tally.moves <= made.injected
            assert sorted(tally.gaps)[len(tally.gaps) // 2] < 0.5

    asyncio.run(play())


def test_many_streams_at_once_do_not_make_each_other_move() -> None:
    async def play() -> None:
        async with fleet(DirectTransport, LOOPBACK) as made:
            await warm(made)
            made.behave(Faults(0.3, 0.1, 9, [Fault.DEATH, Fault.HALF]), burst=1)
            tally = check(await made.run(150, 150))
            assert tally.moves <= 1.3 * tally.streams

    asyncio.run(play())


def test_a_wrong_token_would_be_seen() -> None:
    """The comparison is not blind: a host of another model is caught by every stream that it serves."""

    async def play() -> None:
        async with fleet(MemoryNetwork(seed=3).transport, "/ip4/10.0.0.1/tcp/0") as made:
            for host in made.hosts:
                host.swaps = True
            tally = await made.run(5, 1)
            assert len(tally.wrong) == 5

    run_virtual(play())
