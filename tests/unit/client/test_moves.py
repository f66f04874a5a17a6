"""Which streams move and what that costs: stalls, races for the first token, requests that kill, a purse that fails."""

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from factories import NOW, chat_request, job_id, key, with_changes
from lading.dispatch import Ask, Payer, Piece
from lading.dispatch.dispatcher import Event, Limits, Settling
from lading.errors import BadRequest, JobLost, NoHost, PurseError, Quarantined
from lading_protocol.errors import LadingError
from lading_protocol.ids import Wei
from lading_protocol.messages import Fail, Refuse, Tokens
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Finish
from unit.client.toys import (
    ANSWER,
    PAYER,
    WHOLE,
    Host,
    Paced,
    World,
    ask,
    codes,
    dies_at,
    ended,
    honest,
    learn,
    lies_at,
    prefer,
    simulate,
    text_of,
    watch,
    world,
    written,
)


class Eager(list[Event]):
    """Listens as a gateway does, which always wants more: the host is not asked for anew after each event."""

    def hear(self, event: Event) -> None:
        self.append(event)

    def lull(self) -> bool:
        return True

    async def drain(self) -> None: ...


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("at", [1, 2, 40])
def test_a_known_host_that_stalls_is_left_after_a_few_of_its_own_gaps(at: int, eager: bool) -> None:
    async def play() -> None:
        quick, other = Paced("quick"), Paced("other")
        async with world(quick, other) as w:
            await learn(w, quick, jobs=2)
            quick.sticks = at
            clock = asyncio.get_running_loop().time
            before = clock()
            if eager:
                events = Eager()
                wanted = Ask(w.hosts[0].offer.agent, chat_request(max_tokens=100))
                await w.dispatcher.carry(Payer(PAYER, PAYER.address, Wei(10**9)), wanted, events, job_id("the one"))
            else:
                events = Eager(await ask(w, "the one"))
            assert text_of(events) == WHOLE
            assert codes(events) == ["link_lost"]
            assert clock() - before < 0.5, "a host that is not known has 30 s for the first token and 8 s for the next"
            assert [part.tokens for part in ended(events).parts] == [at, len(ANSWER) - at]

    simulate(play)


def test_the_only_host_is_waited_for_as_long_as_one_that_is_not_known() -> None:
    async def play() -> None:
        quick = Paced("quick")
        async with world(quick) as w:
            await learn(w, quick, jobs=2)
            quick.sticks = 40
            job = asyncio.ensure_future(ask(w, "the one"))
            await asyncio.sleep(7.0)
            assert not job.done()
            with pytest.raises(JobLost):
                await job

    simulate(play)


def test_a_spent_budget_holds_streams_where_they_are_and_a_late_token_still_counts() -> None:
    async def play() -> None:
        quick, other = Paced("quick"), Paced("other")
        async with world(quick, other) as w:
            await learn(w, quick, jobs=2)
            w.dispatcher.failover.budget.level = -50.0
            quick.gap = 1.0  # far over the limit that it taught us, under the 5 s for which a stream is held
            events = await ask(w, "the one")
            assert text_of(events) == WHOLE
            assert codes(events) == []
            assert len(ended(events).parts) == 1

    simulate(play)


def test_a_spent_budget_does_not_hold_a_stream_for_ever() -> None:
    async def play() -> None:
        quick, other = Paced("quick", sticks=-1), Paced("other")
        async with world(quick, other, limits=Limits(attempts=4, held=2.0)) as w:
            await learn(w, quick, jobs=2)
            w.dispatcher.failover.budget.level = -50.0
            quick.sticks = 10
            before = asyncio.get_running_loop().time()
            assert text_of(await ask(w, "the one")) == WHOLE
            assert 2.0 < asyncio.get_running_loop().time() - before < 3.0

    simulate(play)


@pytest.mark.parametrize("behind", [0.0, 0.02, 0.2, 30.0])
def test_the_first_of_two_hosts_delivers_and_the_other_is_cancelled_and_owed_what_arrived(behind: float) -> None:
    async def play() -> None:
        slow, rival = Paced("slow"), Paced("rival")
        async with world(slow, rival) as w:
            await learn(w, slow)
            prefer(w, slow, rival)
            w.ended.clear()
            slow.first, rival.first = 0.1 + behind, 0.05
            before = asyncio.get_running_loop().time()
            paid = {host: w.promised(host) for host in w.hosts}
            events = await ask(w, "the one", hedge=True)
            assert asyncio.get_running_loop().time() - before < 1.0
            assert text_of(events) == WHOLE
            end = ended(events)
            await w.dispatcher.close()
            [account] = w.ended
            assert account.parts == end.parts
            winner = next(part for part in end.parts if part.tokens == len(ANSWER))
            assert winner.receipt
            losers = [part for part in end.parts if part is not winner]
            if behind > 0.05:
                assert losers == []
            for loser in losers:
                assert loser.tokens <= 3
                assert not loser.receipt
            for host in w.hosts:
                new = w.promised(host) - paid[host]
                assert new == sum(part.amount for part in end.parts if part.host == host.key.address)
            assert w.dispatcher.reserved == {}

    simulate(play)


