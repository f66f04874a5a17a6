"""A key never spends beyond its cap, to the wei, however many of its requests run at once and whatever hosts do.

Looked at after every paper that is signed: all locks together stay within the limit, and what is promised in a channel,
with what its running jobs may still cost, stays within its lock.
"""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import chat_request, job_id
from lading.dispatch import Ask, Dispatcher, Payer, Purse
from lading.dispatch.funds import Funds
from lading.dispatch.purse import ChannelKey
from lading.errors import JobLost, NoHost, OutOfFunds
from lading_net.clock import run_virtual
from lading_protocol.ids import Wei
from lading_protocol.keys import PrivateKey
from unit.client.toys import PAYER, RECORD, World, dies_at, honest, world

JOBS = st.lists(
    st.tuples(st.integers(1, 100), st.floats(0, 0.05), st.one_of(st.none(), st.integers(0, 20))),
    min_size=1,
    max_size=10,
)
HOSTS = st.lists(st.one_of(st.none(), st.integers(0, 70)), min_size=1, max_size=3)


class Watched(Purse):
    """Looks after every signature."""

    limit = 0
    owner: Dispatcher
    looks = 0

    def pay_all(self, promises: Iterable[tuple[PrivateKey, ChannelKey, int]]) -> list[bytes]:
        signed = super().pay_all(promises)
        self.look()
        return signed

    def lock(self, secret: PrivateKey, key: ChannelKey, total: int) -> bytes:
        signed = super().lock(secret, key, total)
        self.look()
        return signed

    def look(self) -> None:
        self.looks += 1
        others, self.before_look = self.before_look, lambda: None  # which would sign again what is being signed
        held, locked = self.channels(PAYER.address), self.locked(PAYER.address)
        self.before_look = others
        assert sum(channel.locked for _, channel in held) <= self.limit
        assert locked <= self.limit
        for _, channel in held:
            assert channel.cumulative <= channel.locked

    def quiet(self) -> None:
        """Between two turns of the loop what is reserved is covered too."""
        for key, channel in self.channels(PAYER.address):
            assert self.owner.reserved.get(key, 0) >= 0
            assert channel.cumulative <= channel.locked


@settings(max_examples=60, deadline=None)
@given(JOBS, HOSTS, st.integers(0, 40_000))
def test_requests_at_once_never_exceed_the_cap(
    jobs: list[tuple[int, float, int | None]], deaths: list[int | None], limit: int
) -> None:
    run_virtual(_story(jobs, deaths, limit))


async def _story(jobs: list[tuple[int, float, int | None]], deaths: list[int | None], limit: int) -> None:
    tricks = [honest if death is None else dies_at(death) for death in deaths]
    async with world(*tricks, seed=limit) as w:
        w.purse.close()
        purse = w.purse = w.dispatcher.purse = Watched(":memory:", RECORD.settlement_domain)
        w.dispatcher.funds = Funds(purse, RECORD, w.dispatcher.let_go)
        purse.limit, purse.owner = limit, w.dispatcher
        watching = asyncio.create_task(_watch(purse))
        payers = await asyncio.gather(*(_one(w, f"job {i}", limit, *job) for i, job in enumerate(jobs)))
        await w.dispatcher.close()
        watching.cancel()
        purse.quiet()
        spent = sum(channel.cumulative for _, channel in purse.channels(PAYER.address))
        assert spent == sum(ended.cost for ended in w.ended) <= limit
        assert purse.looks >= (spent > 0)
        assert w.dispatcher.reserved == {}
        for missing in payers:
            assert missing is None or missing > 0


async def _watch(purse: Watched) -> None:
    while True:
        purse.quiet()
        await asyncio.sleep(0.003)


async def _one(w: World, label: str, limit: int, max_tokens: int, start: float, leave_after: int | None) -> int | None:
    """One request; None, or what it was told is missing."""
    await asyncio.sleep(start)
    payer, ask = (
        Payer(PAYER, PAYER.address, Wei(limit)),
        Ask(w.hosts[0].offer.agent, chat_request(max_tokens=max_tokens)),
    )
    seen = 0
    try:
        async with aclosing(w.dispatcher.run(payer, ask, job_id(label))) as events:
            async for _ in events:
                seen += 1
                if seen == leave_after:
                    break
    except OutOfFunds as error:
        assert seen == 0 or w.dispatcher.purse.locked(PAYER.address) <= limit
        return error.missing
    except (NoHost, JobLost):
        pass
    return None


def test_the_missing_amount_is_exact() -> None:
    """With the missing wei more the same request is served; with one less it is not."""

    async def story() -> None:
        async with world(honest) as w:
            with pytest.raises(OutOfFunds) as poor:
                await w.ask(limit=1000, max_tokens=80)
            enough = 1000 + poor.value.missing
            with pytest.raises(OutOfFunds) as nearly:
                await w.ask(limit=enough - 1, max_tokens=80)
            assert nearly.value.missing == 1
            await w.ask(limit=enough, max_tokens=80)

    run_virtual(story())
