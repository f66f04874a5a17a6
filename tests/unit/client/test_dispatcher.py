"""The dispatcher against hosts that die, stall and lie at every place, over the in-memory network."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from factories import NOW, chat_request, job_id, key, known_offer, network
from lading.dispatch import Ask, Directory, Dispatcher, Ended, Moved, Payer, Piece, Purse, Started
from lading.dispatch.dispatcher import Event, Limits, Refusal
from lading.dispatch.purse import ChannelKey
from lading.errors import JobLost, NoHost, OutOfFunds
from lading_net.clock import run_virtual
from lading_net.errors import NetError
from lading_net.memory import MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import unpack
from lading_protocol.ids import JobId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import JOB, Accept, Chunk, Done, Fail, Open, Pay, Refuse, ToHost, Tokens, request_hash
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount, prompt_bound
from lading_protocol.receipts import Finish, Receipt, Voucher
from lading_protocol.transcript import commitment, prompt_hash, roll, rolling_start

RECORD = network()
PAYER = key("payer")
PROMPT = (7, 8, 9)
ANSWER = tuple(range(100, 180))
_to_host = msgspec.msgpack.Decoder(ToHost)

Trick = Callable[[int, msgspec.Struct], msgspec.Struct | None]


def honest(index: int, message: msgspec.Struct) -> msgspec.Struct:
    return message


def dies_at(count: int) -> Trick:
    """Silence and a broken stream once `count` tokens are out."""
    return lambda index, message: None if index >= count else message


def lies_at(count: int, lie: Callable[[msgspec.Struct], msgspec.Struct]) -> Trick:
    return lambda index, message: lie(message) if index == count else message


class Host:
    """Speaks the host's side of a job straight from the protocol's primitives; `trick` may replace any message."""

    def __init__(self, secret: PrivateKey, trick: Trick = honest, step: int = 1) -> None:
        self.key = secret
        self.offer = known_offer(secret, price_in=5_000, price_out=7_000)
        self.trick = trick
        self.step = step
        self.paid = self.left = 0
        self.opened: list[Open] = []

    async def serve(self, stream: Stream) -> None:
        messages: MessageStream[Open | Pay] = MessageStream(stream, _to_host)  # type: ignore[arg-type]
        ask = await messages.recv()
        assert isinstance(ask, Open)
        self.opened.append(ask)
        self._note(ask.voucher)
        if self._say(messages, len(ask.emitted), Accept(len(PROMPT), prompt_hash(PROMPT))):
            await self._answer(messages, ask)
        with suppress(NetError):
            while (message := await messages.recv()) is not None:
                if isinstance(message, Pay):
                    self._note(message.voucher)
            self.left += 1

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        at, first = len(ask.emitted), len(ask.emitted)
        while at < len(ANSWER):
            ids = ANSWER[at : at + self.step]
            rolling = roll(rolling_start(JobId(ask.job)), ANSWER[: at + len(ids)])
            if not self._say(messages, at, Tokens(at, ids, "".join(f"{i} " for i in ids), rolling)):
                return await self._die(messages)
            at += len(ids)
            if (at - first) % 32 == 0 and not self._say(
                messages, at, Chunk(self._receipt(ask, at - first, Finish.RUNNING))
            ):
                return await self._die(messages)
        self._say(messages, at, Done(self._receipt(ask, at - first, Finish.STOP)))
        return None

    async def _die(self, messages: MessageStream[Open | Pay]) -> None:
        await asyncio.sleep(0.01)  # what was sent gets through; a reset would drop it
        messages.stream.reset()

    def _say(self, messages: MessageStream[Open | Pay], index: int, message: msgspec.Struct) -> bool:
        told = self.trick(index, message)
        if told is not None:
            messages.send(told)
        return told is not None

    def _receipt(self, ask: Open, count: int, finish: Finish) -> bytes:
        first, offer = len(ask.emitted), self.offer.offer
        receipt = Receipt(
            job=ask.job,
            attempt=ask.attempt,
            request=request_hash(ask.request),
            agent=offer.agent,
            terms=offer.terms,
            host=offer.host,
            signer=PAYER.address,
            epoch=ask.epoch,
            first=first,
            prompt_tokens=len(PROMPT),
            output_tokens=count,
            prompt_hash=prompt_hash(PROMPT),
            commitment=commitment(JobId(ask.job), ANSWER[: first + count], first),
            price_in=offer.price_in,
            price_out=offer.price_out,
            amount=attempt_amount(self.offer.price, len(PROMPT), first, count) if count else 0,
            finish=finish,
            issued_at=int(NOW),
            tier=2,
        )
        return receipt.sign(RECORD.court_domain, self.key).pack()

    def _note(self, voucher: bytes) -> None:
        if voucher:
            signed = unpack(Voucher, voucher)
            signed.check(RECORD.settlement_domain, PAYER.address)
            assert signed.value.cumulative >= self.paid
            self.paid = signed.value.cumulative


class World:
    def __init__(self, net: MemoryNetwork, hosts: list[Host], purse: Purse, dispatcher: Dispatcher) -> None:
        self.net, self.hosts, self.purse, self.dispatcher = net, hosts, purse, dispatcher
        self._ended: list[Ended] = []
        dispatcher.on_end = self._ended.append

    @property
    def ended(self) -> list[Ended]:
        """The accounts of all jobs, once what they come to is signed for."""
        self.dispatcher.funds.tab.sign_all()
        return self._ended

    async def ask(self, limit: int = 10**9, max_tokens: int = 100) -> list[Event]:
        request = chat_request(max_tokens=max_tokens)
        payer = Payer(PAYER, PAYER.address, Wei(limit))
        agent = self.hosts[0].offer.agent
        return [event async for event in self.dispatcher.run(payer, Ask(agent, request), job_id())]

    def promised(self, host: Host) -> int:
        key = ChannelKey(PAYER.address, host.key.address, host.offer.terms, 0)
        return next((channel.cumulative for other, channel in self.purse.channels(PAYER.address) if other == key), 0)


@asynccontextmanager
async def world(
    *tricks: "Trick | Host", step: int = 1, seed: int = 0, limits: Limits | None = None
) -> AsyncIterator[World]:
    net = MemoryNetwork(seed=seed)
    hosts = [
        trick if isinstance(trick, Host) else Host(key(f"host {i}"), trick, step) for i, trick in enumerate(tricks)
    ]
    directory, purse = Directory(needs_beats=False), Purse(":memory:", RECORD.settlement_domain)
    transports = []
    for host in hosts:
        transport = net.transport(host.key)
        transport.handle(JOB, host.serve)
        endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
        changed = msgspec.structs.replace(host.offer.detail, endpoints=(endpoint,))
        host.offer = KnownOffer(host.offer.id, host.offer.offer, changed, host.offer.advert)
        directory.put(host.offer)
        transports.append(transport)
    mine = net.transport(PAYER)
    limits = limits or Limits(attempts=4)
    dispatcher = Dispatcher(mine, directory, purse, RECORD, lambda: NOW, random.Random(seed), limits)
    yield World(net, hosts, purse, dispatcher)
    await dispatcher.close()
    for transport in [mine, *transports]:
        await transport.close()
    purse.close()


def simulate(play: Callable[[], Awaitable[None]]) -> None:
    run_virtual(play())  # type: ignore[arg-type]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


WHOLE = "".join(f"{i} " for i in ANSWER)


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
            prefer_in_order(w)
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
            prefer_in_order(w)
            assert text_of(await w.ask()) == WHOLE
            liar, other = (w.dispatcher.directory.host(host.key.address) for host in w.hosts)
            assert liar.shunned_until > NOW
            assert other.shunned_until == 0

    simulate(play)


def prefer_in_order(w: World) -> None:
    for rank, host in enumerate(w.hosts):
        w.dispatcher.directory.host(host.key.address).failures = rank


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
        self.full = False
        self.job: asyncio.Task[None] | None = None
        self.heard = 0

    def hear(self, event: Event) -> None:
        self.heard += isinstance(event, Piece)
        if self.heard == 5 and self.job is not None:
            self.full = self.job.cancel()

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
            prefer_in_order(w)
            with pytest.raises(JobLost):
                await w.ask()
            for host in w.hosts[1:]:
                assert host.opened
                assert w.dispatcher.directory.host(host.key.address).shunned_until == 0

    simulate(play)
