"""Fees that a coordinator hands over for findings, as a real node takes them: good money once, and nothing else."""

import asyncio

import pytest

from factories import key
from lading_net.clock import run_virtual
from lading_node.core import channel as core
from lading_node.core.channel import ChannelId
from lading_node.fees import MOST_ASKERS, BadFee, Takings, Unpaid
from lading_protocol.errors import BadMessage, BadSignature
from lading_protocol.ids import Address, TermsId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Fee
from lading_protocol.receipts import Lock, Voucher
from simulation.node_world import COIN, Sea

ASKER = key("coordinator")


class Bank:
    """Papers of an asker for one node."""

    def __init__(self, sea: Sea, host: Address) -> None:
        self.sea = sea
        self.host = host

    def fee(self, cumulative: int, locked: int = 0, *, by: PrivateKey = ASKER, **changes: object) -> Fee:
        domain = self.sea.record.settlement_domain
        named = {"host": self.host, "terms": self.sea.terms, "epoch": 0} | changes
        voucher = Voucher(**named, cumulative=cumulative).sign(domain, by).pack()  # type: ignore[arg-type]
        lock = Lock(**named, cumulative=locked).sign(domain, by).pack() if locked else b""  # type: ignore[arg-type]
        return Fee(voucher, lock)


def test_a_fee_is_taken_once_and_only_when_it_is_money() -> None:
    async def main() -> None:
        sea = await Sea.create()
        node = sea.node("host")
        task = asyncio.get_running_loop().create_task(node.run())
        await node.started.wait()
        bank, take = Bank(sea, node.address), node.takings.take
        with pytest.raises(BadFee, match="deposit"):
            await take(bank.fee(10, 100), ASKER.address)
        await sea.fund(ASKER, COIN)
        for bad in (
            bank.fee(10, 100, by=key("thief")),
            bank.fee(10, 100, host=key("another host").address),
            Fee(bank.fee(10).voucher, bank.fee(10, 100, epoch=1).lock),
        ):
            with pytest.raises(BadSignature):
                await take(bad, ASKER.address)
        with pytest.raises(BadSignature):
            await take(bank.fee(10, 100), key("thief").address)
        with pytest.raises(BadMessage):
            await take(Fee(b"x" * 65), ASKER.address)
        with pytest.raises(BadFee, match="terms"):
            await take(bank.fee(10, 100, terms=TermsId(b"t" * 32)), ASKER.address)
        with pytest.raises(BadFee, match="nothing stands behind"):
            await take(bank.fee(101, 100), ASKER.address)
        with pytest.raises(BadFee, match="deposit"):
            await take(bank.fee(10, 2 * COIN), ASKER.address)
        assert node.takings.taken == 0
        assert await take(bank.fee(10, 100), ASKER.address) == 10
        for stale in (bank.fee(10), bank.fee(9)):
            with pytest.raises(BadFee, match="old"):
                await take(stale, ASKER.address)
        assert await take(bank.fee(25), ASKER.address) == 15
        channel = node.channels.get(ChannelId(ASKER.address, sea.terms, 0))
        assert (channel.earned, channel.signed, core.outstanding(channel)) == (25, 25, 0)
        await node.settler.settle("test")
        balance = await sea.contracts.settlement.host_balance(node.address)
        assert balance + await sea.contracts.settlement.earned(sea.terms) == 25
        node.stop()
        await task

    run_virtual(main())


def test_who_never_pays_is_found_nothing_more_and_a_fee_clears_the_slate() -> None:
    async def main() -> None:
        sea = await Sea.create()
        node = sea.node("host")
        task = asyncio.get_running_loop().create_task(node.run())
        await node.started.wait()
        takings = Takings(node.doors, node.channels, node.desk, node.agents, 3)
        for _ in range(3):
            takings.admit(ASKER.address)
            takings.found(ASKER.address)
        with pytest.raises(Unpaid, match="3 findings"):
            takings.admit(ASKER.address)
        takings.admit(key("somebody else").address)
        await sea.fund(ASKER, COIN)
        await takings.take(Bank(sea, node.address).fee(10, 100), ASKER.address)
        takings.admit(ASKER.address)
        for n in range(MOST_ASKERS + 10):
            takings.found(Address(n.to_bytes(20, "big")))
        assert len(takings._owed) == MOST_ASKERS
        node.stop()
        await task

    run_virtual(main())
