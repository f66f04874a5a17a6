"""What auditors are paid: the sums, the caps, once a finding, and nothing that tells a canary from a case."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading.keyfile import write_key
from lading_contracts import settlement
from lading_coordinator.audits.fees import Fees, Till
from lading_coordinator.core.fees import FeePolicy, affords, fee
from lading_coordinator.workers.place import Place, Role
from lading_net.ports import Stream
from lading_protocol.economics import AuditRates
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Wei, to_hex
from lading_protocol.pricing import Price
from lading_protocol.receipts import Finish, Lock, Receipt, Voucher
from lading_protocol.speech import SPEECH
from lading_protocol.transcript import sha256
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits, Host
from unit.coordinator.test_bad_auditors import ask, finished
from unit.coordinator.world import COIN, World

amounts = st.integers(0, 10**21)
PRICE = Price(Wei(10**12), Wei(2 * 10**12))


def receipt(amount: int, prompt: int = 100, output: int = 28) -> Receipt:
    names = (b"j" * 32, 0, b"r" * 32, b"a" * 32, b"t" * 32, b"h" * 20, b"s" * 20, 0)
    counts = (0, prompt, output, b"p" * 32, b"c" * 32, 1, 2)
    return Receipt(*names, *counts, amount, Finish.STOP, 1_800_000_000)  # type: ignore[arg-type]


@given(amounts, st.integers(0, 10_000), amounts, amounts, amounts)
def test_a_fee_is_within_every_cap(amount: int, tokens: int, each: int, epoch: int, spent: int) -> None:
    policy = FeePolicy(each=Wei(each), epoch=Wei(epoch))
    due = fee(receipt(amount, tokens, 0), PRICE, policy)
    assert due <= min(amount // 10, each, PRICE.input * tokens // 1000 + 1)
    assert affords(policy, spent, due) == (spent + due <= epoch)


def test_a_fee_is_a_tenth_of_the_price_or_what_the_auditor_asks_itself() -> None:
    policy = FeePolicy(each=Wei(COIN), epoch=Wei(COIN))
    assert fee(receipt(10**9), PRICE, policy) == 10**8
    assert fee(receipt(10**20), PRICE, policy) == 128 * 10**12 // 1000
    assert fee(receipt(9), PRICE, policy) == 0


async def deposit(world: World, coins: int) -> None:
    await world.contracts.coin.approve(world.key, world.record.settlement, coins * COIN)
    await world.contracts.settlement.deposit(world.key, coins * COIN)


def rows(world: World) -> list[tuple[Any, ...]]:
    return world.coordinator.store.rows("select leaf, auditor, amount from audit_fees")


def brought(host: Host) -> int:
    """What the vouchers of its fees are worth: they only grow, each is good, and each fits its lock."""
    total = 0
    for one in host.fees:
        voucher = unpack(Voucher, one.voucher)
        voucher.check(host.record.settlement_domain, key("coordinator").address)
        assert voucher.value.host == host.key.address
        assert voucher.value.cumulative > total
        total = voucher.value.cumulative
    return total


def test_a_canary_pays_like_any_other_receipt(play: Play, tmp_path: Path) -> None:
    """The paper, its size and its sum follow from what the auditor sees anyway; and a lazy one gets it too, until the
    canary is told."""
    write_key(tmp_path / "canary key", key("canary"))
    habits = Habits(length=40, takes_fees=True)

    async def story(world: World) -> None:
        await deposit(world, 100)
        await world.host("server", msgspec.structs.replace(habits, price_out=1))
        await world.host("canary", habits)
        for label in ("a", "b", "c"):
            await world.host(label, habits)
        api_key, asked, canaries = await world.session(), 0, set[bytes]()
        while not canaries and asked < 60:
            await ask(world, api_key, 3)
            asked += 3
            await asyncio.sleep(10)
            canaries = {one.leaf for one in await finished(world, asked) if one.state == "canary"}
        paid = {(leaf, who): int(amount) for leaf, who, amount in rows(world)}
        for host in world.hosts:
            for case in host.checked:
                value = unpack(Receipt, case.receipt).value
                tokens = value.prompt_tokens + value.output_tokens
                assert paid[sha256(case.receipt), host.key.address] == min(
                    value.amount // 10, -(-tokens * 1_000_000 // 1000)
                )
            assert brought(host) == sum(amount for (_, who), amount in paid.items() if who == host.key.address)
            assert len({len(one.voucher) for one in host.fees}) <= 1
        assert canaries & {leaf for leaf, _ in paid}
        assert sum(brought(host) for host in world.hosts) == sum(paid.values()) > 0
        listed = {one["auditor"]: one for one in (await world.ask("GET", "/lading/v1/audits")).json["auditors"]}
        for host in world.hosts:
            shown = listed.get(to_hex(host.key.address), {"paid": {"wei": "0"}})
            assert int(shown["paid"]["wei"]) == brought(host)
        page = (await world.ask("GET", "/")).body
        assert b"Paid in 24 h" in page

    rates = AuditRates(canary_ppm=1_000_000)
    play(story, audit_canary_key=str(tmp_path / "canary key"), rates=rates)


def test_the_epochs_budget_and_the_deposit_are_never_passed(play: Play) -> None:
    async def story(world: World) -> None:
        for label in ("one", "two", "three"):
            await world.host(label, Habits(length=40, takes_fees=True, price_in=10**13, price_out=10**13))
        api_key = await world.session()
        await ask(world, api_key, 2)
        await finished(world, 2)
        assert rows(world) == [], "no deposit, no fee; and audits go on"
        await deposit(world, 1)
        await ask(world, api_key, 12)
        await finished(world, 14)
        total = sum(int(amount) for _, _, amount in rows(world))
        assert 0 < total <= 10**11
        assert sum(brought(host) for host in world.hosts) == total
        await asyncio.sleep(700)  # another epoch
        before = len(rows(world))
        await ask(world, api_key, 2)
        await finished(world, 16)
        assert len(rows(world)) > before

    play(story, audit_pay_epoch="0.0000001", audit_pay_most="1", audit_epoch=600.0)


def test_who_says_nothing_or_lies_about_its_seal_is_not_paid(play: Play) -> None:
    async def story(world: World) -> None:
        await deposit(world, 1)
        await world.host("server", Habits(price_out=1, takes_fees=True))
        for label, habits in (
            ("shrug", Habits(verdict=0)),
            ("liar", Habits(salt=b"\x01" * 32)),
            ("no", Habits(audits=False)),
        ):
            await world.host(label, msgspec.structs.replace(habits, takes_fees=True))
        await world.host("old")  # its program knows no fee
        await world.chat(await world.session())
        await finished(world, 1)
        assert rows(world) == []
        assert not any(host.fees for host in world.hosts)

    play(story)


@pytest.mark.parametrize("role", [Role.WHOLE, Role.DESK])
def test_fees_go_on_in_the_next_epoch_of_a_channel_that_is_being_closed(play: Play, role: Role) -> None:
    """A desk signs for no session, but for its own fees: what is promised on a channel that closes is worth nothing."""

    async def story(world: World) -> None:
        await deposit(world, 100)
        for label in ("one", "two", "three"):
            await world.host(label, Habits(length=40, takes_fees=True))
        api_key, purse = await world.session(), world.coordinator.purse
        await ask(world, api_key, 2)
        await finished(world, 2)
        for one, channel in purse.channels(world.key.address):
            lock, batch = unpack(Lock, channel.lock), settlement.Batch(one.host, one.terms)
            await world.contracts.settlement.lock(world.key, batch, [(lock.value.cumulative, lock.signature)])
            await world.contracts.settlement.start_close(
                world.key, settlement.ChannelKey(one.signer, one.host, one.terms)
            )
        await asyncio.sleep(5)
        before = {host: len(host.fees) for host in world.hosts if host.fees}
        await ask(world, api_key, 12)
        await finished(world, 14)
        later = [fee for host, count in before.items() for fee in host.fees[count:]]
        assert later
        assert all(unpack(Voucher, one.voucher).value.epoch == 1 for one in later)

    play(story, place=Place(role))


def test_auditors_that_do_not_say_what_they_speak_keep_nobody_else_from_its_fee(play: Play) -> None:
    async def story(world: World) -> None:
        await deposit(world, 100)
        good = await world.host("good", Habits(takes_fees=True))
        mum = await world.host("mum")

        async def says_nothing(stream: Stream) -> None:
            await stream.read()
            await asyncio.sleep(3600)

        mum.transport.handle(SPEECH, says_nothing)
        parts = world.coordinator
        till = Till(world.key, parts.purse, world.contracts.settlement, parts.store)
        fees = Fees(till, FeePolicy(), parts.metrics, world.clock)
        paying = []
        for n, host in enumerate([*[mum] * 8, good]):
            [link] = world.coordinator.outside.transport.links(host.key.address)
            [offer] = host.offers.values()
            paying.append(asyncio.ensure_future(fees.pay(link, offer, bytes([n]) * 32, receipt(10**9))))
        async with asyncio.timeout(1):
            assert await paying[-1] is not None
        assert await asyncio.gather(*paying[:-1]) == [None] * 8

    play(story)
