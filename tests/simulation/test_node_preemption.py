"""Batch jobs give way to interactive ones at real nodes, lose no token, are paid exactly, and are never starved."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from factories import chat_request, key
from lading.dispatch import Ask, Ended, Moved, Payer, Piece, Started
from lading.dispatch.dispatcher import Event, Limits
from lading.errors import LadingError
from lading_net.clock import run_virtual
from lading_node.agents import Serving
from lading_node.node import Node
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Wei
from lading_protocol.messages import ChatRequest
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Receipt
from simulation.node_world import AGENT, PRICE, Gateway, Sea

DELAY = 0.1
LONG = chat_request("Number 1 of the long work.", max_tokens=150)
SHORT = chat_request("And of the short one.", max_tokens=4)


class Job:
    """A job on its way, with everything that was heard of it."""

    def __init__(self, gateway: Gateway, request: ChatRequest, batch: bool = False, payer: Payer | None = None) -> None:
        self.heard: list[Event] = []
        self.error: LadingError | None = None
        self.began = asyncio.get_running_loop().time()
        self.first = 0.0
        self._run = gateway.dispatcher.run(payer or gateway.payer, Ask(AGENT, request, batch=batch))
        self.task = asyncio.ensure_future(self._play())

    async def _play(self) -> "Job":
        try:
            async for event in self._run:
                if isinstance(event, Piece) and not self.first:
                    self.first = asyncio.get_running_loop().time() - self.began
                self.heard.append(event)
        except LadingError as error:
            self.error = error
        return self

    @property
    def ended(self) -> Ended:
        assert self.error is None, self.error
        assert isinstance(self.heard[-1], Ended)
        return self.heard[-1]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.heard if isinstance(event, Piece))

    @property
    def moves(self) -> list[str]:
        return [event.code for event in self.heard if isinstance(event, Moved)]


class Pier:
    def __init__(self, sea: Sea, gateway: Gateway, nodes: list[Node]) -> None:
        self.sea, self.gateway, self.nodes = sea, gateway, nodes

    def ask(self, request: ChatRequest, batch: bool = False, payer: Payer | None = None) -> Job:
        return Job(self.gateway, request, batch, payer)

    async def alone(self, request: ChatRequest) -> Job:
        return await self.ask(request).task


def play(story: Callable[[Pier], Awaitable[None]], hosts: int = 1, slots: int = 1, **limits: float) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea, limits=msgspec.structs.replace(Limits(first=10.0, between=4.0), **limits))
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        serving = (Serving(AGENT, sea.terms, PRICE, slots=slots),)
        nodes = [sea.node(f"host {n}", coordinators=endpoint, agents=serving, token_delay=DELAY) for n in range(hosts)]
        tasks = [asyncio.ensure_future(node.run()) for node in nodes]
        await gateway.offers(hosts)
        await story(Pier(sea, gateway, nodes))
        await gateway.dispatcher.close()
        for node in nodes:
            node.stop()
        await asyncio.gather(*tasks)

    run_virtual(main(), limit=20_000)


def check_paid(job: Job, whole: Job) -> None:
    """The answer of an unbroken run, every token paid once, the prompt too."""
    assert job.text == whole.text
    assert job.ended.emitted == whole.ended.emitted
    assert job.ended.finish == whole.ended.finish
    at = 0
    for part in job.ended.parts:
        assert part.first == at
        assert part.amount == attempt_amount(PRICE, job.ended.prompt_tokens, part.first, part.tokens)
        assert unpack(Receipt, part.receipt).value.output_tokens == part.tokens
        at += part.tokens
    assert at == len(job.ended.emitted)


def test_a_batch_job_gives_way_and_goes_on_where_it_was() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(LONG)
        batch = pier.ask(LONG, batch=True)
        await asyncio.sleep(3.0)
        urgent = await pier.ask(SHORT).task
        assert urgent.ended.parts
        assert urgent.first < 0.5
        await batch.task
        assert batch.moves[0] == "preempted"
        assert len([part for part in batch.ended.parts if part.tokens]) == 2
        check_paid(batch, whole)
        [node] = pier.nodes
        assert node.desk.totals.preempted == 1
        assert node.desk.totals.failed == 0
        assert pier.gateway.directory.host(node.address).failures == 0
        assert pier.gateway.dispatcher.failover.moves == 0

    play(story)


def test_with_another_host_the_batch_job_moves_at_once() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(LONG)
        batch = pier.ask(LONG, batch=True)
        await asyncio.sleep(3.0)
        busy = next(node for node in pier.nodes if node.desk.running)
        other = next(node for node in pier.nodes if node is not busy)
        pier.gateway.directory.bar(other.address, "closed for the moment")
        urgent = pier.ask(SHORT)
        await asyncio.sleep(0.05)
        pier.gateway.directory.bar(other.address, "")
        await asyncio.gather(urgent.task, batch.task)
        check_paid(batch, whole)
        hosts = [part.host for part in batch.ended.parts if part.tokens]
        assert hosts == [busy.address, other.address]

    play(story, hosts=2)


def test_neither_interactive_jobs_nor_young_ones_nor_those_stopped_three_times_give_way() -> None:
    async def story(pier: Pier) -> None:
        first = pier.ask(LONG)
        await asyncio.sleep(3.0)
        second = await pier.ask(SHORT).task
        assert second.error is not None
        assert "slots of this host are taken" in second.error.message
        await first.task
        young = pier.ask(LONG, batch=True)
        await asyncio.sleep(1.0)
        assert (await pier.ask(SHORT).task).error is not None
        await young.task

    play(story)


def test_a_batch_job_under_a_stream_of_interactive_ones_is_stopped_three_times_and_then_ends() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(LONG)
        batch = pier.ask(LONG, batch=True)
        refused = served = 0
        while not batch.task.done():
            await asyncio.sleep(2.2)
            one = await pier.ask(SHORT).task
            refused += one.error is not None
            served += one.error is None
        check_paid(batch, whole)
        assert batch.moves.count("preempted") == 3
        assert refused >= 1
        assert served >= 3

    play(story)


def test_nobody_gives_way_to_a_job_that_cannot_pay() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(LONG)
        batch = pier.ask(LONG, batch=True)
        await asyncio.sleep(3.0)
        poor = key("poor")
        job = await pier.ask(SHORT, payer=Payer(poor, poor.address, Wei(10**30))).task
        assert job.error is not None
        await batch.task
        assert batch.moves == []
        check_paid(batch, whole)

    play(story)


@pytest.mark.parametrize("jobs", [3, 4])
def test_many_batch_jobs_and_a_rush_leave_every_answer_whole(jobs: int) -> None:
    async def story(pier: Pier) -> None:
        requests = [chat_request(f"Number {n} of the long work.", max_tokens=150) for n in range(1, 1 + jobs)]
        whole = [await pier.alone(request) for request in requests]
        batch = [pier.ask(request, batch=True) for request in requests]
        await asyncio.sleep(2.5)
        rush = [pier.ask(SHORT) for _ in range(4)]
        await asyncio.gather(*(job.task for job in (*batch, *rush)))
        assert all(any(isinstance(event, Started) for event in job.heard) for job in rush), [job.error for job in rush]
        for job, reference in zip(batch, whole, strict=False):
            check_paid(job, reference)
        assert pier.gateway.dispatcher.reserved == {}
        assert not len(pier.gateway.dispatcher.line)

    play(story, hosts=2, slots=2)


def test_a_host_that_goes_down_is_chosen_no_more_and_hands_over_what_does_not_end_in_time() -> None:
    async def story(pier: Pier) -> None:
        whole = await pier.alone(LONG)
        long, short = pier.ask(LONG), pier.ask(SHORT)
        await asyncio.sleep(0.2)
        leaving = next(node for node in pier.nodes if node.desk.running == 2)
        staying = next(node for node in pier.nodes if node is not leaving)
        leaving.stop()
        await asyncio.sleep(0.5)
        later = await pier.ask(SHORT).task
        assert [part.host for part in later.ended.parts] == [staying.address]
        await asyncio.gather(long.task, short.task)
        assert short.moves == []
        assert long.moves == ["draining"]
        check_paid(long, whole)
        [first, second] = [part for part in long.ended.parts if part.tokens]
        assert (first.host, second.host) == (leaving.address, staying.address)
        assert first.tokens > 40, "it had its five seconds"
        assert pier.gateway.dispatcher.failover.moves == 0
        assert leaving.desk.totals.failed == 0

    play(story, hosts=2, slots=2)