def test_without_the_option_or_beyond_the_price_limit_nobody_else_is_asked() -> None:
    async def play() -> None:
        slow, rival = Paced("slow"), Paced("rival")
        async with world(slow, rival) as w:
            await learn(w, slow)
            prefer(w, slow, rival)
            slow.first = 0.3
            assert codes(await ask(w, "the one")) == []
            cheap = w.hosts[0].offer.price
            from msgspec.structs import replace

            dear = replace(rival.offer.offer, price_out=cheap.output + 1, sequence=rival.offer.offer.sequence + 1)
            w.dispatcher.directory.put(with_changes(rival.offer, offer=dear))
            assert codes(await ask(w, "another", hedge=True, max_price=cheap)) == []
            assert rival.opened == []

    simulate(play)


def test_a_rival_that_refuses_or_dies_changes_nothing() -> None:
    async def play() -> None:
        slow = Paced("slow")
        busy = Host(key("busy"), lies_at(0, lambda message: Refuse("busy", "All slots are taken.", 500)))
        async with world(slow, busy) as w:
            await learn(w, slow)
            prefer(w, slow, busy)
            slow.first = 0.5
            events = await ask(w, "the one", hedge=True)
            assert text_of(events) == WHOLE
            assert [part.host for part in ended(events).parts] == [slow.key.address]

    simulate(play)


def test_a_consumer_that_leaves_during_a_race_stops_both_hosts() -> None:
    async def play() -> None:
        slow, rival = Paced("slow"), Paced("rival")
        async with world(slow, rival) as w:
            await learn(w, slow)
            prefer(w, slow, rival)
            slow.first = rival.first = 5.0
            paid = {host: w.promised(host) for host in w.hosts}
            job = asyncio.ensure_future(ask(w, "the one", hedge=True))
            await asyncio.sleep(1.0)
            assert rival.opened
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            await w.dispatcher.close()
            assert (slow.stopped, rival.stopped) == (1, 1)
            assert {host: w.promised(host) for host in w.hosts} == paid
            assert w.dispatcher.reserved == {}

    simulate(play)


def breaks(index: int, message: msgspec.Struct) -> msgspec.Struct:
    return Fail("engine_crashed", "The engine ended.") if isinstance(message, Tokens) else message


def test_a_request_that_broke_two_hosts_is_kept_from_a_third() -> None:
    async def play() -> None:
        async with world(breaks, breaks, honest) as w:
            prefer(w, *w.hosts)
            with pytest.raises(Quarantined) as caught:
                await ask(w)
            assert caught.value.code == "job_quarantined"
            with pytest.raises(Quarantined):
                await ask(w, "again")
            assert w.hosts[2].opened == []
            other = Ask(w.hosts[0].offer.agent, chat_request("Another prompt.", max_tokens=100))
            payer = Payer(PAYER, PAYER.address, Wei(10**9))
            prefer(w, w.hosts[2])
            events = [event async for event in w.dispatcher.run(payer, other, job_id("other"))]
            assert text_of(events) == WHOLE

    simulate(play)


def test_hosts_that_are_lost_one_after_the_other_as_the_answer_goes_on_are_no_reason() -> None:
    async def play() -> None:
        async with world(dies_at(10), dies_at(20), dies_at(30), honest) as w:
            prefer(w, *w.hosts)
            events = await ask(w)
            assert text_of(events) == WHOLE
            assert len(codes(events)) == 3
            assert w.dispatcher.failover.moves == 3

    simulate(play)


@pytest.mark.parametrize("given", [1, 31, 32, 33, 79])
def test_what_a_consumer_has_from_elsewhere_is_neither_sent_nor_charged_again(given: int) -> None:
    async def play() -> None:
        async with world(honest) as w:
            events = await ask(w, emitted=ANSWER[:given])
            assert text_of(events) == "".join(f"{i} " for i in ANSWER[given:])
            assert next(event.first for event in events if isinstance(event, Piece)) == given
            end = ended(events)
            assert end.emitted == ANSWER
            assert end.output_tokens == len(ANSWER) - given
            assert end.cost == attempt_amount(w.hosts[0].offer.price, 3, given, len(ANSWER) - given)
            assert end.cost == w.promised(w.hosts[0])

    simulate(play)


