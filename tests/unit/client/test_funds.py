"""What stands behind a job before it runs, while other amounts are on their way to a voucher."""

import msgspec

from factories import chat_request, job_id, key, with_changes
from lading.dispatch import Ask, Payer
from lading.dispatch.purse import ChannelKey
from lading_protocol.ids import Wei
from unit.client.toys import PAYER, Host, ask, ended, honest, simulate, world


def test_what_is_on_the_tab_is_covered_though_asking_for_room_makes_the_purse_sign_for_it() -> None:
    """Another channel's lock makes the purse add up all locks again, and adding up makes it sign what is due: the
    channel's last voucher and what is due must be read on the same side of that."""

    async def play() -> None:
        patient, other = Host(key("patient"), honest), Host(key("other"), honest)
        detail = msgspec.structs.replace(patient.offer.detail, credit=1000)
        patient.offer = with_changes(patient.offer, detail=detail)
        async with world(patient, other) as w:
            payer, funds = Payer(PAYER, PAYER.address, Wei(10**9)), w.dispatcher.funds
            wanted = Ask(patient.offer.agent, chat_request(max_tokens=100))
            w.dispatcher.directory.host(other.key.address).failures = 1
            # Added up while the job runs, and not again until the next lock.
            patient.trick = lambda index, message: (w.purse.locked(PAYER.address), message)[1]
            cost = ended(await ask(w)).cost
            channel = ChannelKey(PAYER.address, patient.key.address, patient.offer.terms, 0)
            assert funds.tab.due(channel) == cost, "it is not signed for yet"
            held, need = w.purse.channel(channel), funds.cover(payer, wanted, patient.offer, 0).need
            taken = 1
            while held.cumulative + cost + (taken + 1) * need <= held.locked:
                funds.cover(payer, wanted, patient.offer, 0)
                taken += 1
            assert funds.tab.due(channel) == cost
            funds.cover(payer, wanted, other.offer, 0)
            funds.cover(payer, wanted, patient.offer, 0)
            held = w.purse.channel(channel)
            assert held.cumulative + funds.pending(channel) <= held.locked

    simulate(play)


def test_jobs_at_once_at_a_host_that_asks_for_nothing_all_end_well() -> None:
    """What they may cost is nothing each, and together; giving it back is no less to be counted."""

    async def play() -> None:
        free = Host(key("free"), honest)
        gift = msgspec.structs.replace(free.offer.offer, price_in=0, price_out=0)
        free.offer = with_changes(free.offer, offer=gift)
        async with world(free) as w:
            payer = Payer(PAYER, PAYER.address, Wei(0))
            wanted = Ask(free.offer.agent, chat_request(max_tokens=100))
            runs = [w.dispatcher.run(payer, wanted, job_id(f"job {n}")) for n in range(3)]
            for run in runs:
                await anext(run)
            for run in runs:
                events = [event async for event in run]
                assert ended(events).cost == 0
            await w.dispatcher.close()
            assert w.dispatcher.reserved == {}

    simulate(play)
