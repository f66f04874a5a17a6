"""The dispatcher against hosts that die, stall and lie at every place, over the in-memory network."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from factories import NOW, chat_request, job_id, key
from lading.dispatch import Ask, Ended, Moved, Payer, Piece, Started
from lading.dispatch.dispatcher import Event, Refusal
from lading.dispatch.purse import ChannelKey
from lading.errors import JobLost, NoHost, OutOfFunds
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_protocol.eip712 import unpack
from lading_protocol.ids import JobId, Wei
from lading_protocol.messages import Accept, Chunk, Done, Fail, Open, Pay, Refuse, Tokens
from lading_protocol.pricing import attempt_amount, prompt_bound
from lading_protocol.receipts import Finish, Receipt
from lading_protocol.transcript import prompt_hash, roll, rolling_start
from unit.client.toys import (
    ANSWER,
    PAYER,
    PROMPT,
    RECORD,
    WHOLE,
    Host,
    dies_at,
    honest,
    lies_at,
    prefer,
    simulate,
    text_of,
    world,
)


@pytest.mark.parametrize("step", [1, 3, 32, 80])
def test_an_unbroken_job_is_delivered_once_and_paid_exactly(step: int) -> None:
    async def play() -> None:
        async with world(honest, step=step) as w:
            events = await w.ask()
            assert isinstance(events[0], Started)
            ended = events[-1]
            assert isinstance(ended, Ended)
            assert text_of(events) == WHOLE
            assert ended.emitted == ANSWER
            assert (ended.finish, ended.prompt_tokens, ended.output_tokens) == (Finish.STOP, 3, 80)
            cost = -(-(5_000 * 3 + 7_000 * 80) // 1000)
            assert ended.cost == cost == w.promised(w.hosts[0])
            await w.dispatcher.close()
        assert w.hosts[0].paid == cost
        assert w.ended == [ended]

    simulate(play)


@pytest.mark.parametrize("death", range(len(ANSWER) + 1))
def test_a_host_that_dies_at_any_token_costs_the_consumer_nothing_and_is_paid_what_it_delivered(death: int) -> None:
    async def play() -> None:
        async with world(dies_at(death), honest) as w:
            w.hosts.sort(key=lambda host: host.trick is honest)
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1  # so that the mortal one goes first
            events = await w.ask()
            ended = events[-1]
            assert isinstance(ended, Ended)
            assert text_of(events) == WHOLE
            assert ended.emitted == ANSWER
            first, second = w.hosts
            price = first.offer.price
            mine = attempt_amount(price, 3, 0, death) if death else 0
            rest = attempt_amount(price, 3, death, len(ANSWER) - death)
            assert (w.promised(first), w.promised(second)) == (mine, rest)
            assert [(part.first, part.tokens) for part in ended.parts if part.tokens] == [
                part for part in ((0, death), (death, len(ANSWER) - death)) if part[1]
            ]
            assert any(isinstance(event, Moved) for event in events)

    simulate(play)


def change(**fields: object) -> Callable[[msgspec.Struct], msgspec.Struct]:
    return lambda message: (
        msgspec.structs.replace(message, **fields) if set(fields) <= set(message.__struct_fields__) else message
    )


@pytest.mark.parametrize(
    "lie",
    [
        change(first=4),
        change(first=6),
        change(rolling=bytes(32)),
        change(ids=tuple(range(300))),
        lambda message: Done(b"\0" * 700),
        lambda message: Accept(3, prompt_hash(PROMPT)),
        lambda message: Chunk(b"\0" * 673),
    ],
)
def test_a_lie_is_never_delivered_and_the_liar_is_left_alone(lie: Callable[[msgspec.Struct], msgspec.Struct]) -> None:
    async def play() -> None:
        async with world(lies_at(5, lie), honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            events = await w.ask()
            assert text_of(events) == WHOLE
            assert w.promised(w.hosts[0]) == attempt_amount(w.hosts[0].offer.price, 3, 0, 5)
            assert w.dispatcher.directory.host(w.hosts[0].key.address).shunned_until > NOW + 3000

    simulate(play)


def test_a_receipt_that_claims_more_than_was_delivered_is_a_lie() -> None:
    inner = Host(key("host 0"))

    def overcharge(index: int, message: msgspec.Struct) -> msgspec.Struct:
        if isinstance(message, Chunk):
            receipt = unpack(Receipt, message.receipt).value
            more = msgspec.structs.replace(receipt, output_tokens=64, amount=receipt.amount * 2)
            return Chunk(more.sign(RECORD.court_domain, inner.key).pack())
        return message

    async def play() -> None:
        async with world(overcharge, honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            assert text_of(await w.ask()) == WHOLE
            assert w.promised(w.hosts[0]) == attempt_amount(w.hosts[0].offer.price, 3, 0, 32)

    simulate(play)


def test_a_silent_host_is_given_up_in_bounded_time() -> None:
    async def play() -> None:
        async with world(lambda index, message: None if index >= 9 else message) as w:
            w.hosts[0].trick = dies_at(9)
            with pytest.raises(JobLost):
                await w.ask()
            assert w.ended[0].emitted == ANSWER[:9]
            assert w.ended[0].finish is Finish.RUNNING

    simulate(play)


def test_reasons_of_every_refusal_reach_the_consumer() -> None:
    busy = lies_at(0, lambda message: Refuse("busy", "All 4 slots are taken.", 500))

    async def play() -> None:
        async with world(busy, busy) as w:
            with pytest.raises(NoHost) as caught:
                await w.ask()
            assert caught.value.message.count("All 4 slots are taken") == 2
            assert w.ended == []

    simulate(play)


long = lies_at(0, lambda message: Refuse("too_long", "The prompt has 900 tokens, the context 512."))


def test_a_request_that_two_hosts_call_hopeless_is_not_tried_further() -> None:
    async def play() -> None:
        async with world(long, long, honest) as w:
            prefer(w, *w.hosts)
            with pytest.raises(Refusal) as caught:
                await w.ask()
            assert caught.value.code == "too_long"
            assert w.hosts[1].opened
            assert w.hosts[2].opened == []

    simulate(play)


def test_the_only_host_is_believed_that_a_request_is_hopeless() -> None:
    async def play() -> None:
        async with world(long) as w:
            with pytest.raises(Refusal) as caught:
                await w.ask()
            assert caught.value.code == "too_long"

    simulate(play)


def test_one_host_alone_cannot_end_everybody_s_requests_by_calling_them_hopeless() -> None:
    """It may be the cheapest, and so the first that is asked; each time it is left alone for longer."""

    async def play() -> None:
        async with world(long, honest) as w:
            prefer(w, *w.hosts)
            assert text_of(await w.ask()) == WHOLE
            liar, other = (w.dispatcher.directory.host(host.key.address) for host in w.hosts)
            assert liar.shunned_until > NOW
            assert other.shunned_until == 0

    simulate(play)


def test_money_runs_out_before_work_not_after() -> None:
    async def play() -> None:
        async with world(honest) as w:
            with pytest.raises(OutOfFunds) as caught:
                await w.ask(limit=100)
            assert w.hosts[0].opened == []
            missing = caught.value.missing
            with pytest.raises(OutOfFunds):
                await w.ask(limit=100 + missing - 1)
            await w.ask(limit=100 + missing)

    simulate(play)


def test_a_consumer_that_leaves_pays_for_what_was_delivered_and_no_more() -> None:
    async def play() -> None:
        async with world(honest) as w:
            request = chat_request(max_tokens=100)
            run = w.dispatcher.run(
                Payer(PAYER, PAYER.address, Wei(10**9)), Ask(w.hosts[0].offer.agent, request), job_id()
            )
            async for event in run:
                if isinstance(event, Piece) and event.first == 20:
                    break
            await run.aclose()
            await w.dispatcher.close()
            [ended] = w.ended
            assert len(ended.emitted) >= 21
            assert w.promised(w.hosts[0]) == attempt_amount(w.hosts[0].offer.price, 3, 0, len(ended.emitted))

    simulate(play)


def test_a_host_that_fails_politely_is_followed_by_another() -> None:
    async def play() -> None:
        async with world(lies_at(11, lambda message: Fail("engine_died", "The engine ended.")), honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            events = await w.ask()
            assert text_of(events) == WHOLE
            assert [event.code for event in events if isinstance(event, Moved)] == ["engine_died"]

    simulate(play)


@pytest.mark.parametrize("off", [-86_400, 3_600])
def test_a_receipt_that_is_dated_so_that_it_cannot_be_disputed_is_a_lie(off: int) -> None:
    inner = Host(key("host 0"))

    def redate(index: int, message: msgspec.Struct) -> msgspec.Struct:
        if isinstance(message, Chunk):
            receipt = unpack(Receipt, message.receipt).value
            other = msgspec.structs.replace(receipt, issued_at=receipt.issued_at + off)
            return Chunk(other.sign(RECORD.court_domain, inner.key).pack())
        return message

    async def play() -> None:
        async with world(redate, honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            assert text_of(await w.ask()) == WHOLE
            assert w.dispatcher.directory.host(w.hosts[0].key.address).shunned_until > NOW + 3000

    simulate(play)


def test_jobs_at_once_on_one_channel_are_all_covered_by_its_lock() -> None:
    async def play() -> None:
        async with world(honest) as w:
            [host] = w.hosts
            request = chat_request(max_tokens=100)
            payer = Payer(PAYER, PAYER.address, Wei(10**9))
            runs = [w.dispatcher.run(payer, Ask(host.offer.agent, request), job_id(f"job {n}")) for n in range(6)]
            for run in runs:
                await anext(run)
            key_ = ChannelKey(PAYER.address, host.key.address, host.offer.terms, 0)
            worst = attempt_amount(host.offer.price, prompt_bound(request), 0, 100)
            assert w.purse.channel(key_).locked >= 6 * worst
            for run in runs:
                assert [event async for event in run]
            assert w.promised(host) <= w.purse.channel(key_).locked
            assert w.dispatcher.reserved == {}

    simulate(play)


@pytest.mark.parametrize("death", [0, 3, 50])
def test_nothing_stays_reserved_after_a_job_however_it_ends(death: int) -> None:
    async def play() -> None:
        async with world(dies_at(death)) as w:
            with pytest.raises((JobLost, NoHost)):
                await w.ask()
            assert w.dispatcher.reserved == {}

    simulate(play)


def test_an_answer_that_was_complete_when_its_host_died_needs_no_other_host() -> None:
    async def play() -> None:
        async with world(dies_at(40)) as w:
            events = await w.ask(max_tokens=40)
            ended = events[-1]
            assert isinstance(ended, Ended)
            assert (ended.finish, ended.emitted) == (Finish.LENGTH, ANSWER[:40])
            assert w.promised(w.hosts[0]) == attempt_amount(w.hosts[0].offer.price, 3, 0, 40)

    simulate(play)


def test_a_channel_that_the_payer_closes_is_followed_by_the_next_epoch() -> None:
    async def play() -> None:
        async with world(honest) as w:
            [host] = w.hosts
            await w.ask()
            before = w.promised(host)
            w.purse.closed(PAYER.address, host.key.address, host.offer.terms, 0)
            w.purse.closed(PAYER.address, host.key.address, host.offer.terms, 0)
            request = Ask(host.offer.agent, chat_request(max_tokens=100))
            payer = Payer(PAYER, PAYER.address, Wei(10**9))
            host.paid = 0
            async for _ in w.dispatcher.run(payer, request, job_id("second")):
                pass
            assert w.promised(host) == before
            assert host.opened[-1].epoch == 1
            assert host.paid == before

    simulate(play)


def test_a_host_that_gives_up_over_unsigned_tokens_is_left_alone() -> None:
    """It would be paid for work that nobody can audit."""

    async def play() -> None:
        async with world(lies_at(11, lambda message: Fail("engine_died", "The engine ended.")), honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            assert text_of(await w.ask()) == WHOLE
            assert w.dispatcher.directory.host(w.hosts[0].key.address).shunned_until > NOW + 3000

    simulate(play)


class Leaver:
    """A listener that ends its own job from within what it hears."""

    def __init__(self) -> None:
        self.wants_more = True
        self.job: asyncio.Task[None] | None = None
        self.heard = 0

    def hear(self, event: Event) -> None:
        self.heard += isinstance(event, Piece)
        if self.heard == 5 and self.job is not None:
            self.wants_more = not self.job.cancel()

    def lull(self) -> bool:
        return self.wants_more

    async def drain(self) -> None: ...


def test_a_listener_that_cancels_its_job_while_it_hears_of_it_hurts_nobody_else_on_the_link(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play() -> None:
        slow = Host(key("slow"))

        async def paced(messages: MessageStream[Open | Pay], ask: Open, answer: Any = slow._answer) -> None:
            await asyncio.sleep(0.1)
            await answer(messages, ask)

        slow._answer = paced  # type: ignore[method-assign]
        async with world(slow) as w:
            payer, request = Payer(PAYER, PAYER.address, Wei(10**9)), chat_request(max_tokens=100)
            leaver = Leaver()
            leaver.job = asyncio.ensure_future(
                w.dispatcher.carry(payer, Ask(slow.offer.agent, request), leaver, job_id("leaver"))
            )
            other = asyncio.ensure_future(w.ask())
            await asyncio.gather(leaver.job, return_exceptions=True)
            assert leaver.job.cancelled()
            assert text_of(await other) == WHOLE
            await w.dispatcher.close()
            assert w.dispatcher.reserved == {}
            assert w.promised(slow) == sum(account.cost for account in w.ended)

    simulate(play)
    assert caplog.records == [], "nothing was thrown into the link's own turn"


class Stutterer(Host):
    """Delivers some tokens, and then signs for them again and again, a second apart."""

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        ids = ANSWER[:5]
        messages.send(Tokens(0, ids, "".join(f"{i} " for i in ids), roll(rolling_start(JobId(ask.job)), ids)))
        with suppress(NetError):
            while True:
                messages.send(Chunk(self._receipt(ask, 5, Finish.RUNNING)))
                await messages.drain()
                await asyncio.sleep(1.0)


def test_a_host_that_says_the_same_for_ever_is_not_waited_for() -> None:
    async def play() -> None:
        async with world(Stutterer(key("host 0")), honest) as w:
            w.dispatcher.directory.host(w.hosts[1].key.address).failures = 1
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(60):
                events = await w.ask()
            assert text_of(events) == WHOLE
            assert [event.code for event in events if isinstance(event, Moved)] == ["host_lied"]
            assert asyncio.get_running_loop().time() - began < 5
            assert w.promised(w.hosts[0]) == attempt_amount(w.hosts[0].offer.price, 3, 0, 5)

    simulate(play)


def test_a_host_that_lies_about_the_prompt_and_dies_has_no_honest_one_blamed_for_it() -> None:
    def liar(index: int, message: msgspec.Struct) -> msgspec.Struct | None:
        if isinstance(message, Accept):
            return Accept(4, prompt_hash((1, 2, 3, 4)))
        return message if index < 5 else None

    async def play() -> None:
        async with world(liar, honest, honest) as w:
            prefer(w, *w.hosts)
            with pytest.raises(JobLost):
                await w.ask()
            for host in w.hosts[1:]:
                assert host.opened
                assert w.dispatcher.directory.host(host.key.address).shunned_until == 0

    simulate(play)