def test_an_answer_that_the_consumer_has_whole_costs_nothing_and_more_than_that_is_refused() -> None:
    async def play() -> None:
        async with world(honest) as w:
            full = tuple(range(100))
            events = await ask(w, emitted=full)
            assert (ended(events).finish, ended(events).cost) == (Finish.LENGTH, 0)
            with pytest.raises(BadRequest):
                await ask(w, "more", emitted=(*full, 1))
            assert w.hosts[0].opened == []

    simulate(play)


@pytest.mark.parametrize("works_until", range(4))
def test_a_purse_that_fails_keeps_what_is_owed_takes_no_new_work_and_signs_once_it_can(
    works_until: int, tmp_path: Path
) -> None:
    file = tmp_path / "purse.sqlite"

    async def play() -> None:
        async with world(Host(key("host 0"), rest=0.05), purse=file) as w:
            watch(file, works_until)
            with suppress(LadingError):
                await ask(w)
            await asyncio.sleep(0.1)
            whole = w.dispatcher.funds.tab.trouble is None
            assert whole == (works_until == 3), "it takes three vouchers"
            assert len(w.ended) == whole, "an account is reported when its vouchers are on the disk"
            if not whole:
                with pytest.raises(PurseError):
                    await ask(w, "another")
            watch(file)
            await asyncio.sleep(2)
            [account] = w.ended
            [part] = account.parts
            assert part.settling is Settling.SETTLED
            assert part.amount == attempt_amount(w.hosts[0].offer.price, 3, 0, part.tokens)
            assert w.promised(w.hosts[0]) == part.amount
            await ask(w, "a third")
            await asyncio.sleep(60)
            assert w.promised(w.hosts[0]) == sum(ended.cost for ended in w.ended)
            assert w.dispatcher.reserved == {}

    simulate(play)


def test_every_answer_is_paid_a_moment_after_its_end_though_nobody_looks() -> None:
    async def play() -> None:
        async with world(honest) as w:
            cost = 0
            for n in range(3):
                cost += ended(await ask(w, f"job {n}")).cost
                await asyncio.sleep(0.1)
                assert w.hosts[0].paid == cost
                assert w.hosts[0].left == n + 1, "its stream is closed, too"

    simulate(play)


def test_answers_that_end_within_a_moment_are_paid_with_one_voucher(tmp_path: Path) -> None:
    file = tmp_path / "purse.sqlite"

    async def play() -> None:
        patient = Host(key("patient"), honest)
        detail = msgspec.structs.replace(patient.offer.detail, credit=1000)
        patient.offer = with_changes(patient.offer, detail=detail)
        async with world(patient, purse=file) as w:
            await ask(w, "first")
            watch(file)
            await asyncio.sleep(1)
            await asyncio.gather(*(ask(w, f"job {n}") for n in range(12)))
            await asyncio.sleep(1)
            assert 1 <= written(file) <= 2
            assert patient.paid == w.promised(patient) == sum(ended.cost for ended in w.ended)
            assert patient.left == len(patient.opened) == 13

    simulate(play)


def test_a_host_that_never_says_its_last_word_is_settled_late_and_only_once() -> None:
    async def play() -> None:
        deaf = Paced("deaf", gap=0.01)
        deaf.deaf = True
        async with world(deaf) as w:
            payer = Payer(PAYER, PAYER.address, Wei(10**9))
            wanted = Ask(deaf.offer.agent, chat_request(max_tokens=100))
            deaf.sticks = 40
            run = w.dispatcher.run(payer, wanted, job_id())
            async for event in run:
                if isinstance(event, Piece) and event.first == 20:
                    break
            await run.aclose()
            await w.dispatcher.close()
            [account] = w.ended
            [part] = account.parts
            assert part.settling is Settling.LATE
            assert part.amount == w.promised(deaf) == attempt_amount(deaf.offer.price, 3, 0, part.tokens)
            await asyncio.sleep(60)
            assert w.promised(deaf) == part.amount

    simulate(play)


def test_a_host_that_calls_a_job_cancelled_which_nobody_cancelled_is_a_liar() -> None:
    async def play() -> None:
        idle, other = Paced("idle"), Paced("other")
        async with world(idle, other) as w:
            prefer(w, idle, other)
            job = asyncio.ensure_future(ask(w))
            await asyncio.sleep(0.03)
            for stream in idle.streams:
                stream.set()
            events = await job
            assert text_of(events) == WHOLE
            assert codes(events) == ["host_lied"]

    simulate(play)


