"""Races for the first token, at their edges: both at once, a consumer that leaves just then, a rival out of reach."""

import asyncio

import pytest

from factories import key
from lading.dispatch import Ended
from lading_net.memory import Conditions
from lading_net.messages import MessageStream
from lading_protocol.ids import Address
from lading_protocol.messages import Open, Pay
from lading_protocol.pricing import attempt_amount
from unit.client.toys import PAYER, WHOLE, Paced, World, ask, learn, prefer, simulate, text_of, world


class Starter(Paced):
    """Once it is `held`, it answers when the gate opens."""

    def __init__(self, label: str, gate: asyncio.Event) -> None:
        super().__init__(key(label).address.hex(), gap=1.0)
        self.gate, self.held, self.sent, self.late = gate, False, 0, 0.0

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        if self.held:
            await self.gate.wait()
            self.first = self.late
            self.sent = 1
        await super()._answer(messages, ask)


async def race(w: World, *hosts: Starter) -> None:
    """Both are known, and the next job will have both of them waiting at the gate."""
    for host in hosts:
        host.gap = 0.001
    await learn(w, hosts[0])
    prefer(w, *hosts)
    for host in hosts:
        host.gap, host.held = 1.0, True


def delivered(w: World, paid: dict[Address, int]) -> dict[Address, int]:
    return {host.key.address: w.promised(host) - paid[host.key.address] for host in w.hosts}


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 6, 8, 500])
def test_both_hosts_of_a_dead_heat_are_owed_what_they_delivered(turns: int) -> None:
    """What the slower one said in the turn in which the other one won, or the consumer left, is not lost."""

    async def play() -> None:
        gate = asyncio.Event()
        slow, rival = Starter("slow", gate), Starter("rival", gate)
        async with world(slow, rival) as w:
            await race(w, slow, rival)
            paid = {host.key.address: w.promised(host) for host in w.hosts}
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await asyncio.sleep(1.0)
            assert rival.opened
            gate.set()
            for _ in range(turns):
                await asyncio.sleep(0 if turns < 500 else 0.001)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            await w.dispatcher.close()
            owed = delivered(w, paid)
            one = attempt_amount(slow.offer.price, 3, 0, 1)
            assert set(owed.values()) == {one if slow.sent else 0}
            assert sum(owed.values()) == sum(part.amount for part in w.ended[-1].parts if slow.sent)

    simulate(play)


def test_a_rival_that_is_out_of_reach_does_not_keep_the_first_host_waiting() -> None:
    async def play() -> None:
        gate = asyncio.Event()
        slow, rival = Starter("slow", gate), Starter("rival", gate)
        async with world(slow, rival) as w:
            await race(w, slow, rival)
            slow.gap = 0.001
            w.net.partition([rival.key.address])
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await asyncio.sleep(0.5)
            before = asyncio.get_running_loop().time()
            gate.set()
            assert text_of(await job) == WHOLE
            assert asyncio.get_running_loop().time() - before < 1.0, "dialling lasts 5 s"
            assert rival.opened == []
            await w.dispatcher.close()
            assert w.dispatcher.reserved == {}

    simulate(play)


def test_a_host_that_gives_up_while_its_rival_is_dialled_leaves_the_job_to_it() -> None:
    async def play() -> None:
        gate = asyncio.Event()
        slow, rival = Starter("slow", gate), Starter("rival", gate)
        rival.held = False
        async with world(slow, rival) as w:
            await race(w, slow, rival)
            rival.gap, rival.held = 0.001, False
            w.net.shape(PAYER.address, rival.key.address, Conditions(delay=0.2))
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await asyncio.sleep(0.1)
            w.net.sever(PAYER.address, slow.key.address)
            assert text_of(await job) == WHOLE
            assert len(rival.opened) == 1
            await w.dispatcher.close()
            assert w.dispatcher.reserved == {}

    simulate(play)


def test_what_the_slower_host_is_paid_stands_in_the_account_though_it_never_says_its_last_word() -> None:
    """It delivers as long as it may, and falls silent: the job's account waits for that, and says what it came to."""

    async def play() -> None:
        gate = asyncio.Event()
        slow, rival = Starter("slow", gate), Starter("rival", gate)
        async with world(slow, rival) as w:
            await race(w, slow, rival)
            slow.gap, slow.deaf, slow.sticks = 0.5, True, 2
            rival.gap = 0.0  # all of its answer comes at once
            slow.late = 0.001
            paid = {host.key.address: w.promised(host) for host in w.hosts}
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await asyncio.sleep(1.0)
            gate.set()
            [account] = [event for event in await job if isinstance(event, Ended)]
            await asyncio.sleep(10)
            await w.dispatcher.close()
            owed = delivered(w, paid)
            assert owed[slow.key.address] > 0
            assert {part.host: part.amount for part in account.parts} == owed

    simulate(play)


@pytest.mark.parametrize("turns", range(8))
def test_a_rival_that_is_reached_just_as_the_first_host_answers_is_not_left_hanging(turns: int) -> None:
    async def play() -> None:
        gate = asyncio.Event()
        slow, rival = Starter("slow", gate), Starter("rival", gate)
        async with world(slow, rival) as w:
            await race(w, slow, rival)
            slow.gap = rival.gap = 0.0
            reached = asyncio.Event()
            w.dispatcher.transport.on_link(lambda link: reached.set() if link.peer == rival.key.address else None)
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await reached.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            gate.set()
            assert text_of(await job) == WHOLE
            await asyncio.sleep(10)
            assert w.dispatcher.reserved == {}
            assert all(not state.busy for state in w.dispatcher.directory.hosts().values())
            owed = {host.key.address: w.promised(host) for host in w.hosts}
            assert sum(owed.values()) == sum(account.cost for account in w.ended)

    simulate(play)