def preempts(index: int, message: msgspec.Struct) -> msgspec.Struct:
    return Fail("preempted", "Give way.") if isinstance(message, Tokens) else message


def test_a_host_that_stops_an_interactive_job_for_others_is_left() -> None:
    async def play() -> None:
        async with world(preempts, honest) as w:
            prefer(w, *w.hosts)
            assert text_of(await ask(w)) == WHOLE
            assert len(w.hosts[0].opened) == 1

    simulate(play)


def test_a_host_that_stops_a_batch_job_again_and_again_is_left_after_the_third_time() -> None:
    async def play() -> None:
        async with world(preempts) as w:
            before = asyncio.get_running_loop().time()
            with pytest.raises(NoHost):
                await ask(w, batch=True)
            assert [opening.preempted for opening in w.hosts[0].opened] == [0, 1, 2, 3]
            assert asyncio.get_running_loop().time() - before < 310

    simulate(play)


def test_a_batch_job_does_not_wait_for_ever_for_a_host_that_is_always_busy() -> None:
    async def play() -> None:
        turns = [0]

        def moody(index: int, message: msgspec.Struct) -> msgspec.Struct:
            if isinstance(message, Tokens) and not turns[0]:
                turns[0] = 1
                return Fail("preempted", "Give way.")
            return Refuse("busy", "All slots are taken.", 500) if turns[0] else message

        async with world(moody, limits=Limits(attempts=4, parked=20.0)) as w:
            before = asyncio.get_running_loop().time()
            with pytest.raises(NoHost):
                await ask(w, batch=True)
            assert 19 < asyncio.get_running_loop().time() - before < 25
            assert len(w.hosts[0].opened) > 10
            assert not len(w.dispatcher.line)

    simulate(play)


def test_no_host_at_all_says_why() -> None:
    async def play() -> None:
        async with world(honest) as w:
            w.dispatcher.directory.bar(w.hosts[0].key.address, "is closed")
            with pytest.raises(NoHost) as caught:
                await ask(w, emitted=ANSWER[:5])
            assert "is closed" in caught.value.message

    simulate(play)


async def different(w: World, n: int) -> list[Event]:
    wanted = Ask(w.hosts[0].offer.agent, chat_request(f"Tell me story {n}.", max_tokens=100))
    payer = Payer(PAYER, PAYER.address, Wei(10**9))
    return [event async for event in w.dispatcher.run(payer, wanted, job_id(f"job {n}"))]


@pytest.mark.parametrize(
    "code", ["unavailable", "engine_crashed", "resource_exhausted", "draining", "preempted", "moon"]
)
def test_hosts_that_take_jobs_only_to_give_them_up_are_soon_asked_last(code: str) -> None:
    """They are the cheapest, and there are as many of them as a job may try: one job in vain, or two, and no more."""

    def gives_up(index: int, message: msgspec.Struct) -> msgspec.Struct:
        return Fail(code, "Not today.") if isinstance(message, Tokens) else message

    def refuses(index: int, message: msgspec.Struct) -> msgspec.Struct:
        return Refuse(code, "Not today.")

    async def play() -> None:
        idle = [Host(key(f"idle {n}"), gives_up if n % 2 else refuses) for n in range(4)]
        async with world(*idle, Host(key("willing"))) as w:
            prefer(w, *w.hosts)
            lost = 0
            for n in range(12):
                try:
                    assert text_of(await different(w, n)) == WHOLE
                except LadingError:
                    lost += 1
            assert lost <= 2
            assert sum(len(host.opened) for host in idle) <= 12
            assert w.dispatcher.reserved == {}

    simulate(play)


@pytest.mark.parametrize("code", ["no_funds", "unpaid", "unproven", "bad_voucher", "channel_closed"])
def test_hosts_that_refuse_a_payer_are_not_asked_by_it_each_time_and_nobody_else_minds(code: str) -> None:
    """It may be true, so no other payer hears of it; it may be a lie, so it must not cost each job a try."""

    async def play() -> None:
        idle = [Host(key(f"idle {n}"), lambda index, message: Refuse(code, "Pay first.")) for n in range(4)]
        async with world(*idle, Host(key("willing"))) as w:
            prefer(w, *w.hosts)
            lost = 0
            for n in range(12):
                try:
                    assert text_of(await ask(w, f"job {n}")) == WHOLE
                except LadingError:
                    lost += 1
            assert lost <= 2
            assert all(w.dispatcher.directory.host(host.key.address).shunned_until == 0 for host in idle)
            assert all(w.dispatcher.directory.host(host.key.address).given_up == 0 for host in idle)
            assert w.dispatcher.denials.hosts(key("another").address, NOW) == ()

    simulate(play)
